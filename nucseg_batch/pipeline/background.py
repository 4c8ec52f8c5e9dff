"""The background of a plane, and of each nucleus where it has a ring, for the columns of `--measure background`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.background import MedianParts, ValueCounts, background_columns
from nucseg_batch.arrays.intensity_columns import channel_suffix
from nucseg_batch.arrays.seams import Rect
from nucseg_batch.columns import BACKGROUND, Column
from nucseg_batch.compartments import RINGS
from nucseg_batch.pipeline.channels import NetworkInput


def wants_background(extra: Iterable[Column]) -> bool:
    """Whether columns of the group were asked for."""
    return any(column.group == BACKGROUND for column in extra)


class PlaneBackground:
    """What is needed of the pixels of a plane, whose parts are added in order.

    last: as for `MedianParts`; None where the plane is one part.
    """

    def __init__(self, nuclei: int, last: NDArray[np.integer] | None = None) -> None:
        self._rings = MedianParts(np.zeros(nuclei + 1, np.int64) if last is None else last)
        self._outside: dict[str, list[ValueCounts]] = defaultdict(list)
        self._parts = 0
        self._has_rings = False

    def add(self, nuclei: NDArray[np.integer], around: Mapping[str, NDArray[np.integer]], shown: NetworkInput) -> None:
        """Adds a part: nuclei and compartments around them, (height, width), with the ids of the whole plane."""
        channels, outside = {"": shown.intensity, **shown.channels}, nuclei == 0
        for name, plane in channels.items():
            counts = self._outside[name]
            counts[:] = [ValueCounts.merged([*counts, ValueCounts.of(plane[outside])])]
        if RINGS in around:
            self._rings.add(self._parts, around[RINGS], channels)
            self._has_rings = True
        self._parts += 1

    def columns(self, measures: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """The columns of nuclei, (n,) each; measures: `label`, `area` and `intensity_mean` of each channel, (n,)."""
        ids = measures["label"]
        levels = {name: np.full(ids.size, counts[0].median) for name, counts in self._outside.items()}
        table = {f"background_intensity_median{channel_suffix(name)}": level for name, level in levels.items()}
        table |= background_columns(measures, levels)
        if self._has_rings:
            medians = self._rings.medians(ids)
            table |= {f"ring_intensity_median{channel_suffix(name)}": level for name, level in medians.items()}
            table |= background_columns(measures, medians, "ring_")
        return table


def last_regions(
    ends: NDArray[np.integer], seen: Sequence[NDArray[np.integer]], cores: Sequence[Rect], reach: int
) -> NDArray[np.int64]:
    """For each nucleus of a plane the number of the last region that its ring can reach: (n + 1,), by id.

    ends: (n + 1, 2), row and column after the last of its pixels in the region that measured it, by id; seen: the ids
    of nuclei in each region, 0 is none; cores: of all regions, row by row on a grid; reach: of rings, in pixels. A
    nucleus that several regions saw may have more pixels than the one that measured it knows, as far as they reach.
    """
    tops, lefts = (np.unique([core[axis].start for core in cores]) for axis in (0, 1))

    def region(row: Any, column: Any) -> Any:
        """The number of the region with this pixel."""
        row, column = (np.searchsorted(a, b, side="right") - 1 for a, b in ((tops, row), (lefts, column)))
        return row * lefts.size + column

    last = np.asarray(region(ends[:, 0] - 1 + reach, ends[:, 1] - 1 + reach), np.int64)
    times = np.bincount(np.concatenate(seen), minlength=len(ends))
    for ids, core in zip(seen, cores, strict=True):
        shared = ids[times[ids] > 1]
        last[shared] = np.maximum(last[shared], region(*(side.stop - 1 + reach for side in core)))
    return last
