"""The range of an image in plain NumPy, as a reference for the compiled rules of `nucseg_batch.arrays.ranges`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.ranges import (
    APART,
    CLEAR,
    CLIPPED,
    DARK_SHARE,
    EDGE,
    FAR,
    FEWEST,
    HIGH_SHARE,
    LIGHT,
    LITTLE,
    LOW_SHARE,
    MIXED,
    MOST_NUCLEI,
    NOISE,
    PADDED,
    RANKS,
    SATURATED,
    TOP,
)


class RankedValues(Protocol):
    """Many values in ascending order."""

    @property
    def size(self) -> int:
        """How many."""
        ...

    def at(self, place: int) -> float:
        """The value at a place, counted from 0."""
        ...

    def at_all(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The values at some places."""
        ...

    def up_to(self, value: float) -> int:
        """How many are not above a value."""
        ...


@dataclass(frozen=True)
class SortedValues:
    """Values that are held."""

    values: NDArray[Any]

    @property
    def size(self) -> int:
        """See `RankedValues`."""
        return self.values.size

    def at(self, place: int) -> float:
        """See `RankedValues`."""
        return float(self.values[place])

    def at_all(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `RankedValues`."""
        return self.values[places].astype(np.float64)

    def up_to(self, value: float) -> int:
        """See `RankedValues`."""
        return int(np.searchsorted(self.values, value, side="right"))


@dataclass(frozen=True)
class NegatedValues:
    """The negative of other values."""

    of: RankedValues

    @property
    def size(self) -> int:
        """See `RankedValues`."""
        return self.of.size

    def at(self, place: int) -> float:
        """See `RankedValues`."""
        return -self.of.at(self.size - 1 - place)

    def at_all(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `RankedValues`."""
        return -self.of.at_all(self.size - 1 - places)

    def up_to(self, value: float) -> int:
        """See `RankedValues`."""
        return self.size - self.of.up_to(np.nextafter(-value, -math.inf))


def limits(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """What `intensity_range` says."""
    first, second = _diagonals(pixels)
    dark = np.minimum(first, second)
    ranked = _sorted(dark)
    if not ranked.size:
        return 0.0, 0.0
    even = dark[:, : dark.shape[1] // 2 * 2]
    left, right = even[:, 0::2], even[:, 1::2]
    steps = _sorted(np.maximum(left, right) - np.minimum(left, right))
    noise = _share(steps, 0.6827) / math.sqrt(2) if steps.size else 0.0
    if pixels.ndim == 3 and _is_bright(ranked):
        high, low = _limits(NegatedValues(_sorted(np.maximum(first, second))), noise, dark_nuclei=True)
        return -low / 2, -high / 2
    low, high = _limits(ranked, noise, dark_nuclei=False)
    return low / 2, high / 2


def _sorted(values: NDArray[Any]) -> SortedValues:
    return SortedValues(np.sort(values[np.isfinite(values)]))


def _diagonals(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of the two diagonals of each 2x2 block, (h // 2, w // 2, ...); of a line of pixels twice each pixel."""
    wide: Any = {np.dtype(np.uint8): np.uint16, np.dtype(np.uint16): np.uint32}.get(pixels.dtype, np.float32)
    height, width = (length // 2 * 2 for length in pixels.shape[:2])
    if not height or not width:
        line = pixels.reshape(1, -1).astype(wide)
        return line + line, line + line
    even = pixels[:height, :width]
    parts = [even[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return np.add(parts[0], parts[3], dtype=wide), np.add(parts[1], parts[2], dtype=wide)


def _share(values: RankedValues, share: float, start: int = 0) -> float:
    """The smallest of the values from a place on that at least this share of them does not exceed."""
    count = values.size - start
    return values.at(start + min(max(math.ceil(count * share) - 1, 0), count - 1))


def _is_bright(values: RankedValues) -> bool:
    """Whether most values are nearer to the highest than to the lowest, but for FEWEST of either."""
    few = min(FEWEST, values.size - 1)
    low, middle, high = values.at(few), values.at(values.size // 2), values.at(values.size - 1 - few)
    return high - middle < middle - low


def _limits(values: RankedValues, noise: float, *, dark_nuclei: bool) -> tuple[float, float]:
    """Where the range begins and ends, of values whose nuclei are above the background."""
    start = _first_real(values, noise)
    low, high = _share(values, LOW_SHARE, start), _share(values, HIGH_SHARE, start)
    ground, deviation = _background(values, start)
    clear = values.up_to(ground + CLEAR * deviation)
    if values.size - clear >= FEWEST:
        if not dark_nuclei:
            edge = EDGE * _lit(values, clear, ground)
            high = ground + TOP * (_share(values, 0.5, values.up_to(ground + edge)) - ground)
        elif high <= ground + CLEAR * deviation:
            high = _share(values, DARK_SHARE, clear)
    high = max(high, low + NOISE * noise)
    return low, high if high > low else values.at(values.size - 1)


def _lit(values: RankedValues, start: int, ground: float) -> float:
    """How far above `ground` values from a place on are where, in ascending order, LIGHT of their sum is reached.

    Their median where that is saturated debris.
    """
    places = start + (np.arange(RANKS) + 0.5) / RANKS * (values.size - start)
    heights = values.at_all(places.astype(np.int64)) - ground
    light = np.cumsum(heights)
    level, middle = float(heights[np.searchsorted(light, LIGHT * light[-1])]), float(heights[RANKS // 2])
    return middle if level > max(FAR * middle, SATURATED * heights[-1]) else level


def _background(values: RankedValues, start: int) -> tuple[float, float]:
    """Middle of the background and its standard deviation, from the values from a place on."""
    end = values.size
    while True:
        count = end - start
        ground = values.at(start + count // 2)
        deviation = ground - values.at(start + int(0.1587 * count))
        kept = values.up_to(ground + CLIPPED * deviation)
        if kept >= end or kept - start < (1 - MOST_NUCLEI) * (values.size - start):
            return ground, deviation
        end = kept


def _first_real(values: RankedValues, noise: float) -> int:
    """The place of the first value that is no padding: 0 unless the lowest value is padding.

    That is so where many pixels have it and all others have a background of their own, well above it. Blocks of which
    a part is padding are left out, too.
    """
    start = values.up_to(values.at(0))
    if not PADDED[0] < start / values.size < PADDED[1]:
        return 0
    ground, deviation = _background(values, start)
    lowest, margin = values.at(0), 2 * APART * max(deviation, noise)
    if ground - lowest <= margin or ground - lowest <= LITTLE * (_share(values, HIGH_SHARE, start) - lowest):
        return 0
    first = values.up_to(ground - margin)
    return first if first - start <= MIXED * start else 0
