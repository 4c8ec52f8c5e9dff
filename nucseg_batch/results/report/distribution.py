"""Counts of values of which there may be billions, in bounded memory and whatever their range.

A value is counted under its first 15 binary digits, as logarithmic histograms are, so that counts are exact, whole
numbers below 32 768 stay what they are, quantiles are true to 1 in 16 384, and nothing depends on the order of values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DIGITS = 15
"""Binary digits of a value that are kept."""
WAITING = 2**17
"""Values that wait to be counted together."""


class Distribution:
    """Values that were added, as counts by value. NaN and infinite values are passed over."""

    def __init__(self) -> None:
        self._values = np.empty(0)
        self._counts = np.empty(0, np.int64)
        self._waiting: list[NDArray[np.float64]] = []
        self._waiting_count = 0
        self._sum = 0.0

    def add(self, values: NDArray[np.float64] | float) -> None:
        """Counts some values more, (n,) or one."""
        some = np.atleast_1d(np.asarray(values, np.float64))
        some = some[np.isfinite(some)]
        if not some.size:
            return
        self._sum += float(some.sum())
        self._waiting.append(some)
        self._waiting_count += some.size
        if self._waiting_count >= WAITING:
            self._counted()

    @property
    def count(self) -> int:
        """How many values."""
        return int(self._counted()[1].sum())

    @property
    def mean(self) -> float:
        """Their mean, of the values as they were; NaN without any."""
        return self._sum / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """The smallest value that at least this share of all does not exceed; NaN without any."""
        values, counts = self._counted()
        if not values.size:
            return math.nan
        rank = max(math.ceil(share * counts.sum() - 1e-9), 1)
        return float(values[np.searchsorted(np.cumsum(counts), rank)])

    @property
    def median(self) -> float:
        """The middle value, of an even number the mean of the two in the middle; NaN without any."""
        values, counts = self._counted()
        if not values.size:
            return math.nan
        below, middle = np.cumsum(counts), int(counts.sum()) // 2
        upper = float(values[np.searchsorted(below, middle + 1)])
        return upper if counts.sum() % 2 else (upper + float(values[np.searchsorted(below, middle)])) / 2

    def spread(self, *, log: bool = False) -> float:
        """The standard deviation that a bell curve with this median absolute deviation has, which outliers hardly move.

        log: of the logarithms to base 2 of positive values. NaN without any.
        """
        values, counts = self._counted()
        if log:
            counts, values = counts[values > 0], np.log2(values[values > 0])
        if not values.size:
            return math.nan
        middle = _weighted_median(values, counts)
        return 1.4826 * _weighted_median(np.abs(values - middle), counts)

    def histogram(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """How many values lie from each edge to the next, (len(edges) - 1,); the last edge itself counts, too."""
        values, counts = self._counted()
        return np.histogram(values, edges, weights=counts)[0].astype(np.int64)

    def _counted(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        if self._waiting:
            mantissa, exponent = np.frexp(np.concatenate(self._waiting))
            new = np.ldexp(np.trunc(np.ldexp(mantissa, DIGITS)), exponent - DIGITS)
            found, counts = np.unique(new, return_counts=True)
            values, places = np.unique(np.concatenate([self._values, found]), return_inverse=True)
            both = np.concatenate([self._counts, counts])
            self._values, self._counts = values, np.bincount(places, both, values.size).astype(np.int64)
            self._waiting.clear()
            self._waiting_count = 0
        return self._values, self._counts


def _weighted_median(values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    return float(values[order][np.searchsorted(below, (below[-1] + 1) // 2)])
