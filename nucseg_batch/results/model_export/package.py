"""A model as a bioimage.io package: ONNX weights, test tensors, `rdf.yaml`, a README and the model file itself.

Written with `bioimageio.spec` and tested with `bioimageio.core` before it is given its name.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import HIGH_PERCENTILE, LIMIT, LOW_PERCENTILE
from nucseg_batch.errors import ModelError, UsageError
from nucseg_batch.model_record import ModelRecord
from nucseg_batch.network.exported import (
    INPUT,
    OUTPUT,
    ExportedNetwork,
    check_answer,
    exported_network,
    onnx_answer,
    write_onnx,
)
from nucseg_batch.network.model_file import Model
from nucseg_batch.results.citation import Reference, model_references
from nucseg_batch.results.model_export.description import PackageDetails, channels_of, network_record, readme
from nucseg_batch.results.model_export.sample import SIDES, sample_image

COLOURS, GREY = ("red", "green", "blue"), ("grey",)
SMALLEST = 64
"""Height and width of the smallest input that is described, a multiple of every network's stride."""
EPSILON = 1e-6
"""What `scale_range` adds to the range that it divides by."""
MODALITIES = {
    "fluorescence": "fluorescence-light-microscopy",
    "brightfield": "transmission-light-microscopy",
    "histology": "whole-slide-imaging",
}
"""Tags of bioimage.io for the modalities of training images."""


def write_package(model: Model, place: Path, details: PackageDetails) -> None:
    """Writes a package to a new file that ends in `.zip`.

    Raises UsageError for details that bioimage.io does not accept, and ModelError where the package fails its test.
    """
    from bioimageio.spec import save_bioimageio_package_as_folder

    record, network = model.info, exported_network(model)
    cited = [one for one in model_references(_described(record, details)) if identifier(one)]
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, made = Path(name, "parts"), Path(name, "package")
        folder.mkdir()
        opset = write_onnx(network, folder / "model.onnx", {"description": "see rdf.yaml"})
        _write_tensors(folder, record, network, details)
        page = readme(record, details, network.spec.stride, network.spec.halo, cited)
        (folder / "README.md").write_text(page, encoding="utf-8")
        (folder / "model.keras").write_bytes(details.source)
        description = _description(folder, record, network, details, opset, cited)
        save_bioimageio_package_as_folder(description, output_path=made)
        _check(made / "rdf.yaml")
        _zip(made, place)


def identifier(one: Reference) -> str | None:
    """The DOI of a work; arXiv gives one to each of its own."""
    if "doi" in one.fields:
        return one.fields["doi"]
    found = re.fullmatch(r"arXiv:([\d.]+)", one.fields.get("note", ""))
    return f"10.48550/arXiv.{found[1]}" if found else None


def _described(record: ModelRecord, details: PackageDetails) -> dict[str, Any]:
    name = "default" if details.is_default else details.name
    return {"name": name, "architecture": record.architecture, "task": record.task}


def _write_tensors(folder: Path, record: ModelRecord, network: ExportedNetwork, details: PackageDetails) -> None:
    """The test image as it comes from a camera, and what Keras answers after the preprocessing of the description."""
    pixels = sample_image(record, SIDES)
    image = np.repeat(pixels[None, None], 1 if details.grey else 3, axis=1)
    shown = _preprocessed(image)
    expected = network.answer(shown)
    check_answer("model.onnx", onnx_answer(folder / "model.onnx", shown), expected)
    np.save(folder / "test_input.npy", image)
    np.save(folder / "test_output.npy", expected)


def _preprocessed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the `preprocessing` of the description gives."""
    low, high = np.quantile(image, [LOW_PERCENTILE / 100, HIGH_PERCENTILE / 100])
    return np.clip((image - low) / (high - low + EPSILON), 0, LIMIT).astype(np.float32)


def _description(
    folder: Path,
    record: ModelRecord,
    network: ExportedNetwork,
    details: PackageDetails,
    opset: int,
    cited: list[Reference],
) -> Any:
    from bioimageio.spec.model import v0_5
    from pydantic import ValidationError

    # No halo and no concatenable axes: an image is seen as a whole, as it is here. With a halo, planes smaller than
    # twice that of most networks would be refused, and others padded, which changes answers near their edges.
    spatial = v0_5.ParameterizedSize(min=SMALLEST, step=network.spec.stride)
    channels = GREY if details.grey else COLOURS
    percentiles = v0_5.ScaleRangeKwargs(
        axes=[v0_5.AxisId(axis) for axis in ("channel", "y", "x")],
        min_percentile=LOW_PERCENTILE,
        max_percentile=HIGH_PERCENTILE,
        eps=EPSILON,
    )
    given = v0_5.InputTensorDescr(
        id=v0_5.TensorId(INPUT),
        description="Pixels of one plane; grey images have the same values in all channels.",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=list(channels)),
            *(v0_5.SpaceInputAxis(id=v0_5.AxisId(axis), size=spatial) for axis in "yx"),
        ],
        test_tensor=v0_5.FileDescr(source=folder / "test_input.npy"),
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=[
            v0_5.ScaleRangeDescr(kwargs=percentiles),
            v0_5.ClipDescr(kwargs=v0_5.ClipKwargs(min=0.0, max=LIMIT)),
        ],
    )
    answer = v0_5.OutputTensorDescr(
        id=v0_5.TensorId(OUTPUT),
        description="Probability of the foreground; offsets to the centre of the nucleus in pixels.",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=list(channels_of(record))),
            *(
                v0_5.SpaceOutputAxis(
                    id=v0_5.AxisId(axis),
                    size=v0_5.SizeReference(tensor_id=v0_5.TensorId(INPUT), axis_id=v0_5.AxisId(axis)),
                )
                for axis in "yx"
            ),
        ],
        test_tensor=v0_5.FileDescr(source=folder / "test_output.npy"),
    )
    try:
        return v0_5.ModelDescr(
            name=details.name,
            description=_summary(record),
            authors=[v0_5.Author(name=name) for name in details.authors],
            cite=[v0_5.CiteEntry(text=one.line(), doi=v0_5.Doi(identifier(one))) for one in cited],
            license=details.license,
            documentation=v0_5.FileDescr(source=folder / "README.md"),
            attachments=[v0_5.FileDescr(source=folder / "model.keras")],
            tags=_tags(record),
            inputs=[given],
            outputs=[answer],
            weights=v0_5.WeightsDescr(onnx=v0_5.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=opset)),
            config=v0_5.Config(
                bioimageio=v0_5.BioimageioConfig(model_parameter_count=int(network.count_params())),
                nucseg_batch=network_record(record),
            ),
        )
    except ValidationError as error:
        raise _refused(error, details) from error


def _summary(record: ModelRecord) -> str:
    what = "Nuclei" if record.task == "instances" else "Foreground of nuclei"
    return (
        f"{what} in planes of microscope images: a network of nucseg-batch ({record.architecture}) for nuclei about "
        f"{record.diameter:g} pixels wide. The README says how labels are made of its output."
    )


def _tags(record: ModelRecord) -> list[str]:
    images = record.card.get("data", {}).get("training_images", {})
    modalities = [tag for name, tag in MODALITIES.items() if isinstance(images, dict) and name in images]
    task = "instance-segmentation" if record.task == "instances" else "semantic-segmentation"
    return ["nuclei", "nucleus", "2d", "unet", task, *(modalities or ["other"])]


def _refused(error: Any, details: PackageDetails) -> UsageError:
    """What is wrong with the details, for the user."""
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if field == "license":
        return UsageError(f"--license {details.license}: it must be an SPDX name, such as MIT or CC-BY-4.0.")
    given = {"name": f"--name {details.name}", "authors": f"--author {', '.join(details.authors)}"}
    return UsageError(f"{given.get(field, field)}: bioimage.io refuses it ({first['msg']}).")


def _zip(folder: Path, place: Path) -> None:
    """Writes the files of a folder to an archive; the same bytes for the same files."""
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def _check(description: Path) -> None:
    """Runs the test of bioimageio.core on the files of a package; ModelError with the first reason where it fails."""
    from bioimageio.core import test_model

    summary = test_model(description)
    if summary.status != "passed":
        problems = [entry.msg for detail in summary.details for entry in detail.errors]
        reason = " ".join((problems or [summary.status])[0].split())
        raise ModelError(f"the package does not pass the test of bioimageio.core: {reason}")
