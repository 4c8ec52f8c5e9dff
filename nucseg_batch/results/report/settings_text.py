"""The settings of a run in plain words, and which of them are not the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.files.run.provenance import read_provenance
from nucseg_batch.plan import Assumption
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.settings import ESTIMATE, SegmentSettings

MODEL_HASH = "--model (sha256)"
"""Where the fingerprint of a run has the hash of its model."""


@dataclass(frozen=True)
class Setting:
    """One setting."""

    name: str
    """What it is of."""
    value: str
    """What it was."""
    option: str = ""
    """The option that sets it; empty for what is no option."""
    changed: bool = False
    """Whether it is not the default."""


def _distance(text: str) -> str:
    """A distance, or several, with its unit."""
    return text if text.rstrip().endswith("m") else f"{text} pixels"


_WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "diameter": ("Width of nuclei", lambda v: "estimated per image" if v is None else f"{v:g} pixels"),
    "pixel_size": (
        "Pixel size",
        lambda v: "from the files" if v is None else f"{v:g} µm for all images",
    ),
    "channel": (
        "Channel that shows the nuclei",
        lambda v: "the only one, or that of the DNA stain" if v == "auto" else str(v),
    ),
    "threshold": (
        "Foreground probability of a nucleus' pixels",
        lambda v: "the model's own" if v is None else f"above {v:g}",
    ),
    "min_area": ("Smallest nucleus", lambda v: "the model's own" if v is None else f"{v} pixels"),
    "augment": ("Test-time augmentation", lambda v: "mean over four mirror images" if v else "none"),
    "t": ("Time points", lambda v: "all" if v is None else str(v)),
    "z": (
        "z-slices",
        lambda v: "all, separately" if v is None else "projected (maximum)" if v == "max" else str(v),
    ),
    "axes": ("Axes of plain arrays", lambda v: "as the files say" if v is None else str(v)),
    "region": ("Side of the regions of large planes", lambda v: f"{v} pixels"),
    "skip_empty": ("Dark regions of large planes", lambda v: "skipped" if v else "segmented like others"),
    "precision": ("Arithmetic of the network", lambda v: "chosen for the processor" if v == "auto" else str(v)),
    "device": ("Device", lambda v: "a GPU where there is one" if v == "auto" else str(v)),
    "ring": ("Rings around nuclei, gap and width", lambda v: "none" if v is None else _distance(v)),
    "expand": ("Cells: nuclei and what is around them", lambda v: "none" if v is None else f"up to {_distance(v)}"),
    "flatfield": (
        "Correction of uneven illumination",
        lambda v: "none" if v is None else "estimated from the images" if v == ESTIMATE else f"divided by {v}",
    ),
    "link": (
        "Nuclei over z-slices and time points",
        lambda v: {"z": "joined over z-slices", "t": "linked over time points"}.get(str(v), "separate in each"),
    ),
    "z_step": ("Distance of z-slices", lambda v: "from the files" if v is None else f"{v:g} µm for all images"),
    "measure": ("Further columns of nuclei.csv", lambda v: "none" if v is None else str(v).replace(",", ", ")),
    "neighbour_radius": ("Centroids that count as neighbours", lambda v: f"at most {v:g} pixels away"),
    "tables": ("Formats of the nuclei table", lambda v: str(v).replace(",", ", ")),
    "with_images": ("Pixels in the store", lambda v: "stored beside the masks" if v else "not stored"),
    "max_pixels": ("Largest image that is decoded whole", lambda v: f"{v:,} pixels"),
}


def made_with(run: FinishedRun) -> dict[str, Any]:
    """What is known of how a run was made, as its provenance says it; empty where nothing is.

    Runs of versions without a provenance have most of it in their run folder.
    """
    known = read_provenance(run.store)
    if known is not None:
        return known
    begun, scales = run.begun, run.journal.scales()
    if begun is None:
        return {}
    of = begun.fingerprint
    return {
        "version": of.get("nucseg-batch", "unknown"),
        "model": {"name": Path(begun.model).name or "default", "sha256": of.get(MODEL_HASH, "unknown")},
        "settings": begun.settings.result_options(),
        "pattern": begun.pattern,
        "in_place": begun.in_place,
        "assumptions": [dataclasses.asdict(one) for one in begun.assumptions],
        "computed": run.journal.machine(),
        "scales": {} if scales is None else vars(scales),
        "packages": {name: of[name] for name in ("keras", "zarr") if name in of},
    }


def settings_in_words(made: Mapping[str, Any]) -> list[Setting]:
    """Every setting that can change a result; those that are not the defaults first."""
    if not made.get("settings"):
        return []
    model = made.get("model", {})
    own = model.get("name", "default") != "default"
    found = [Setting("Model", str(model["name"]) if own else "the default model of the package", "--model", own)]
    defaults = {field.name: field.default for field in dataclasses.fields(SegmentSettings)}
    for key, value in made["settings"].items():
        name, say = _WORDS.get(key, (key.replace("_", " ").capitalize(), str))
        words = say(value)
        if value is None and model.get(key) is not None and key in ("threshold", "min_area"):
            words += f", {say(model[key])}"
        option = f"--{key.replace('_', '-')}"
        found.append(Setting(name, words, option, key in defaults and value != defaults[key]))
    pattern, in_place = made.get("pattern"), bool(made.get("in_place"))
    found.append(Setting("Which files", pattern or "all images", "--pattern", pattern is not None))
    place = "as labels into the input" if in_place else "into a store of its own"
    found.append(Setting("Masks were written", place, "--in-place", in_place))
    return sorted(found, key=lambda setting: not setting.changed)


def assumed_in_words(made: Mapping[str, Any]) -> list[Assumption]:
    """What was assumed of the input, the doubtful first; empty for runs of versions that did not note it."""
    return [Assumption(**one) for one in made.get("assumptions", ())]


def origin(run: FinishedRun, made: Mapping[str, Any]) -> list[Setting]:
    """What the results come from: images, version, model, machine, scales."""
    begun, folder = run.begun, run.journal.folder
    found = [Setting("Images", begun.root)] if begun is not None else []
    found.append(Setting("Masks", run.store.name))
    if made:
        found.append(Setting("nucseg-batch", str(made.get("version", "unknown"))))
        found.append(Setting("Model, sha256", str(made.get("model", {}).get("sha256", "unknown"))))
    if computed := made.get("computed"):
        found.append(Setting("Computed", ", ".join(f"{name} {value}" for name, value in sorted(computed.items()))))
    if scales := made.get("scales"):
        found.append(Setting("Scales", str(scales.get("reason", "unknown"))))
    if given := made.get("input"):
        found.append(Setting("Pixels that were read, sha256", str(given.get("sha256", "unknown"))))
    if packages := made.get("packages"):
        found.append(Setting("Packages", ", ".join(f"{name} {version}" for name, version in packages.items())))
    if begun is None:
        found.append(Setting("Run folder", f"{folder.name} is missing or from another version, so times are not known"))
    return found
