"""Puts together what a run's results were made with, as `files.run.provenance` writes it."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections import Counter
from typing import Any

from nucseg_batch import __version__
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.tracking import tracker_versions
from nucseg_batch.files.atomic_write import file_sha256
from nucseg_batch.files.flat_fields import listed_flat_fields

CARD = "nucseg.json"
"""What a model file says of itself; `network.model_file` reads all of it, and needs Keras."""


def provenance(job: Job, input_sha256: str) -> dict[str, Any]:
    """Tool, model, settings, way of computing and input of a run, as plain data.

    - `tool`, `version`; `packages`: versions that count;
    - `model`: `name` of its file (`default` for the one that ships), `sha256`, and of what it says of itself
      `architecture`, `task`, `diameter` (pixels), `threshold`, `min_area` (pixels);
    - `settings`: all options that can change a result; None where the model's own, or automatic;
    - `flatfield`: of each flat field that pixels were divided by its `height`, `width`, `channel`, `planes` that it was
      estimated from (0 where it was given), `lowest` and `highest` value, and `sha256`; None without a correction;
    - `channels`: which separate channel showed the nuclei, by name, and in how many images; empty without any;
    - `assumptions`: what the input did not say and was assumed, each an `Assumption` as plain data;
    - `computed`: `precision`, `device` and `backend`; `scales`: how images were enlarged, and why;
    - `input`: `images`, `planes`, `pixels`, and the `sha256` of the names and pixels of all segmented planes.
    """
    begun, plan = job.begun, job.plan
    computed, scales = job.journal.machine(), job.journal.scales()
    packages = {name: begun.fingerprint[name] for name in ("keras", "zarr") if name in begun.fingerprint}
    return {
        "tool": "nucseg-batch",
        "version": begun.fingerprint.get("nucseg-batch", __version__),
        "packages": packages | tracker_versions(job),
        "model": {
            "name": "default" if _is_default(job) else job.model.name,
            "sha256": begun.fingerprint.get("--model (sha256)", ""),
            **_card(job),
        },
        "settings": begun.settings.result_options(),
        "flatfield": _flat_fields(job),
        "channels": dict(sorted(_channels(job).items())),
        "pattern": begun.pattern,
        "in_place": begun.in_place,
        "assumptions": [dataclasses.asdict(one) for one in begun.assumptions],
        "computed": computed,
        "scales": None if scales is None else vars(scales),
        "input": {
            "images": plan.image_count + len(plan.failures),
            "planes": plan.plane_count,
            "pixels": plan.pixel_count,
            "sha256": input_sha256,
        },
    }


def _flat_fields(job: Job) -> list[dict[str, Any]] | None:
    if job.begun.settings.flatfield is None:
        return None
    found = [dataclasses.asdict(one) for one in listed_flat_fields(job.journal.folder) or ()]
    return [{name: value for name, value in one.items() if name != "file"} for one in found]


def _channels(job: Job) -> Counter[str]:
    label_arrays = (label_array for label_array in job.plan.label_arrays if label_array.channel_names)
    return Counter(
        image.names[image.nuclei] for label_array in label_arrays for image in label_array.images if image.names
    )


def _is_default(job: Job) -> bool:
    """Whether the model is the one that ships, by whatever name."""
    return not job.begun.model or job.begun.fingerprint.get("--model (sha256)") == file_sha256(default_model())


def _card(job: Job) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(job.model) as archive:
            card = json.loads(archive.read(CARD))
        return {name: card[name] for name in ("architecture", "task", "diameter", "threshold", "min_area")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):  # an odd model never keeps tables from being written
        return {}
