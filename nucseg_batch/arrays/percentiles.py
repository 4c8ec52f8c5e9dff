"""The range of values by percentiles of all pixels: what models of format 2 and before were trained with.

Of a large plane, which is added block by block, it is not quite that of `normalize.percentile_range`: where nuclei
cover so little that even the high percentile is still noise, the range ends among the pixels that rise above the noise,
because nuclei would otherwise all be far beyond its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import HIGH_PERCENTILE, LOW_PERCENTILE
from nucseg_batch.arrays.ranges import Histogram, RankedValues, SortedValues

NOISE = 3.0
"""Values up to NOISE times as far above the median as the lowest values are below it count as noise."""
BRIGHT_PERCENTILE = 90.0
"""Of the pixels above the noise, where the range ends if the high percentile is noise."""
BRIGHT_PIXELS = 100
"""Fewer pixels above the noise are hot ones or dust."""


@dataclass
class PercentileTally:
    """The values of many pixels, counted where their type has few, else kept."""

    step: int
    """Of values that cannot be counted, every so many-th is kept."""
    counts: NDArray[np.int64] | None = None
    values: list[NDArray[Any]] = field(default_factory=list)
    count: int = 0

    @property
    def pixels(self) -> int:
        """Values that were added."""
        return self.count

    def add(self, pixels: NDArray[Any]) -> None:
        """Adds all pixels of all channels."""
        flat = pixels.ravel()
        if flat.dtype in (np.uint8, np.uint16):
            if self.counts is None:
                self.counts = np.zeros(np.iinfo(flat.dtype).max + 1, np.int64)
            self.counts += np.bincount(flat, minlength=self.counts.size)
        else:
            flat = flat[:: self.step]
            flat = flat[np.isfinite(flat)]
            self.values.append(flat.astype(np.float32))
        self.count += flat.size

    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1; see the head of this file."""
        if not self.count:
            return 0.0, 0.0
        values = self._ranked()

        def at(percentile: float, start: int = 0) -> float:
            """The smallest of the values from a place on that at least this share of them does not exceed."""
            return values.at(start + max(math.ceil((values.size - start) * percentile / 100) - 1, 0))

        low, high, median = at(LOW_PERCENTILE), at(HIGH_PERCENTILE), at(50.0)
        noise = median + NOISE * (median - at(100 - HIGH_PERCENTILE))
        start = values.up_to(noise)
        if high <= noise and values.size - start >= BRIGHT_PIXELS:
            high = at(BRIGHT_PERCENTILE, start)
        return low, high if high > low else at(100.0)

    def _ranked(self) -> RankedValues:
        if self.counts is not None:
            return Histogram(np.cumsum(self.counts))
        return SortedValues(np.sort(np.concatenate(self.values)))
