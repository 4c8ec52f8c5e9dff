"""Which values of an image become 0 and 1, whatever its exposure, how much of it is empty, and what disturbs it.

Percentiles of all pixels would make a nucleus dim in a crowd and far brighter alone in a large field. So the range is
measured on the nuclei themselves: it begins where the background does, and ends TOP times as far above it as a typical
nucleus. What is clearly brighter than the background may be haze for the most part, so pixels count there by the light
that they add. Where nothing is clearly brighter, as in a crowd without gaps, percentiles decide.

Two things do not count. Bright pixels that stand alone are detector faults: of each 2x2 block the darker diagonal is
taken. Pixels of one value below the background are padding, as mosaics and rotated images have it. Noise is never
stretched over more than a small share of the range.

Colour images with a bright background, as of stained tissue, are treated upside down. Their dark end is a percentile,
unless nuclei are so rare that the percentile is still noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.settings import Intensities

LOW_SHARE, HIGH_SHARE = 0.01, 0.998
"""Shares of the values, in ascending order, at which the range begins and, failing nuclei, ends."""
CLEAR = 5.0
"""Values this many standard deviations above the background are not noise."""
CLIPPED = 3.0
"""Values this many standard deviations above the background are removed repeatedly; what remains is background."""
MOST_NUCLEI = 0.8
"""More than this is never taken away."""
FEWEST = 10
"""Fewer 2x2 blocks than this are dust."""
LIGHT = 0.35
"""Of all light above the background, haze adds less than this share, and debris less than the rest."""
FAR = 40.0
"""Where LIGHT is reached this many times as far above the background as half of what is clear, that is debris."""
SATURATED = 0.9
"""And where it is at least this part of the highest value: such debris is as bright as the camera can tell."""
RANKS = 256
"""From so many ranks of what is clear its light is summed."""
EDGE = 0.4
"""Nuclei are, at their edges, this share as far above the background as where LIGHT is reached."""
TOP = 2.0
"""Where the range ends, in heights of a typical nucleus above the background."""
DARK_SHARE = 0.9
"""Of dark nuclei on a bright background, if they are rare, so many are inside the range."""
NOISE = 12.0
"""The smallest range, in standard deviations of the noise."""
PADDED = (0.005, 0.8)
"""Shares of the pixels, least and most, that may be padding."""
APART = 4.0
"""Padding is lower than the background by more than twice so many of its standard deviations."""
LITTLE = 0.02
"""And by more than this share of the range, for else it does not matter."""
MIXED = 0.2
"""Blocks between padding and background are few, in parts of the padding; elsewhere the lowest value is background."""


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
class Histogram:
    """Whole values from 0 on, of which it is known how often each occurs."""

    below: NDArray[np.int64]
    """(values,): how many are not above each."""

    @property
    def size(self) -> int:
        """See `RankedValues`."""
        return int(self.below[-1])

    def at(self, place: int) -> float:
        """See `RankedValues`."""
        return float(np.searchsorted(self.below, place, side="right"))

    def at_all(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `RankedValues`."""
        return np.searchsorted(self.below, places, side="right").astype(np.float64)

    def up_to(self, value: float) -> int:
        """See `RankedValues`."""
        return int(self.below[min(math.floor(value), self.below.size - 1)]) if value >= 0 else 0


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


@dataclass
class ValueTally:
    """The values of an image, or of a part of it, added piece by piece; pieces begin at even rows and columns.

    counted: whether values of 16 bits, too, are counted instead of held, so that memory does not grow with them.
    step: of other values every so many-th is held.
    """

    counted: bool = False
    step: int = 1
    pixels: int = 0
    """Pixels that were added."""
    _kinds: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    _colour: bool = False

    def add(self, pixels: NDArray[np.generic]) -> None:
        """Adds all of (h, w) or (h, w, 3); what is not finite is left out."""
        if not pixels.size:
            return
        self._colour |= pixels.ndim == 3
        self.pixels += math.prod(pixels.shape[:2])
        first, second = _diagonals(pixels)
        dark = np.minimum(first, second)
        self._keep("dark", dark)
        if self._colour:
            self._keep("bright", np.maximum(first, second))
        even = dark[:, : dark.shape[1] // 2 * 2]
        left, right = even[:, 0::2], even[:, 1::2]
        self._keep("steps", np.maximum(left, right) - np.minimum(left, right))

    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1; equal where all values are. (0, 0) where nothing was added."""
        dark = self._ranked("dark")
        if not dark.size:
            return 0.0, 0.0
        steps = self._ranked("steps")
        noise = _share(steps, 0.6827) / math.sqrt(2) if steps.size else 0.0
        if self._colour and _is_bright(dark):
            high, low = _limits(NegatedValues(self._ranked("bright")), noise, dark_nuclei=True)
            return -low / 2, -high / 2
        low, high = _limits(dark, noise, dark_nuclei=False)
        return low / 2, high / 2

    def _keep(self, kind: str, values: NDArray[Any]) -> None:
        flat, kept = values.ravel(), self._kinds.setdefault(kind, [])
        if not flat.size:
            return
        if flat.dtype.kind == "f":
            flat = flat[:: self.step]
            kept.append(flat[np.isfinite(flat)])
        elif not self._counts(flat):
            kept.append(flat)
        else:
            counts = np.bincount(flat, minlength=kept[0].size if kept else 0)
            if kept:
                counts[: kept[0].size] += kept[0]
            kept[:] = [counts]

    def _counts(self, values: NDArray[Any]) -> bool:
        return self.counted or values.dtype == np.uint16  # sums of two values of 8 bits: counting is faster

    def _ranked(self, kind: str) -> RankedValues:
        kept = self._kinds.get(kind) or [np.zeros(0, np.float32)]
        if kept[0].dtype.kind == "i":
            return Histogram(np.cumsum(kept[0]))
        return SortedValues(np.sort(np.concatenate(kept)))


def intensity_range(pixels: NDArray[np.generic], intensities: Intensities = "nuclei") -> tuple[float, float]:
    """The values of an image, (height, width) or (height, width, 3), that become 0 and 1.

    One range for all channels. A constant image gives two equal values. 8 and 16 bit versions of an image agree.
    """
    if intensities == "percentiles":
        return percentile_range(pixels)
    tally = ValueTally()
    tally.add(pixels)
    return tally.limits()


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
