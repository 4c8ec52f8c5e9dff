"""Planes that someone should look at, and why: rules over one row of images.csv and what is usual in the run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nucseg_batch.results.report.run_statistics import RunStatistics, size_of
from nucseg_batch.results.report.words import figure, percent
from nucseg_batch.results.tables import PlaneRow

ENOUGH = 8
"""Planes without which nothing is called usual."""
FAR = 3.5
"""Robust standard deviations from the median at which a value is unusual."""
DOUBTFUL = 0.8
"""Planes of less confidence are doubtful: on the validation images, their mean AP@.5 is 0.57, that of others 0.82."""
CROWDED = 0.35
"""Area fraction above which a plane can be crowded at all; above the next it always is."""
PACKED = 0.6
SATURATED = 0.01
"""Share of pixels at the highest value from which on intensities cannot be trusted; only of images with bright nuclei,
since in tissue the ground is white."""
BLURRED = 0.5
"""Part of the usual sharpness below which a plane can be out of focus at all."""


@dataclass(frozen=True)
class OutlierKind:
    """A kind of outlier."""

    name: str
    """Short name."""
    title: str
    """What the table calls it."""
    why: str
    """What it means, and what to do."""


KINDS = (
    OutlierKind("unsure", "Low confidence", "The network was not certain. Look at the outlines before you use these."),
    OutlierKind(
        "empty",
        "No nuclei",
        "Nothing was found. Right for an empty field; else the stain, the channel (`--channel`) or the size of "
        "nuclei (`--diameter`) may be wrong.",
    ),
    OutlierKind(
        "blurred", "Out of focus", "Far less sharp than the others of this run: outlines and intensities are vague."
    ),
    OutlierKind(
        "saturated",
        "Saturated",
        "Many pixels share the highest value of the image: intensities are too low there.",
    ),
    OutlierKind("crowded", "Crowded", "Nuclei cover much of the image: touching ones may be joined or cut."),
    OutlierKind(
        "size", "Unusual size of nuclei", "Half or double as large as in the others, or further from them than usual."
    ),
    OutlierKind(
        "border",
        "Cut at the border",
        "Half or more of the nuclei touch the border: their areas and shapes are those of parts.",
    ),
)
"""All kinds, the gravest first."""


@dataclass(frozen=True)
class OutlierLimits:
    """From where on values are unusual in a run; None where that cannot be said."""

    confidence: float | None
    """Planes of less are doubtful."""
    sharpness: float | None
    """Planes of less are out of focus."""
    crowded: float
    """Planes of a larger area fraction are crowded."""
    size: tuple[float, float] | None
    """Smallest and largest usual median area of nuclei, in um2 or pixels."""
    middle: float
    """The median of these areas; NaN without any."""
    micrometres: bool
    """Whether these areas are in um2."""


def limits(survey: RunStatistics) -> OutlierLimits:
    """What is usual, from the values of all planes."""
    of = survey.of_planes
    sharpness, confidence, covered, sizes = (of.get(n) for n in ("sharpness", "confidence", "area_fraction", "size"))
    low_confidence = DOUBTFUL if confidence is not None else None
    low_sharpness = None
    if sharpness is not None and sharpness.count >= ENOUGH:
        low_sharpness = min(sharpness.median - FAR * sharpness.spread(), BLURRED * sharpness.median)
    crowded = PACKED
    if covered is not None and covered.count >= ENOUGH:
        crowded = min(PACKED, max(CROWDED, covered.median + FAR * covered.spread()))
    size, middle = None, sizes.median if sizes is not None else math.nan
    if sizes is not None and sizes.count >= ENOUGH:
        factor = 2 ** max(1.0, FAR * sizes.spread(log=True))
        size = middle / factor, middle * factor
    return OutlierLimits(low_confidence, low_sharpness, crowded, size, middle, survey.micrometres)


def judge(row: PlaneRow, limits: OutlierLimits) -> dict[str, tuple[float, str]]:
    """How far a plane with a mask is from usual, and what was found, by the name of the kind; `border` apart.

    The numbers compare planes of one kind, and are at least 1.
    """
    values, found = row.values, dict[str, tuple[float, str]]()
    confidence, sharpness = values.get("confidence"), values.get("sharpness")
    if confidence is not None and limits.confidence is not None and confidence < limits.confidence:
        found["unsure"] = 2 - confidence, f"confidence {figure(confidence)}"
    if not row.nuclei:
        found["empty"] = 1.0, ""
    if sharpness is not None and limits.sharpness is not None and sharpness < limits.sharpness:
        found["blurred"] = 2 - sharpness / limits.sharpness, f"sharpness {figure(sharpness)}"
    saturated = values.get("saturated_fraction", 0.0)
    bright = values.get("intensity_background", 0.0) < values.get("intensity_mean", math.inf)
    if row.nuclei and saturated >= SATURATED and bright:
        found["saturated"] = 1 + saturated, f"{percent(saturated)} of the pixels"
    covered = values.get("area_fraction", 0.0)
    if covered > limits.crowded:
        found["crowded"] = 1 + covered, f"{percent(covered)} of the image is nuclei"
    if limits.size is not None and row.nuclei:
        size, unit = size_of(row, limits.micrometres), "µm²" if limits.micrometres else "pixels"
        if not limits.size[0] <= size <= limits.size[1]:
            word = "small" if size < limits.middle else "large"
            found["size"] = abs(math.log2(size / limits.middle)), f"{word}: median area {figure(size)} {unit}"
    return found
