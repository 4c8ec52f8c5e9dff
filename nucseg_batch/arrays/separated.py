"""What separation finds in one image, wherever it is done."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SeparatedNuclei(NamedTuple):
    """The nuclei of one image."""

    labels: NDArray[np.int32]
    """(height, width): 0 is background, 1..n are nuclei."""
    roots: NDArray[np.int64]
    """(n, 2): where the root of each nucleus is."""
    support: NDArray[np.uint8]
    """(height, width): how far each pixel of the foreground supports its nucleus, see `arrays.confidence`."""
