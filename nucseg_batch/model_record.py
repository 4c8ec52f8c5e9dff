"""What a model file says of itself, read without Keras: how to use the network, and the card for people.

The archive is checked here before anything else sees it: its members, their sizes and checksums, and the layers that
its configuration names.
"""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from nucseg_batch.errors import ModelError
from nucseg_batch.settings import Architecture, Intensities, Task

MEMBER = "nucseg.json"
FORMAT = 3
"""Version of the layout of MEMBER. Format 1 knew only the default architecture, for instances; format 2 knew neither
`intensities` nor a size network."""
FORMAT_1_DIAMETER = 22.0
"""Width in pixels of the nuclei that models of format 1 were trained on, where their card does not say."""
MAX_BYTES = 2 * 2**30
"""Unpacked size above which a model file is refused."""


LAYERS = frozenset(
    {
        "Activation",
        "Add",
        "BatchNormalization",
        "Concatenate",
        "Conv2D",
        "Conv2DTranspose",
        "DepthwiseConv2D",
        "GlobalAveragePooling2D",
        "InputLayer",
        "MaxPooling2D",
        "Multiply",
        "ReLU",
        "Rescaling",
        "ZeroPadding2D",
    }
)
"""Layers of `keras.layers` that networks of ours are made of."""


@dataclass(frozen=True)
class ModelRecord:
    """What a model file says beyond its weights."""

    architecture: Architecture
    """Which network it is."""
    widths: tuple[int, ...]
    """Feature channels at each depth of the network."""
    task: Task = "instances"
    """What it answers: nuclei one by one, or only the foreground."""
    diameter: float = 26.0
    """Width in pixels to which nuclei are brought before the network sees them."""
    threshold: float = 0.5
    """Foreground probability above which a pixel belongs to a nucleus, tuned on validation images."""
    min_area: int = 12
    """Smallest nucleus in pixels."""
    intensities: Intensities = "percentiles"
    """By which rule the range of an image's values is measured, see `arrays.ranges`."""
    sized: bool = False
    """Whether the file holds a size network, too."""
    card: dict[str, Any] = field(default_factory=dict)
    """Data, settings, versions and scores, for people."""


def read_record(path: Path, *, argument: str = "--model") -> ModelRecord:
    """Reads what the file says of itself, after checking that the archive is one that `train` could have written.

    argument: the option or argument that named the file, for errors; it may be empty. Whether there is such a network
    is only known when it is built, see `network.model_file`. Raises ModelError where the file is damaged, foreign or
    not safe.
    """
    where = f"{argument} {path}".lstrip()
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member.file_size for member in archive.infolist()}
            if MEMBER not in members:
                raise ModelError(f"{where}: it was not made by `nucseg-batch train` (the archive lacks {MEMBER}).")
            if set(members) != {"metadata.json", "config.json", "model.weights.h5", MEMBER}:
                raise ModelError(f"{where}: it holds members that no model of ours has: {sorted(members)}.")
            if sum(members.values()) > MAX_BYTES:
                raise ModelError(f"{where}: it would unpack to {sum(members.values())} bytes.")
            if archive.testzip() is not None:
                raise ModelError(f"{where}: it is damaged (checksum of {archive.testzip()}).")
            _check_layers(where, json.loads(archive.read("config.json")))
            record = json.loads(archive.read(MEMBER))
    except ModelError:
        raise
    except Exception as error:  # cut, flipped or foreign files raise many classes
        raise ModelError(f"{where}: it is not a readable .keras file ({type(error).__name__}).") from error
    if not isinstance(record, dict) or record.get("format") not in (1, 2, FORMAT):
        raise ModelError(f"{where}: it was written by another version of nucseg-batch; update, or train it again.")
    try:
        return _info(record)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: {MEMBER} is not complete ({error}).") from error


def _info(record: dict[str, Any]) -> ModelRecord:
    """The record of a file, of either format; raises many classes where it is not one."""
    fields = {name: value for name, value in record.items() if name != "format"}
    if record["format"] == 1:
        diameter = fields["card"].get("settings", {}).get("diameter", FORMAT_1_DIAMETER)
        fields = {**fields, "architecture": "default", "task": "instances", "diameter": diameter}
    fields["widths"] = tuple(int(width) for width in fields["widths"])
    fields["diameter"] = float(fields["diameter"])
    if not 1 <= fields["diameter"] < math.inf:
        raise ValueError(f"diameter {fields['diameter']}")
    info = ModelRecord(**fields)
    if info.intensities not in get_args(Intensities) or not isinstance(info.sized, bool):
        raise ValueError(f"intensities {info.intensities!r}, sized {info.sized!r}")
    return info


def _check_layers(where: str, config: dict[str, Any]) -> None:
    """Refuses a configuration that names anything but plain Keras layers, before Keras acts on it."""
    layers = config["config"]["layers"]
    foreign = {layer["class_name"] for layer in layers} - LAYERS
    foreign |= {layer["module"] for layer in layers} - {"keras.layers"}
    if foreign:
        raise ModelError(f"{where}: it contains layers that are not allowed: {', '.join(sorted(foreign))}.")
