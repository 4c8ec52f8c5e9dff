"""How large nuclei are, and by what factor an image is rescaled so that they come out as the model knows them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS_PER_OCTAVE = 2
"""Estimated factors are powers of 2 ** (1 / STEPS_PER_OCTAVE), so that few shapes have to be compiled."""


def typical_diameter(areas: NDArray[Any]) -> float | None:
    """Typical width of nuclei from their areas: the median diameter of equal area, each nucleus weighed by its own.

    The weight keeps specks of dirt from deciding. `areas` in pixels; areas of 0 are absent labels. None without any.
    """
    found = np.sort(np.sqrt(4 / math.pi * areas[areas > 0].astype(np.float64)))
    if not found.size:
        return None
    below = np.cumsum(found)
    return float(found[np.searchsorted(below, below[-1] / 2)])


def step_factor(factor: float) -> float:
    """The nearest power of 2 ** (1 / STEPS_PER_OCTAVE)."""
    return float(2.0 ** (round(math.log2(factor) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE))
