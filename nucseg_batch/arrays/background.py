"""Intensities of nuclei above the background: of the plane, or around each nucleus.

The background of a plane is the median of all pixels outside nuclei, and that of a nucleus the median of its ring. Both
are exact however a plane is cut: values are counted or kept until all parts are there that can hold more of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import channel_pixels, channel_suffix

DROPPED_BITS = 8
"""Bits of a float32 that are rounded away before values are counted: 16 significant ones stay, 2 in 100 000."""
MOST_BINS = 2**22
"""Values are sorted where they differ by more than so many steps."""
_SIGNLESS = 2**31 - 1


@dataclass(frozen=True)
class ValueCounts:
    """How often each value occurs: exact for whole numbers of up to 16 bits, of others rounded (DROPPED_BITS)."""

    keys: NDArray[np.int64]
    """(k,): values or, where `rounded`, what is left of their bits; ascending."""
    counts: NDArray[np.int64]
    """(k,): how often each occurs."""
    rounded: bool = False
    """Whether keys are bits of float32."""

    @classmethod
    def of(cls, values: NDArray[Any]) -> ValueCounts:
        """Counts values (n,) of any real type; NaN is no value."""
        if values.dtype.kind in "bui" and values.dtype.itemsize <= 2:
            return cls(*_counted(values))
        bits = values[~np.isnan(values)].astype(np.float32).view(np.int32).astype(np.int64)
        size = ((bits & _SIGNLESS) + (1 << DROPPED_BITS - 1)) >> DROPPED_BITS
        return cls(*_counted(np.where(bits < 0, -size, size)), rounded=True)

    @classmethod
    def merged(cls, parts: Sequence[ValueCounts]) -> ValueCounts:
        """The counts of at least one part together, all of values of one type."""
        keys, places = np.unique(np.concatenate([part.keys for part in parts]), return_inverse=True)
        counts = np.zeros(keys.size, np.int64)
        np.add.at(counts, places, np.concatenate([part.counts for part in parts]))
        return cls(keys, counts, parts[0].rounded)

    @property
    def median(self) -> float:
        """The median, as `numpy.median` has it; NaN without values."""
        below = np.cumsum(self.counts)
        if not below.size:
            return float("nan")
        middle = [(below[-1] - 1) // 2, below[-1] // 2]
        return float(self._values(self.keys[np.searchsorted(below, middle, side="right")]).mean())

    def _values(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        if not self.rounded:
            return keys.astype(np.float64)
        size = (np.abs(keys) << DROPPED_BITS).astype(np.int32).view(np.float32)
        return np.where(keys < 0, -size, size).astype(np.float64)


class MedianParts:
    """Medians over the pixels of labels that lie in several parts of a plane, which are added one after the other.

    last: (labels + 1,), for each label the number of the last part that can hold pixels of it. Values are kept until
    then, so that memory is that of the labels on the borders of parts.
    """

    def __init__(self, last: NDArray[np.integer]) -> None:
        self._last = last
        self._found: dict[str, NDArray[np.float64]] = {}
        self._ids = np.zeros(0, np.int64)
        self._kept: dict[str, NDArray[Any]] = {}

    def add(self, part: int, labels: NDArray[np.integer], channels: Mapping[str, NDArray[Any]]) -> None:
        """Adds the part of this number: labels and channels by name, (height, width) each."""
        groups = Groups.of(labels)
        ids = np.concatenate([self._ids, groups.spread(groups.ids)])
        ready = self._last[ids] <= part
        (places,) = np.nonzero(ready)
        places = places[np.argsort(ids[places], kind="stable")]
        some, first, count = np.unique(ids[places], return_index=True, return_counts=True)
        for name, plane in channels.items():
            values = channel_pixels(groups, name, plane)
            if name in self._kept:
                values = np.concatenate([self._kept[name], values])
            medians = _medians(values[places], first, count)
            self._found.setdefault(name, np.full(self._last.size, np.nan))[some] = medians
            self._kept[name] = values[~ready]
        self._ids = ids[~ready]

    def medians(self, ids: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
        """The median in each channel, (m,), of labels (m,) all of whose parts were added; NaN without pixels."""
        return {name: found[ids] for name, found in self._found.items()}


def background_columns(
    measures: Mapping[str, NDArray[Any]], background: Mapping[str, NDArray[np.float64]], prefix: str = ""
) -> dict[str, NDArray[np.float64]]:
    """Means and sums of nuclei above the background, in each channel: (n,) each.

    measures: `area` and the `intensity_mean` of each channel, (n,); background: the level for each nucleus, (n,), by
    channel, "" for that of the nuclei. Columns are `<prefix>corrected_intensity_mean-<channel>` and `_sum`. The sum is
    what is known as corrected total cell fluorescence.
    """
    table = {}
    for channel, level in background.items():
        suffix = channel_suffix(channel)
        mean = measures[f"intensity_mean{suffix}"] - level
        table[f"{prefix}corrected_intensity_mean{suffix}"] = mean
        table[f"{prefix}corrected_intensity_sum{suffix}"] = mean * measures["area"]
    return table


def _counted(keys: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values of whole numbers that occur, ascending, and how often; without sorting unless they lie far apart."""
    lowest, highest = (int(keys.min()), int(keys.max())) if keys.size else (0, 0)
    if highest - lowest >= MOST_BINS:
        found, counts = np.unique(keys, return_counts=True)
        return found.astype(np.int64), counts
    counts = np.bincount(keys if lowest == 0 else keys.astype(np.int64) - lowest)
    (found,) = np.nonzero(counts)
    return found + lowest, counts[found]


def _medians(values: NDArray[Any], first: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """The median of each group: `count` values from `first` on."""
    for start, stop in zip(first.tolist(), (first + count).tolist(), strict=True):
        values[start:stop].sort()
    low, high = (values[first + place].astype(np.float64) for place in ((count - 1) // 2, count // 2))
    return low + (high - low) / 2
