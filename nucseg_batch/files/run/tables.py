"""The tables: which columns they have, and how a row becomes text that is the same on every machine.

Integers are written as they are; other numbers with up to seven significant digits, a dot and no locale; nothing for
what does not exist. How cells become a row is in `files.csv_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.measure import COLUMNS
from nucseg_batch.files.csv_rows import csv_row
from nucseg_batch.plan import Plane

PLANE_COLUMNS = ("image", "t", "z")
"""What names a plane; t and z are empty where the image has no such axis."""
INTENSITIES = tuple(name for name in COLUMNS if name.startswith("intensity_"))
"""Columns that are there once more for each separate channel, as `intensity_mean-DAPI`."""
CONFIDENCE = "confidence"
"""Column of how far a nucleus can be trusted, 0 to 1; see `arrays.confidence`. Empty where nobody says."""
MICROMETRES = {
    "area_um2": ("area", 2),
    "equivalent_diameter_area_um": ("equivalent_diameter_area", 1),
    "axis_major_length_um": ("axis_major_length", 1),
    "axis_minor_length_um": ("axis_minor_length", 1),
    "perimeter_um": ("perimeter", 1),
}
"""Columns in micrometres: the column in pixels, and the power of the pixel's width that it is multiplied by."""
SUMMARISED = ("area", "intensity_mean", "confidence")
"""Columns of nuclei that `plane_summary` needs."""
SUMMARY_COLUMNS = (
    "height",
    "width",
    "nuclei",
    "area_fraction",
    "area_mean",
    "area_median",
    "area_std",
    "intensity_mean",
    "intensity_std",
    "intensity_background",
    "confidence",
    "sharpness",
    "saturated_fraction",
    "scale",
    "pixel_size",
)
"""Columns of images.csv that describe a segmented plane. intensity_mean and intensity_std are over the nuclei's own
means, intensity_background is the mean of all pixels outside nuclei, all of the channel that shows the nuclei, as are
sharpness and saturated_fraction, see `arrays.exposure`; confidence is the mean over the nuclei of their own, see
`arrays.confidence`; scale is by how much the image was enlarged for the network; pixel_size is the width of a pixel in
micrometres, where known."""
IMAGES_COLUMNS = ("image", "status", "mask", "index", "t", "z", *SUMMARY_COLUMNS)
"""Columns of images.csv."""
FAILURES_COLUMNS = ("image", "stage", "error", "message")
"""Columns of failures.csv."""


@dataclass(frozen=True)
class NucleiTable:
    """Which columns nuclei.csv has in a run, beyond those that it always has."""

    channels: tuple[str, ...] = ()
    """Separate channels of the images, whose intensities have columns of their own."""
    micrometres: bool = False
    """Whether the width of a pixel is known for any image."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns."""
        more = [f"{name}-{channel}" for channel in self.channels for name in INTENSITIES]
        return (*PLANE_COLUMNS, *COLUMNS, CONFIDENCE, *(MICROMETRES if self.micrometres else ()), *more)

    def rows(self, measures: Mapping[str, NDArray[Any]], pixel_size: float | None) -> list[str]:
        """One text a nucleus: its row after the label, without end of line.

        measures: what `pipeline.measuring.measured_nuclei` returns, with `intensity_mean-<channel>` and so on for the
        separate channels that the image has; pixel_size in micrometres. Cells of what is not known are empty.
        """
        count = int(measures["label"].size)
        columns = [_column(measures[name]) for name in (*COLUMNS, CONFIDENCE) if name != "label"]
        if self.micrometres:
            for source, power in MICROMETRES.values():
                unknown = [""] * count
                columns.append(unknown if pixel_size is None else _column(measures[source] * pixel_size**power))
        for channel in self.channels:
            for name in INTENSITIES:
                values = measures.get(f"{name}-{channel}")
                columns.append([""] * count if values is None else _column(values))
        return [",".join(cells) for cells in zip(*columns, strict=True)]

    def text(self, plane: Plane, measures: Mapping[str, NDArray[Any]], pixel_size: float | None) -> str:
        """Rows of nuclei.csv for one plane."""
        return labelled_rows(plane, measures["label"].tolist(), self.rows(measures, pixel_size))


def labelled_rows(plane: Plane, labels: Iterable[int], rows: Iterable[str]) -> str:
    """Rows of nuclei.csv from the labels of nuclei and what `NucleiTable.rows` gives for them."""
    start = csv_row((plane.image.key, plane.t, plane.z))
    return "".join(f"{start},{label},{row}\n" for label, row in zip(labels, rows, strict=True))


def plane_summary(
    shape: tuple[int, ...],
    nuclei: Mapping[str, NDArray[Any]],
    exposure: Exposure,
    scale: float,
    pixel_size: float | None,
) -> dict[str, int | float | None]:
    """The values of SUMMARY_COLUMNS for one plane; None where there is nothing to average.

    nuclei: at least the columns SUMMARISED of all its nuclei; exposure: of all its pixels.
    """
    areas, means, confidence = (nuclei[name] for name in SUMMARISED)
    size, covered = math.prod(shape), int(areas.sum())
    outside = exposure.total - float((means * areas).sum())
    known = areas.size and not np.isnan(confidence).any()
    return {
        "height": shape[0],
        "width": shape[1],
        "nuclei": int(areas.size),
        "area_fraction": covered / size,
        "area_mean": float(areas.mean()) if areas.size else None,
        "area_median": float(np.median(areas)) if areas.size else None,
        "area_std": float(areas.std()) if areas.size else None,
        "intensity_mean": float(means.mean()) if areas.size else None,
        "intensity_std": float(means.std()) if areas.size else None,
        "intensity_background": outside / (size - covered) if covered < size else None,
        "confidence": float(confidence.mean()) if known else None,
        "sharpness": exposure.sharpness,
        "saturated_fraction": exposure.saturated_fraction,
        "scale": scale,
        "pixel_size": pixel_size,
    }


def _column(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    return [f"{value:.7g}" if value == value else "" for value in values.tolist()]  # NaN is not known
