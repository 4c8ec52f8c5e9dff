"""Values of nuclei, kept until their well is complete, and their mean, median and MAD."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import IO

import numpy as np
from numpy.typing import NDArray

KEPT = 2**28
"""Bytes of values that wait in memory."""
AT_ONCE = 2**22
"""Values that are sorted together, but those of one column at least."""
NORMAL = 1.4826
"""How much larger the standard deviation of a normal distribution is than its median absolute deviation."""


class WaitingValues:
    """Values by well, (columns, nuclei), in memory up to KEPT bytes and beyond that in a file.

    file: a temporary one, which gets 8 bytes for each value of wells that are begun before others are complete.
    """

    def __init__(self, file: IO[bytes], columns: int) -> None:
        self._file, self._columns = file, columns
        self._kept: dict[Hashable, list[NDArray[np.float64]]] = {}
        self._stored: dict[Hashable, list[tuple[int, int]]] = {}
        self._bytes = 0

    def add(self, well: Hashable, values: NDArray[np.float64]) -> None:
        """Keeps values of a well, (columns, nuclei); NaN where there is none."""
        self._kept.setdefault(well, []).append(values)
        self._bytes += values.nbytes
        if self._bytes > KEPT:
            for one, blocks in self._kept.items():
                joined = np.concatenate(blocks, axis=1)
                self._stored.setdefault(one, []).append((self._file.seek(0, os.SEEK_END), joined.shape[1]))
                self._file.write(joined.data)
            self._kept.clear()
            self._bytes = 0

    def take(self, well: Hashable) -> NDArray[np.float64]:
        """Mean, median and MAD of a complete well, (3, columns), whose values are then forgotten; NaN without any."""
        stored, kept = self._stored.pop(well, []), self._kept.pop(well, [])
        self._bytes -= sum(block.nbytes for block in kept)
        nuclei = sum(number for _, number in stored) + sum(block.shape[1] for block in kept)
        if not nuclei:
            return np.full((3, self._columns), np.nan)
        step = max(AT_ONCE // nuclei, 1)
        columns = (slice(first, min(first + step, self._columns)) for first in range(0, self._columns, step))
        return np.concatenate(
            [
                summary(np.concatenate([*(self._read(*one, some) for one in stored), *(b[some] for b in kept)], axis=1))
                for some in columns
            ],
            axis=1,
        )

    def _read(self, offset: int, nuclei: int, columns: slice) -> NDArray[np.float64]:
        self._file.seek(offset + 8 * nuclei * columns.start)
        content = self._file.read(8 * nuclei * (columns.stop - columns.start))
        return np.frombuffer(content).reshape(-1, nuclei)


def summary(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean, median and MAD of each row of values, NaN left out: (rows, n) to (3, rows)."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    median = medians(values)
    return np.stack([mean, median, medians(np.abs(values - median[:, None]))])


def medians(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each row of values, NaN left out: (rows, n) to (rows,); NaN where a row has no value."""
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    ordered, count = np.sort(values, axis=1), (~np.isnan(values)).sum(axis=1)  # NaN are sorted to the end
    rows = np.arange(len(values))
    return (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2]) / 2


def robust_scores(values: NDArray[np.float64], controls: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Robust z-scores of wells: (value - median of controls) / (1.4826 x MAD of controls), per column.

    values: (wells, columns), one value of each well, here the median of its nuclei. controls: (wells,), which wells are
    controls. NaN where a well has no value, and in columns in which the MAD of the controls is 0 or no control has a
    value. Defined in Birmingham et al., Nature Methods 6:569 (2009), and Malo et al., Nature Biotechnology 24:167
    (2006), who compare it with other ways to normalise screens.
    """
    _, median, mad = summary(values[controls].T)
    scale = np.where(mad > 0, NORMAL * mad, np.nan)
    return (values - median) / scale
