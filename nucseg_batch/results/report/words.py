"""The settings of a run in plain words, and which of them are not the defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.files.run.records import Beginning
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.settings import SPEED_OPTIONS, SegmentSettings

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


_WORDS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "diameter": ("Width of nuclei", lambda v: "measured on the images" if v is None else f"{v:g} pixels"),
    "pixel_size": (
        "Width of a pixel, to begin with",
        lambda v: "as the files say" if v is None else f"{v:g} µm for all images",
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
    "t": ("Time points", lambda v: "all" if v is None else str(v)),
    "z": (
        "Depths",
        lambda v: "all, each by itself" if v is None else "projected (maximum)" if v == "max" else str(v),
    ),
    "axes": ("Axes of plain arrays", lambda v: "as the files say" if v is None else str(v)),
    "region": ("Side of the regions of large planes", lambda v: f"{v} pixels"),
    "skip_empty": ("Dark regions of large planes", lambda v: "passed over" if v else "looked at like others"),
    "precision": ("Arithmetic of the network", lambda v: "chosen for the processor" if v == "auto" else str(v)),
    "device": ("Device", lambda v: "a GPU where there is one" if v == "auto" else str(v)),
    "with_images": ("Pixels in the store", lambda v: "stored beside the masks" if v else "not stored"),
    "max_pixels": ("Largest image that is decoded whole", lambda v: f"{v:,} pixels"),
}


def settings_in_words(begun: Beginning) -> list[Setting]:
    """Every setting that can change a result; those that are not the defaults first."""
    found = [Setting("Model", begun.model or "the default model of the package", "--model", bool(begun.model))]
    defaults = SegmentSettings()
    for field in dataclasses.fields(begun.settings):
        if field.name in SPEED_OPTIONS:
            continue
        value, option = getattr(begun.settings, field.name), f"--{field.name.replace('_', '-')}"
        name, say = _WORDS.get(field.name, (field.name.replace("_", " ").capitalize(), str))
        found.append(Setting(name, say(value), option, value != getattr(defaults, field.name)))
    found.append(Setting("Which files", begun.pattern or "all images", "--pattern", begun.pattern is not None))
    place = "as labels into the input" if begun.in_place else "into a store of its own"
    found.append(Setting("Masks were written", place, "--in-place", begun.in_place))
    return sorted(found, key=lambda setting: not setting.changed)


def provenance(run: FinishedRun) -> list[Setting]:
    """What the results come from: version, model, machine, scales, images."""
    begun, folder = run.begun, run.journal.folder
    if begun is None:
        return [Setting("Run folder", f"{folder.name} is gone or of another version; settings and times are not known")]
    of = begun.fingerprint
    found = [
        Setting("Images", begun.root),
        Setting("Masks", str(run.store.name)),
        Setting("nucseg-batch", str(of.get("nucseg-batch", "unknown"))),
        Setting("Model, sha256", str(of.get(MODEL_HASH, "unknown"))),
    ]
    machine = _record(folder / "machine.json")
    if machine:
        found.append(Setting("Computed", ", ".join(f"{name} {value}" for name, value in sorted(machine.items()))))
    scales = _record(folder / "scales.json")
    if scales.get("reason"):
        found.append(Setting("Scales", str(scales["reason"])))
    packages = [f"{name} {of[name]}" for name in ("keras", "zarr") if name in of]
    return [*found, Setting("Packages", ", ".join(packages))] if packages else found


def _record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
