"""What an export says of its model: numbers for programs, and a README for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nucseg_batch import __version__
from nucseg_batch.arrays import votes
from nucseg_batch.arrays.normalize import HIGH_PERCENTILE, LIMIT, LOW_PERCENTILE
from nucseg_batch.model_record import ModelRecord
from nucseg_batch.results.citation import Reference

CHANNELS = ("foreground", "offset_y", "offset_x")
"""Names of the channels of an answer, in the order of `arrays.outputs.Output`."""


@dataclass(frozen=True)
class PackageDetails:
    """What a package says besides what is in the model file."""

    name: str
    """Title, of letters, digits, spaces and _ + - ( )."""
    authors: tuple[str, ...] = ()
    """Names of those who made the model."""
    license: str | None = None
    """Licence of the weights, by its SPDX name."""
    grey: bool = False
    """Whether the input is described as one channel, not as red, green and blue."""
    is_default: bool = False
    """Whether it is the model that ships with the package."""
    source: bytes = b""
    """The model file, which the package contains."""


def channels_of(record: ModelRecord) -> tuple[str, ...]:
    """Names of the channels that the network of a model answers."""
    return CHANNELS if record.task == "instances" else CHANNELS[:1]


def network_record(record: ModelRecord) -> dict[str, Any]:
    """How to use an exported network: what programs need, by the names of the model file."""
    names = ("architecture", "task", "diameter", "threshold", "min_area", "intensities")
    values = {name: getattr(record, name) for name in names}
    return {"nucseg_batch": __version__, "channels": list(channels_of(record)), **values}


def readme(record: ModelRecord, details: PackageDetails, stride: int, halo: int, cited: list[Reference]) -> str:
    """The page of a package, Markdown. stride, halo: of the network, in pixels."""
    parts = [
        f"# {details.name}",
        *_introduction(record),
        "## Input and output",
        *_tensors(record, details, stride, halo),
        "## Before the network",
        *_before(record),
        "## After the network",
        *_after(record),
        "## The labels of nucseg-batch",
        *_example(),
        "## Validation",
        *_validation(record),
        "## Training",
        *_training(record),
        "## Licence and citation",
        f"Licence of the weights: {details.license or 'not stated'}.",
        "\n".join(f"- {one.line()}" for one in cited),
    ]
    return "\n\n".join(parts) + "\n"


def _introduction(record: ModelRecord) -> Iterator[str]:
    what = "nuclei, separated by offsets to their centres" if record.task == "instances" else "the foreground"
    yield _paragraph(
        f"The network of a nucseg-batch model ({record.architecture}) for planes of microscope images: {what}. "
        f"Written by nucseg-batch {__version__}, without the size network that estimates how wide nuclei are."
    )


def _tensors(record: ModelRecord, details: PackageDetails, stride: int, halo: int) -> Iterator[str]:
    given = "one grey channel" if details.grey else "red, green, blue; of a grey image, three times the same"
    yield (
        f"- Input `image`, float32 (batch, channel, y, x): {given}. Height and width are multiples of {stride} pixels. "
        "The graph itself takes 1 or 3 channels, whatever `rdf.yaml` describes.\n"
        "- Output `nuclei`, float32 (batch, channel, y, x) with the same sides: "
        + "; ".join(f"`{name}`, {_MEANING[name]}" for name in channels_of(record))
        + ".\n"
        f"- Images are seen as a whole. Pixels up to {halo} pixels away can change the answer for a pixel, so tiles of "
        "a large image must overlap by as much."
    )


_MEANING = {
    "foreground": "the probability, 0 to 1, that the pixel is nucleus",
    "offset_y": "pixels along y from the pixel to the centre of its nucleus",
    "offset_x": "pixels along x",
}


def _before(record: ModelRecord) -> Iterator[str]:
    from nucseg_batch.arrays.kernels import ranges

    rule = (
        f"the values that {LOW_PERCENTILE:g} % and {HIGH_PERCENTILE:g} % of all pixels and channels do not exceed"
        if record.intensities == "percentiles"
        else "measured on nuclei and their background: means of the darker diagonal of each 2x2 block are sorted; 0 is "
        f"the value that {100 * ranges.LOW_SHARE:g} % do not exceed, and 1 is {ranges.TOP:g} times as far above the "
        "background (the median after values more than "
        f"{ranges.CLIPPED:g} standard deviations above it were removed repeatedly) as a typical nucleus. The rule for "
        "padding, crowds, debris and dark nuclei is the function `intensity_range` of `nucseg_batch.arrays.ranges`"
    )
    yield (
        f"1. Range of intensities, one for all channels of an image: {rule}. Pixels become "
        f"(pixel - low) / (high - low), cut to 0..{LIMIT:g}.\n"
        f"2. Scale: the image is resampled so that its nuclei are {record.diameter:g} pixels wide, with a triangular "
        "filter as wide as the coarser of the two grids.\n"
        "3. Padding: the image is mirrored beyond its lower and right edge, edge pixels included."
    )
    yield _paragraph(
        f"The `preprocessing` in `rdf.yaml` is simpler: percentiles {LOW_PERCENTILE:g} and {HIGH_PERCENTILE:g}, cut to "
        f"0..{LIMIT:g}, no rescaling."
        + (" For this model that is step 1 but for interpolation." if record.intensities == "percentiles" else "")
        + " Programs that apply it give good answers only for images whose nuclei are about "
        f"{record.diameter:g} pixels wide, so rescale others first."
    )


def _after(record: ModelRecord) -> Iterator[str]:
    if record.task != "instances":
        yield f"Foreground is where the probability is above {record.threshold:g}."
        return
    reach = votes.WINDOW_RADIUS
    yield (
        f"1. Foreground is where the probability is above {record.threshold:g}.\n"
        "2. Each foreground pixel votes for the pixel at its own place plus the rounded offsets, with its probability "
        f"in {votes.VOTE}ths, rounded.\n"
        f"3. Votes are summed over boxes of {votes.BLUR} x {votes.BLUR} pixels, twice.\n"
        f"4. Each pixel is linked to the one with most votes at most {reach} pixels away along each axis. Links are "
        f"followed up to {2**votes.JUMPS} times, to a root.\n"
        "5. A nucleus is all foreground pixels whose votes end at one root. Roots with fewer than "
        f"{votes.MIN_ROOT_VOTES} x {votes.VOTE} x {votes.BLUR**2} votes, and nuclei of fewer than {record.min_area} "
        "pixels, become background.\n"
        "6. On the image's own grid a pixel is nucleus where the interpolated probability is above the threshold; it "
        "has the label of the nearest pixel of the answer, or of the nucleus beside that."
    )


EXAMPLE = """import nucseg_batch
import onnxruntime
from skimage.io import imread

image = imread("image.png")  # (height, width) or (height, width, 3)
session = onnxruntime.InferenceSession("model.onnx")
prepared = nucseg_batch.prepare_image(image, diameter=20, model="model.keras")  # width of its nuclei in pixels
(output,) = session.run(["nuclei"], {"image": prepared.pixels})
labels = prepared.labels(output)  # (height, width): 0 is background, 1..n are nuclei
"""


def _example() -> Iterator[str]:
    yield _paragraph(
        "This needs `pip install nucseg-batch onnxruntime` and gives the labels of `nucseg-batch segment --diameter 20 "
        "--precision float32`, but for rounding in the network. `model.onnx` and `model.keras` are in the package."
    )
    yield f"```python\n{EXAMPLE}```"


def _validation(record: ModelRecord) -> Iterator[str]:
    scores = record.card.get("validation")
    if isinstance(scores, dict):
        yield "Average precision on the validation images of the training, at the annotated width of nuclei:"
        yield f"```json\n{json.dumps(scores, indent=1)}\n```"
    yield _paragraph(
        "To validate on your own images: annotate some that were not used in training, segment them, and compare with "
        "`nucseg-batch evaluate`, or with the average precision at IoU 0.5 of any other program."
    )


def _training(record: ModelRecord) -> Iterator[str]:
    card = {name: value for name, value in record.card.items() if name != "validation"}
    yield f"```json\n{json.dumps(card, indent=1)}\n```" if card else "The model file has no record of its training."


def _paragraph(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False))
