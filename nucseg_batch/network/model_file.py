"""A model on disk: an ordinary .keras file with one more member that says how to use it.

`nucseg.json` inside the archive holds what prediction needs beyond weights (thresholds tuned on validation images) and
what a model card needs (data, settings, versions, scores). Keras ignores the member, so the file opens anywhere.

Loading trusts nothing: the archive is checked before Keras sees it, only known layers are accepted, and the network is
built by our own code, into which nothing but the file's arrays goes, so no code from the file is ever run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np

from nucseg_batch.errors import DeviceError, InputMissingError, ModelError
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import NetworkSpec, build, build_sizer
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
class ModelInfo:
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

    @property
    def network(self) -> NetworkSpec:
        """What the network is built from; UsageError where there is no such network."""
        return NetworkSpec(self.architecture, self.widths, self.task)


@dataclass(frozen=True)
class Model:
    """A trained network with all that is needed to use it."""

    network: keras.Model
    """With normalisation layers, as trained."""
    info: ModelInfo
    """How to use it."""
    sizer: keras.Model | None = None
    """The size network, with normalisation layers, if there is one."""


@backend.own_settings()
def save_model(model: Model, path: Path) -> None:
    """Writes a model under a temporary name and then renames it, so that `path` is never half a file."""
    temporary = path.with_name(f".{path.stem}.partial.keras")
    _joined(model.network, model.sizer).save(temporary)
    record = {"format": FORMAT, **dataclasses.asdict(model.info), "sized": model.sizer is not None}
    with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, json.dumps(record, indent=1, sort_keys=True))
    os.replace(temporary, path)


def _joined(network: keras.Model, sizer: keras.Model | None) -> keras.Model:
    """The networks of a model as one, as they are kept in a file."""
    if sizer is None:
        return network
    return keras.Model([network.input, sizer.input], [network.output, sizer.output], name=network.name)


@backend.own_settings()
def load_model(path: Path) -> Model:
    """Reads a model file.

    Raises InputMissingError where there is no file and ModelError where it is damaged, foreign or not safe.
    """
    if not path.is_file():
        raise InputMissingError(f"--model {path}: there is no such file. Make one with `nucseg-batch train`.")
    info = read_info(path)
    network = build(info.network, normalise=True)
    sizer = build_sizer(normalise=True) if info.sized else None
    whole = _joined(network, sizer)
    try:
        whole.load_weights(path)
    except MemoryError as error:
        raise DeviceError(
            f"--model {path}: there is not enough memory to load it; check `ulimit -v` and free memory."
        ) from error
    except Exception as error:  # Keras raises many classes, and says "File not found" of a damaged file
        raise ModelError(f"--model {path}: its weights cannot be read ({type(error).__name__}).") from error
    if not all(np.isfinite(weight).all() for weight in whole.get_weights()):
        raise ModelError(f"--model {path}: it has weights that are not numbers; its training failed.")
    return Model(network, info, sizer)


def read_info(path: Path) -> ModelInfo:
    """Reads what the file says of itself, after checking that the archive is one that `train` could have written."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member.file_size for member in archive.infolist()}
            if MEMBER not in members:
                raise ModelError(
                    f"--model {path}: it was not made by `nucseg-batch train` (the archive lacks {MEMBER})."
                )
            if set(members) != {"metadata.json", "config.json", "model.weights.h5", MEMBER}:
                raise ModelError(f"--model {path}: it holds members that no model of ours has: {sorted(members)}.")
            if sum(members.values()) > MAX_BYTES:
                raise ModelError(f"--model {path}: it would unpack to {sum(members.values())} bytes.")
            if archive.testzip() is not None:
                raise ModelError(f"--model {path}: it is damaged (checksum of {archive.testzip()}).")
            _check_layers(path, json.loads(archive.read("config.json")))
            record = json.loads(archive.read(MEMBER))
    except ModelError:
        raise
    except Exception as error:  # cut, flipped or foreign files raise many classes
        raise ModelError(f"--model {path}: it is not a readable .keras file ({type(error).__name__}).") from error
    if not isinstance(record, dict) or record.get("format") not in (1, 2, FORMAT):
        raise ModelError(
            f"--model {path}: it was written by another version of nucseg-batch; update, or train it again."
        )
    try:
        info = _info(record)
        _ = info.network  # checks that there is such a network
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"--model {path}: {MEMBER} is not complete ({error}).") from error
    return info


def _info(record: dict[str, Any]) -> ModelInfo:
    """The record of a file, of either format; raises many classes where it is not one."""
    fields = {name: value for name, value in record.items() if name != "format"}
    if record["format"] == 1:
        diameter = fields["card"].get("settings", {}).get("diameter", FORMAT_1_DIAMETER)
        fields = {**fields, "architecture": "default", "task": "instances", "diameter": diameter}
    fields["widths"] = tuple(int(width) for width in fields["widths"])
    fields["diameter"] = float(fields["diameter"])
    if not 1 <= fields["diameter"] < math.inf:
        raise ValueError(f"diameter {fields['diameter']}")
    info = ModelInfo(**fields)
    if info.intensities not in get_args(Intensities) or not isinstance(info.sized, bool):
        raise ValueError(f"intensities {info.intensities!r}, sized {info.sized!r}")
    return info


def _check_layers(path: Path, config: dict[str, Any]) -> None:
    """Refuses a configuration that names anything but plain Keras layers, before Keras acts on it."""
    layers = config["config"]["layers"]
    foreign = {layer["class_name"] for layer in layers} - LAYERS
    foreign |= {layer["module"] for layer in layers} - {"keras.layers"}
    if foreign:
        raise ModelError(f"--model {path}: it contains layers that are not allowed: {', '.join(sorted(foreign))}.")
