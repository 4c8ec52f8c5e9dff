"""A model on disk: an ordinary .keras file with one more member that says how to use it.

`nucseg.json` inside the archive holds what prediction needs beyond weights (thresholds tuned on validation images) and
what a model card needs (data, settings, versions, scores). Keras ignores the member, so the file opens anywhere.

Loading trusts nothing: the archive is checked before Keras sees it (`model_record`), only known layers are accepted,
and the network is built by our own code, into which nothing but the file's arrays goes, so no code from the file is
ever run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from nucseg_batch.errors import DeviceError, InputMissingError, ModelError
from nucseg_batch.model_record import FORMAT, LAYERS, MEMBER, ModelRecord, read_record
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import NetworkSpec, build, build_sizer

__all__ = ["LAYERS", "MEMBER", "Model", "ModelInfo", "load_model", "save_model"]


@dataclass(frozen=True)
class ModelInfo(ModelRecord):
    """What a model file says beyond its weights, and the network that this is about."""

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
def load_model(path: Path, *, argument: str = "--model") -> Model:
    """Reads a model file.

    argument: as for `read_record`. Raises InputMissingError where there is no file and ModelError where it is damaged,
    foreign or not safe.
    """
    where = f"{argument} {path}".lstrip()
    if not path.is_file():
        raise InputMissingError(f"{where}: there is no such file. Make one with `nucseg-batch train`.")
    info = ModelInfo(**vars(read_record(path, argument=argument)))
    try:
        spec = info.network  # checks that there is such a network
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ModelError(f"{where}: {MEMBER} is not complete ({error}).") from error
    network = build(spec, normalise=True)
    sizer = build_sizer(normalise=True) if info.sized else None
    whole = _joined(network, sizer)
    try:
        whole.load_weights(path)
    except MemoryError as error:
        raise DeviceError(
            f"{where}: there is not enough memory to load it; check `ulimit -v` and free memory."
        ) from error
    except Exception as error:  # Keras raises many classes, and says "File not found" of a damaged file
        raise ModelError(f"{where}: its weights cannot be read ({type(error).__name__}).") from error
    if not all(np.isfinite(weight).all() for weight in whole.get_weights()):
        raise ModelError(f"{where}: it has weights that are not numbers; its training failed.")
    return Model(network, info, sizer)
