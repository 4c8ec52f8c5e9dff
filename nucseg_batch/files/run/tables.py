"""The rows of the tables: their values, and how a row becomes text that is the same on every machine.

Integers are written as they are; other numbers with up to seven significant digits, a dot and no locale; nothing for
what does not exist. How cells become a row is in `files.csv_rows`, which columns there are in `columns`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.columns import MICROMETRES, NUCLEI, NUCLEUS_KEY, Column, channel_columns, names
from nucseg_batch.files.csv_rows import csv_row
from nucseg_batch.plan import Plane

SUMMARISED = ("area", "intensity_mean", "confidence")
"""Columns of nuclei that `plane_summary` needs."""


@dataclass(frozen=True)
class NucleiTable:
    """Which columns nuclei.csv has in a run, beyond those that it always has."""

    channels: tuple[str, ...] = ()
    """Separate channels of the images, whose intensities have columns of their own."""
    micrometres: bool = False
    """Whether the width of a pixel is known for any image."""
    extra: tuple[Column, ...] = ()
    """Columns that were asked for; those of intensities have further ones for the separate channels."""

    @functools.cached_property
    def columns(self) -> tuple[Column, ...]:
        """All columns."""
        found: list[Column] = []
        for columns in (NUCLEI, self.extra):
            sizes = [column for column in MICROMETRES if self.micrometres and column.source in names(columns)]
            found += (*columns, *sizes, *channel_columns(self.channels, columns))
        return tuple(found)

    @functools.cached_property
    def _values(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column not in NUCLEUS_KEY)

    def text(
        self,
        plane: Plane,
        measures: Mapping[str, NDArray[Any]],
        pixel_size: float | None,
        labels: NDArray[np.integer] | None = None,
    ) -> str:
        """Rows of nuclei.csv for one plane, one for each nucleus, with a newline at the end of each.

        measures: what `pipeline.measuring.measured_nuclei` returns, with `intensity_mean-<channel>` and so on for the
        separate channels that the image has, (n,) each; pixel_size in micrometres. labels: (n,), where they are not
        those of the measures. Cells of what is not known are empty.
        """
        from nucseg_batch.arrays.kernels.table_text import EMPTY, LONGEST, REAL, WHOLE, table_text

        start = csv_row((plane.image.key, plane.t, plane.z))
        ids = np.asarray(measures["label"] if labels is None else labels, np.int64)
        columns = [_of(column, measures, pixel_size) for column in self._values]
        kinds = np.zeros(len(columns), np.int64)
        values = np.zeros((len(columns), ids.size))
        for i, column in enumerate(columns):
            kinds[i] = EMPTY if column is None else WHOLE if column.dtype.kind in "iu" else REAL
            values[i] = 0.0 if column is None else column
        first = start.encode()
        room = np.empty(ids.size * (len(first) + 1 + LONGEST * (1 + len(columns))), np.uint8)
        length = table_text(np.frombuffer(first, np.uint8), ids, values, kinds, room)
        if length >= 0:
            return room[:length].tobytes().decode()
        cells = [[""] * ids.size if column is None else column_cells(column) for column in columns]
        return "".join(f"{start},{','.join(row)}\n" for row in zip(map(str, ids.tolist()), *cells, strict=True))


def plane_summary(
    shape: tuple[int, ...],
    nuclei: Mapping[str, NDArray[Any]],
    exposure: Exposure,
    scale: float,
    pixel_size: float | None,
) -> dict[str, int | float | None]:
    """The values of `columns.PLANE_SUMMARY` for one plane; None where there is nothing to average.

    nuclei: at least the columns SUMMARISED of all its nuclei; exposure: of all its pixels.
    """
    areas, means, confidence = (nuclei[name] for name in SUMMARISED)
    size, covered = math.prod(shape), int(np.add.reduce(areas))
    outside = exposure.total - float(np.add.reduce(means * areas))
    area_mean, area_std = _mean_and_std(areas)
    intensity_mean, intensity_std = _mean_and_std(means)
    certain, _ = _mean_and_std(confidence)
    return {
        "height": shape[0],
        "width": shape[1],
        "nuclei": int(areas.size),
        "area_fraction": covered / size,
        "area_mean": area_mean,
        "area_median": _median(areas),
        "area_std": area_std,
        "intensity_mean": intensity_mean,
        "intensity_std": intensity_std,
        "intensity_background": outside / (size - covered) if covered < size else None,
        "confidence": None if certain is None or math.isnan(certain) else certain,
        "sharpness": exposure.sharpness,
        "saturated_fraction": exposure.saturated_fraction,
        "scale": scale,
        "pixel_size": pixel_size,
    }


def _mean_and_std(values: NDArray[Any]) -> tuple[float, float] | tuple[None, None]:
    """As `mean` and `std` of an array, which take several times as long for few values; None without any."""
    if not values.size:
        return None, None
    mean = float(np.add.reduce(values, dtype=np.float64)) / values.size
    apart = values - mean
    return mean, math.sqrt(float(np.add.reduce(apart * apart)) / values.size)


def _median(values: NDArray[Any]) -> float | None:
    if not values.size:
        return None
    ordered = np.sort(values)
    return float((ordered[(values.size - 1) // 2] + ordered[values.size // 2]) / 2)


def _of(column: Column, measures: Mapping[str, NDArray[Any]], pixel_size: float | None) -> NDArray[Any] | None:
    """The values of a column; None where they are not known."""
    values = measures.get(column.source or column.name)
    if values is None or not column.source:
        return values
    return None if pixel_size is None else values * pixel_size**column.power


def column_cells(values: NDArray[Any]) -> list[str]:
    """The cells of a column of numbers."""
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    return [f"{value:.7g}" if value == value else "" for value in values.tolist()]  # NaN is not known
