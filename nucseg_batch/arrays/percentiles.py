"""The range of values by percentiles of all pixels: what models of format 2 and before were trained with.

Of a large plane, which is added block by block, it is not quite that of `normalize.percentile_range`: where nuclei
cover so little that even the high percentile is still noise, the range ends among the pixels that rise above the noise,
because nuclei would otherwise all be far beyond its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.arguments import is_whole
from nucseg_batch.arrays.normalize import HIGH_PERCENTILE, LOW_PERCENTILE
from nucseg_batch.arrays.ranges import RankedTally


@dataclass
class PercentileTally:
    """The values of many pixels, counted where their type has few, else kept."""

    step: int
    """Of values that cannot be counted, every so many-th is kept."""
    pixels: int = 0
    """Values that were added."""
    _values: RankedTally = field(default_factory=RankedTally)

    def add(self, pixels: NDArray[Any]) -> None:
        """Adds all pixels of all channels."""
        flat = pixels.ravel()
        if is_whole(flat):
            self._values.count(np.cumsum(np.bincount(flat)))
        else:
            flat = flat[:: self.step]
            flat = flat[np.isfinite(flat)]
            self._values.hold(flat)
        self.pixels += flat.size

    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1; see the head of this file."""
        from nucseg_batch.arrays.kernels.ranges import percentile_limits

        return percentile_limits(self._values.ranked(), LOW_PERCENTILE, HIGH_PERCENTILE) if self.pixels else (0.0, 0.0)
