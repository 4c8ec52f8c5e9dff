"""How the range of an image follows from its values in ascending order: the rules of `arrays.ranges` and `percentiles`.

The constants are here, too: what is kept of compiled loops is compiled again only if this file changes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined

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
ABOVE_MEDIAN = 3.0
"""For percentiles: values count as noise up to this multiple of the distance from the lowest value to the median."""
BRIGHT_PERCENTILE = 90.0
"""Of the pixels above the noise, where the range ends if the high percentile is noise."""
BRIGHT_PIXELS = 100
"""Fewer pixels above the noise are hot ones or dust."""


class Ranked(NamedTuple):
    """Many values in ascending order: all of them, or how often each whole number from 0 on occurs."""

    values: NDArray[np.float32]
    """(n,): the values; empty where they are counted."""
    below: NDArray[np.int64]
    """(numbers,): how many values are not above each number; empty where all are held."""
    mirrored: bool = False
    """Whether the negative of each is meant."""


@inlined
def _size(of: Ranked) -> int:
    """How many values there are."""
    return of.below[-1] if of.below.size else of.values.size


@inlined
def _first_above(ascending: NDArray[Any], value: float, start: int) -> int:
    """The place of the first that is above a value, which is not before `start`; the nearer to it, the faster."""
    step = 1
    while start + step <= ascending.size and ascending[start + step - 1] <= value:
        start += step
        step *= 2
    stop = min(start + step - 1, ascending.size)
    while start < stop:
        middle = (start + stop) // 2
        if ascending[middle] > value:
            stop = middle
        else:
            start = middle + 1
    return start


@inlined
def _at(of: Ranked, place: int) -> float:
    """The value at a place, counted from 0."""
    own = _size(of) - 1 - place if of.mirrored else place
    value = np.float64(_first_above(of.below, own, 0)) if of.below.size else np.float64(of.values[own])
    return -value if of.mirrored else value


@inlined
def _up_to(of: Ranked, value: float) -> int:
    """How many are not above a value."""
    own = np.nextafter(-value, -np.inf) if of.mirrored else value
    if of.below.size == 0:
        count = _first_above(of.values, own, 0)
    elif own < 0:
        count = 0
    else:
        count = of.below[min(math.floor(own), of.below.size - 1)]
    return _size(of) - count if of.mirrored else count


@inlined
def _share(of: Ranked, share: float, start: int) -> float:
    """The smallest of the values from a place on that at least this share of them does not exceed."""
    count = _size(of) - start
    return _at(of, start + min(max(math.ceil(count * share) - 1, 0), count - 1))


@compiled
def nuclei_limits(dark: Ranked, bright: Ranked, steps: Ranked) -> tuple[float, float]:
    """The values that become 0 and 1, from those of `arrays.ranges`; `bright` is empty of what is no colour image."""
    if _size(dark) == 0:
        return 0.0, 0.0
    noise = _share(steps, 0.6827, 0) / math.sqrt(2.0) if _size(steps) else 0.0
    if _size(bright) and _is_bright(dark):
        high, low = _limits(Ranked(bright.values, bright.below, True), noise, True)
        return -low / 2, -high / 2
    low, high = _limits(dark, noise, False)
    return low / 2, high / 2


@inlined
def _is_bright(of: Ranked) -> bool:
    """Whether most values are nearer to the highest than to the lowest, but for FEWEST of either."""
    few = min(FEWEST, _size(of) - 1)
    low, middle, high = _at(of, few), _at(of, _size(of) // 2), _at(of, _size(of) - 1 - few)
    return high - middle < middle - low


@inlined
def _background(of: Ranked, start: int) -> tuple[float, float]:
    """Middle of the background and its standard deviation, from the values from a place on."""
    size = _size(of)
    end = size
    while True:
        count = end - start
        ground = _at(of, start + count // 2)
        deviation = ground - _at(of, start + int(0.1587 * count))
        kept = _up_to(of, ground + CLIPPED * deviation)
        if kept >= end or kept - start < (1 - MOST_NUCLEI) * (size - start):
            return ground, deviation
        end = kept


@inlined
def _first_real(of: Ranked, noise: float) -> int:
    """The place of the first value that is no padding: 0 unless the lowest value is padding.

    That is so where many pixels have it and all others have a background of their own, well above it. Blocks of which
    a part is padding are left out, too.
    """
    lowest = _at(of, 0)
    start = _up_to(of, lowest)
    if not PADDED[0] < start / _size(of) < PADDED[1]:
        return 0
    ground, deviation = _background(of, start)
    margin = 2 * APART * max(deviation, noise)
    if ground - lowest <= margin or ground - lowest <= LITTLE * (_share(of, HIGH_SHARE, start) - lowest):
        return 0
    first = _up_to(of, ground - margin)
    return first if first - start <= MIXED * start else 0


@inlined
def _lit(of: Ranked, start: int, ground: float) -> float:
    """How far above `ground` values from a place on are where, in ascending order, LIGHT of their sum is reached.

    Their median where that is saturated debris.
    """
    heights, light = np.empty(RANKS), np.empty(RANKS)
    total, number = 0.0, 0
    for i in range(RANKS):
        place = int(start + (i + 0.5) / RANKS * (_size(of) - start))
        if of.below.size:
            number = _first_above(of.below, place, number)
        heights[i] = (np.float64(number) if of.below.size else np.float64(of.values[place])) - ground
        total += heights[i]
        light[i] = total
    reached = 0
    while light[reached] < LIGHT * total:
        reached += 1
    level, middle = heights[reached], heights[RANKS // 2]
    return middle if level > max(FAR * middle, SATURATED * heights[-1]) else level


@inlined
def _limits(of: Ranked, noise: float, dark_nuclei: bool) -> tuple[float, float]:
    """Where the range begins and ends, of values whose nuclei are above the background."""
    start = _first_real(of, noise)
    low, high = _share(of, LOW_SHARE, start), _share(of, HIGH_SHARE, start)
    ground, deviation = _background(of, start)
    clear = _up_to(of, ground + CLEAR * deviation)
    if _size(of) - clear >= FEWEST:
        if not dark_nuclei:
            edge = EDGE * _lit(of, clear, ground)
            high = ground + TOP * (_share(of, 0.5, _up_to(of, ground + edge)) - ground)
        elif high <= ground + CLEAR * deviation:
            high = _share(of, DARK_SHARE, clear)
    high = max(high, low + NOISE * noise)
    return low, high if high > low else _at(of, _size(of) - 1)


@compiled
def percentile_limits(of: Ranked, low_percentile: float, high_percentile: float) -> tuple[float, float]:
    """The values that become 0 and 1, by percentiles, see `arrays.percentiles`."""
    low, high = _percentile(of, low_percentile, 0), _percentile(of, high_percentile, 0)
    median = _percentile(of, 50.0, 0)
    noise = median + ABOVE_MEDIAN * (median - _percentile(of, 100 - high_percentile, 0))
    start = _up_to(of, noise)
    if high <= noise and _size(of) - start >= BRIGHT_PIXELS:
        high = _percentile(of, BRIGHT_PERCENTILE, start)
    return low, high if high > low else _percentile(of, 100.0, 0)


@inlined
def _percentile(of: Ranked, percentile: float, start: int) -> float:
    """The smallest of the values from a place on that at least this share of them does not exceed."""
    return _at(of, start + max(math.ceil((_size(of) - start) * percentile / 100) - 1, 0))


@compiled
def count_blocks(pixels: NDArray[Any], colour: bool) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """How many of the values that `arrays.ranges` looks at are not above each whole number from 0 on; (numbers,) each.

    pixels: (h, w, channels), h and w at least 2. Of the sums of the two diagonals of each 2x2 block: the lower one, the
    higher one, counted of colour images only, and the difference of the lower ones of two blocks side by side.
    """
    height, width, channels = pixels.shape
    numbers = 2 * _highest(pixels) + 1
    dark, steps = np.zeros((2, numbers), np.int64), np.zeros(numbers, np.int64)
    bright = np.zeros(numbers if colour else 0, np.int64)
    low, high = np.empty(width // 2, np.int32), np.empty(width // 2, np.int32)
    rows = pixels.reshape(height, width * channels)
    for channel in range(channels):
        for y in range(0, height - 1, 2):
            _add_diagonals(rows, y, channels, channel, low, high)
            for i in range(low.size // 2):
                left, right = low[2 * i], low[2 * i + 1]
                dark[0, left] += 1
                dark[1, right] += 1  # where both are alike, one need not wait for the other
                steps[abs(left - right)] += 1
            if low.size % 2:
                dark[0, low[-1]] += 1
            if colour:
                for i in range(high.size):
                    bright[high[i]] += 1
    for number in range(numbers):
        dark[0, number] += dark[1, number]
    _accumulate(dark[0])
    _accumulate(bright)
    _accumulate(steps)
    return dark[0], bright, steps


@inlined
def _accumulate(counts: NDArray[np.int64]) -> None:
    """Adds to each number those before it."""
    for number in range(1, counts.size):
        counts[number] += counts[number - 1]


@inlined
def _add_diagonals(
    rows: NDArray[Any], y: int, channels: int, channel: int, low: NDArray[np.int32], high: NDArray[np.int32]
) -> None:
    """The lower and the higher sum of the diagonals of the blocks of two rows of (h, w * channels), (w // 2,) both."""
    if channels == 1:
        for i in range(low.size):
            falling = np.int32(rows[y, 2 * i]) + np.int32(rows[y + 1, 2 * i + 1])
            rising = np.int32(rows[y, 2 * i + 1]) + np.int32(rows[y + 1, 2 * i])
            low[i], high[i] = min(falling, rising), max(falling, rising)
    else:
        for i in range(low.size):
            x = 2 * i * channels + channel
            falling = np.int32(rows[y, x]) + np.int32(rows[y + 1, x + channels])
            rising = np.int32(rows[y, x + channels]) + np.int32(rows[y + 1, x])
            low[i], high[i] = min(falling, rising), max(falling, rising)


@inlined
def _highest(pixels: NDArray[Any]) -> int:
    """The highest value."""
    flat = pixels.ravel()
    highest = flat[0]
    for i in range(flat.size):
        highest = max(highest, flat[i])
    return int(np.int64(highest))
