"""The tables: which columns they have, and how a row becomes text that is the same on every machine.

Integers are written as they are; other numbers with up to seven significant digits, a dot and no locale; nothing for
what does not exist. Rows end with a bare newline. Text is UTF-8; bytes of a file name that are not UTF-8 stand as %XX.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.measure import COLUMNS
from nucseg_batch.files.names import printable

PLANE_COLUMNS = ("image", "t", "z")
"""What names a plane; t and z are empty where the image has no such axis."""
NUCLEI_COLUMNS = (*PLANE_COLUMNS, *COLUMNS)
"""Columns of nuclei.csv."""
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
    "scale",
)
"""Columns of images.csv that describe a segmented plane. intensity_mean and intensity_std are over the nuclei's own
means, intensity_background is the mean of all pixels outside nuclei; scale is by how much the image was enlarged for
the network."""
IMAGES_COLUMNS = ("image", "status", "mask", "index", "t", "z", *SUMMARY_COLUMNS)
"""Columns of images.csv."""
FAILURES_COLUMNS = ("image", "stage", "error", "message")
"""Columns of failures.csv."""


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def nuclei_text(image: str, measures: Mapping[str, NDArray[Any]]) -> str:
    """Rows of nuclei.csv for one plane, from what `arrays.measure.measure` returns."""
    columns = [_column(measures[name]) for name in COLUMNS]
    plane = csv_text([(image, "", "")]).rstrip("\n")
    return "".join(f"{plane},{','.join(cells)}\n" for cells in zip(*columns, strict=True))


def summary(
    labels: NDArray[np.integer], intensity: NDArray[Any], measures: Mapping[str, NDArray[Any]], scale: float
) -> dict[str, int | float | None]:
    """The values of SUMMARY_COLUMNS for one plane; None where there is nothing to average."""
    area, means = measures["area"], measures["intensity_mean"]
    covered = int(area.sum())
    background = labels.size - covered
    total = float(intensity.sum(dtype=np.float64))
    inside = float((means * area).sum())
    return {
        "height": labels.shape[0],
        "width": labels.shape[1],
        "nuclei": int(area.size),
        "area_fraction": covered / labels.size,
        "area_mean": float(area.mean()) if area.size else None,
        "area_median": float(np.median(area)) if area.size else None,
        "area_std": float(area.std()) if area.size else None,
        "intensity_mean": float(means.mean()) if area.size else None,
        "intensity_std": float(means.std()) if area.size else None,
        "intensity_background": (total - inside) / background if background else None,
        "scale": scale,
    }


def _column(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    return [f"{value:.7g}" for value in values.tolist()]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, str):
        return printable(value)
    return "" if value is None else value
