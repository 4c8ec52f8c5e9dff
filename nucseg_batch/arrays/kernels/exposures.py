"""Sums over the pixels of a plane, for `arrays.exposure`.

Numbers that are not whole are added in a fixed order, LANES sums side by side, so that every processor has the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined

LANES = 32
"""Pixels that are looked at side by side."""


@compiled
def whole_top(pixels: NDArray[Any], width: int) -> tuple[float, int]:
    """The highest of whole numbers in the first `width` columns, one at least, and how many pixels have it."""
    top, count = pixels[0, 0], 0
    for y in range(pixels.shape[0]):
        row = pixels[y, :width]
        most = row[0]
        for x in range(width):
            most = max(most, row[x])
        if most > top:
            top, count = most, 0
        if most == top:
            count += _occurrences(row, top)
    return np.float64(top), count


@compiled
def real_top(pixels: NDArray[Any], width: int) -> tuple[float, int]:
    """The same of other numbers; NaN, which no pixel equals, if any pixel is."""
    most, unknown = np.empty(LANES, pixels.dtype), np.zeros(LANES, np.bool_)
    for lane in range(LANES):
        most[lane] = pixels[0, 0]
    for y in range(pixels.shape[0]):
        row = pixels[y, :width]
        whole = row[: width // LANES * LANES].reshape(-1, LANES)
        for i in range(whole.shape[0]):
            for lane in range(LANES):
                value = whole[i, lane]
                most[lane] = value if value > most[lane] else most[lane]
                unknown[lane] |= value != value
        for x in range(whole.size, width):
            most[0] = row[x] if row[x] > most[0] else most[0]
            unknown[0] |= row[x] != row[x]
    top, count = most[0], 0
    for lane in range(LANES):
        if unknown[lane]:
            return np.nan, 0
        top = max(top, most[lane])
    for y in range(pixels.shape[0]):
        count += _occurrences(pixels[y, :width], top)
    return np.float64(top), count


@inlined
def _occurrences(row: NDArray[Any], value: Any) -> int:
    """How many pixels of (w,) have a value."""
    count = np.int32(0)
    for x in range(row.size):
        count += np.int32(row[x] == value)
    return int(np.int64(count))


@compiled
def whole_sums(pixels: NDArray[Any], width: int, first: int, every: int, apart: int) -> NDArray[np.int64]:
    """Sums of whole numbers, (h, w), over the first `width` columns; (4,).

    Of all; and of every so many-th row from `first` on the sum, the sum of the squares, and that of the squared
    differences from pixels that are so far to the right, which may lie in further columns.
    """
    sums = np.zeros(4, np.int64)
    for y in range(pixels.shape[0]):
        row = pixels[y, :width]
        own = squares = difference = np.int64(0)
        for x in range(width):
            own += np.int64(row[x])
        sums[0] += own
        if y >= first and (y - first) % every == 0:
            there = pixels[y, apart : width + apart]
            for x in range(width):
                squares += np.int64(row[x]) * np.int64(row[x])
            for x in range(there.size):
                step = np.int64(there[x]) - np.int64(row[x])
                difference += step * step
            sums[1] += own
            sums[2] += squares
            sums[3] += difference
    return sums


@compiled
def real_sums(pixels: NDArray[Any], width: int, first: int, every: int, apart: int) -> NDArray[np.float64]:
    """The same of other numbers."""
    sums = np.zeros((4, LANES))
    values = np.zeros(-(-width // LANES) * LANES)
    lanes = values.reshape(-1, LANES)
    for y in range(pixels.shape[0]):
        row = pixels[y, :width]
        for x in range(width):
            values[x] = row[x]
        _add(lanes, sums[0])
        if y >= first and (y - first) % every == 0:
            there = pixels[y, apart : width + apart]
            _add(lanes, sums[1])
            for x in range(width):
                values[x] = values[x] * values[x]
            _add(lanes, sums[2])
            for x in range(there.size):
                step = np.float64(there[x]) - np.float64(row[x])
                values[x] = step * step
            for x in range(there.size, width):
                values[x] = 0
            _add(lanes, sums[3])
    found = np.zeros(4)
    for i in range(4):
        for lane in range(LANES):
            found[i] += sums[i, lane]
    return found


@inlined
def _add(values: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """Adds (n, LANES) to (LANES,)."""
    for i in range(values.shape[0]):
        for lane in range(LANES):
            sums[lane] += values[i, lane]
