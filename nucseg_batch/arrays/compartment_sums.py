"""Rings and cells measured by what adds up from parts, because those of large planes reach across regions.

Whole planes use the same sums, so that both give the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import channel_pixels, channel_suffix, intensity_ratios


@dataclass(frozen=True)
class CompartmentSums:
    """Sums over the pixels of one compartment of each nucleus in a plane, or in a part of it."""

    ids: NDArray[np.int64]
    """(n,): labels of nuclei, ascending; those that do not occur have no pixels."""
    area: NDArray[np.int64]
    """(n,): pixels."""
    channels: tuple[str, ...]
    """Names of the channels, "" for that of the nuclei."""
    total: NDArray[np.float64]
    """(channels, n): sum of the values."""
    squares: NDArray[np.float64]
    """(channels, n): sum of the squared differences from the mean of these pixels."""
    lowest: NDArray[np.float64]
    """(channels, n): lowest value; infinite without pixels."""
    highest: NDArray[np.float64]
    """(channels, n): highest value; minus infinite without pixels."""

    @classmethod
    def of(
        cls,
        compartment: NDArray[np.integer],
        channels: Mapping[str, NDArray[Any]],
        ids: NDArray[np.integer] | None = None,
    ) -> CompartmentSums:
        """The sums of a compartment in a window.

        compartment: (height, width), labels of nuclei, 0 and below are background, see `arrays.compartments`; channels:
        planes (height, width) of any real type by name, "" for the channel of the nuclei; ids: (n,), ascending, labels
        that are asked for, by default all that occur. Raises ValueError where planes differ in shape.
        """
        groups = Groups.of(compartment, ids)
        rows = [_sums(groups, name, plane) for name, plane in channels.items()]
        sums = np.array(rows, np.float64).reshape(len(rows), 4, groups.ids.size)
        return cls(groups.ids, groups.count, tuple(channels), *sums.swapaxes(0, 1))

    @classmethod
    def merged(cls, parts: Sequence[CompartmentSums]) -> CompartmentSums:
        """The sums over parts without common pixels, at least one, for all nuclei of any; parts have the same channels.

        Squares are merged as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
        Sample Variances" (1979). Raises ValueError where channels differ.
        """
        channels, ids = parts[0].channels, np.unique(np.concatenate([part.ids for part in parts]))
        area, shape = np.zeros(ids.size, np.int64), (len(channels), ids.size)
        total, squares = np.zeros((2, *shape))
        lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
        for part in parts:
            if part.channels != channels:
                raise ValueError(f"parts have the channels {channels} and {part.channels}.")
            (some,) = np.nonzero(part.area)
            at = np.searchsorted(ids, part.ids[some])
            mine, theirs = area[at], part.area[some]
            with np.errstate(invalid="ignore"):  # of infinite values
                apart = part.total[:, some] / theirs - total[:, at] / np.maximum(mine, 1)
                squares[:, at] += part.squares[:, some] + apart * apart * (mine * (theirs / (mine + theirs)))
                total[:, at] += part.total[:, some]
            lowest[:, at] = np.minimum(lowest[:, at], part.lowest[:, some])
            highest[:, at] = np.maximum(highest[:, at], part.highest[:, some])
            area[at] += theirs
        return cls(ids, area, channels, total, squares, lowest, highest)

    def columns(self, ids: NDArray[np.integer], prefix: str) -> dict[str, NDArray[Any]]:
        """Columns as `columns.compartment_columns` defines them, but for ratios: (m,) each, for these labels.

        ids: (m,), in any order. prefix: `ring` or `cell`. A nucleus without pixels has the area and the sum 0 and is
        NaN else.
        """
        (some,) = np.nonzero(np.isin(ids, self.ids[self.area > 0]))
        place = np.searchsorted(self.ids, ids[some])
        count = self.area[place]
        table: dict[str, NDArray[Any]] = {f"{prefix}_area": np.zeros(len(ids), np.int64)}
        table[f"{prefix}_area"][some] = count
        for number, channel in enumerate(self.channels):
            total = self.total[number, place]
            values = {
                "mean": total / count,
                "std": np.sqrt(self.squares[number, place] / count),
                "min": self.lowest[number, place],
                "max": self.highest[number, place],
                "sum": total,
            }
            for name, found in values.items():
                column = np.full(len(ids), 0.0 if name == "sum" else np.nan)
                column[some] = found
                table[f"{prefix}_intensity_{name}{channel_suffix(channel)}"] = column
        return table


def measured_compartments(
    measures: Mapping[str, NDArray[Any]], sums: Mapping[str, CompartmentSums]
) -> dict[str, NDArray[Any]]:
    """All columns of `columns.compartment_columns`, in the order of the nuclei in `measures`.

    measures: `label` and, with rings, the `intensity_mean` of nuclei in each channel, (n,) each. sums: of a whole
    plane, by `ring` and `cell`; `label` counts as they do.
    """
    table: dict[str, NDArray[Any]] = {}
    for name, one in sums.items():
        table |= one.columns(measures["label"], name)
    if "ring" in sums:
        means = [f"intensity_mean{channel_suffix(channel)}" for channel in sums["ring"].channels]
        table |= intensity_ratios({name: measures[name] for name in means}, table, "ring_")
    return table


def _sums(groups: Groups, channel: str, plane: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Sum, squares, lowest and highest value of each group in one channel."""
    values = channel_pixels(groups, channel, plane).astype(np.float64)
    total = groups.reduce(np.add, values)
    lowest, highest = groups.reduce(np.minimum, values, np.inf), groups.reduce(np.maximum, values, -np.inf)
    with np.errstate(invalid="ignore"):  # of infinite values
        values -= groups.spread(total / np.maximum(groups.count, 1))
    return total, groups.reduce(np.add, values * values), lowest, highest
