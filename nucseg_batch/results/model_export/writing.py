"""Writes a model in one of the formats; nothing appears under the name that was asked for before it was tested."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg_batch.errors import OutputError, UsageError
from nucseg_batch.results.model_export.description import PackageDetails, network_record

if TYPE_CHECKING:
    from nucseg_batch.network.model_file import Model

EXTRA = "models"
"""The extra that installs what exports need."""
OUR_AUTHORS, OUR_LICENSE = ("The nucseg-batch developers",), "BSD-3-Clause"
"""Of the model that ships with the package."""


@dataclass(frozen=True)
class ModelFormat:
    """A format in which a model can be written."""

    write: Callable[[Model, Path, PackageDetails], None]
    """Writes a model to a new file or folder, and raises ModelError where it does not answer as the model does."""
    suffix: str
    """How the name of its file ends; empty for a folder."""
    packages: tuple[str, ...] = ()
    """Modules that it needs besides those of nucseg-batch."""


def _onnx(model: Model, place: Path, details: PackageDetails) -> None:
    from nucseg_batch.network.exported import check_answer, exported_network, onnx_answer, write_onnx
    from nucseg_batch.results.model_export.sample import network_sample

    network = exported_network(model)
    record = {name: json.dumps(value) for name, value in network_record(model.info).items()}
    write_onnx(network, place, record)
    image = network_sample(model.info)
    check_answer(str(place), onnx_answer(place, image), network.answer(image))


def _saved_model(model: Model, place: Path, details: PackageDetails) -> None:
    from nucseg_batch.network.exported import check_answer, exported_network, saved_model_answer, write_saved_model
    from nucseg_batch.results.model_export.sample import network_sample

    network = exported_network(model)
    write_saved_model(network, place)
    (place / "nucseg.json").write_text(json.dumps(network_record(model.info), indent=1) + "\n", encoding="utf-8")
    image = network_sample(model.info)
    check_answer(str(place), saved_model_answer(place, image), network.answer(image))


def _package(model: Model, place: Path, details: PackageDetails) -> None:
    from nucseg_batch.results.model_export.package import write_package

    write_package(model, place, details)


FORMATS: Mapping[str, ModelFormat] = {
    "bioimageio": ModelFormat(_package, ".zip", ("bioimageio.core", "onnx", "onnxruntime", "tf2onnx")),
    "onnx": ModelFormat(_onnx, ".onnx", ("onnx", "onnxruntime", "tf2onnx")),
    "savedmodel": ModelFormat(_saved_model, ""),
}


def missing_packages(name: str) -> list[str]:
    """What the format of a name of FORMATS needs and is not installed."""
    return [package for package in FORMATS[name].packages if not _is_installed(package)]


def check_export(name: str, place: Path, *, overwrite: bool) -> None:
    """Raises UsageError where the name does not fit the format or a library is missing, OutputError where it exists."""
    wanted = FORMATS[name]
    if wanted.suffix and place.suffix != wanted.suffix:
        raise UsageError(f"TO must be a name that ends in {wanted.suffix} for --format {name}, but is {place}.")
    if not wanted.suffix and place.suffix:
        raise UsageError(f"TO must be the name of a folder, without a suffix, for --format {name}, but is {place}.")
    missing = missing_packages(name)
    if missing:
        raise UsageError(
            f"--format {name} needs {', '.join(missing)}, not installed here: pip install 'nucseg-batch[{EXTRA}]'"
        )
    if place.exists() and not overwrite:
        raise OutputError(f"TO {place}: it exists; give another name, or --overwrite to replace it.")
    if place.exists() and place.is_dir() != (not wanted.suffix):
        raise OutputError(f"TO {place}: it is {'a folder' if place.is_dir() else 'a file'}; give another name.")
    if place.is_dir() and any(place.iterdir()) and not (place / "saved_model.pb").is_file():
        raise OutputError(f"TO {place}: it is a folder that holds no SavedModel; give another name.")


def package_details(
    path: Path, default: Path, *, name: str | None, authors: tuple[str, ...], license: str | None, grey: bool
) -> PackageDetails:
    """What a package says of a model file; of the default one, its authors and licence are known.

    default: the file of the model that ships with the package.
    """
    source = path.read_bytes()
    if source == default.read_bytes():
        authors, license = authors or OUR_AUTHORS, license or OUR_LICENSE
    title = re.sub(r"[^A-Za-z0-9_+() -]", "-", f"nucseg-batch {path.stem}") if name is None else name
    return PackageDetails(title, authors, license, grey, source == default.read_bytes(), source)


def export_model(path: Path, place: Path, name: str, details: PackageDetails) -> None:
    """Writes a model file in the format of a name of FORMATS; an earlier export of that name is replaced.

    To be called after `check_export`. Raises ModelError for a model that is damaged, or an export that does not answer
    as the model does, and OutputError where the place cannot be written.
    """
    from nucseg_batch.network.model_file import load_model

    model = load_model(path, argument="MODEL")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".nucseg-", dir=place.parent) as folder:
            made = Path(folder, place.name)
            FORMATS[name].write(model, made, details)
            if place.is_dir():
                shutil.rmtree(place)
            made.replace(place)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"TO {place}: it cannot be written ({error.strerror or error}).") from error


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a package in a namespace that is not there
        return False
