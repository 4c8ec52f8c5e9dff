"""Widths of nuclei as distributions: the targets of the size network, and the width that its output means.

A width is a logarithm here, to base two, of pixels at the scale at which the network looks. Answers are given for each
CELL x CELL pixels, and say how much of the cell is nuclei, and how wide these are, as a share for each of BINS. So an
image whose cells disagree, as with nuclei in glands that look like large nuclei, has several peaks, not their mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CELL = 32
"""Sides in pixels of what one answer is for."""
FINEST, COARSEST, PER_OCTAVE = 1.0, 7.5, 4
"""Logarithms of the narrowest and the widest width, and bins for each factor of two between them."""
BINS = np.arange(round((COARSEST - FINEST) * PER_OCTAVE) + 1) / PER_OCTAVE + FINEST
"""(bins,): the width at the middle of each bin, as a logarithm."""
SHARPNESS = 0.75
"""Standard deviation, in bins, of the distribution that stands for one width."""
FEWEST = 0.08
"""Where no cell is nuclei by more than this share, there are none."""
COUNTED = 0.05
"""Cells count that are nuclei by at least this part of what the fullest cell is: what others say of widths is noise."""
LEVEL = 0.4
"""The width below which this share of the distribution of all cells lies is the estimate. Chosen on validation images,
where the median is too wide by 6 %."""


def distribution(width: float) -> NDArray[np.float32]:
    """(bins,): the distribution that stands for one width in pixels, which sums to 1."""
    distance = (np.log2(np.clip(width, 2.0**FINEST, 2.0**COARSEST)) - BINS) * PER_OCTAVE
    weights = np.exp(-0.5 * (distance / SHARPNESS) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


def size_target(labels: NDArray[np.integer], width: float) -> NDArray[np.float32]:
    """What a size network should answer for a view: (height // CELL, width // CELL, 2 + bins) float32.

    labels: (height, width), 0 is background and -1 not annotated. width: of its typical nucleus, in pixels of the view.
    Channels: share of the cell that is nuclei, its weight, and the distribution of widths.
    """
    rows, columns = (length // CELL for length in labels.shape)
    cells = labels[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
    target = np.zeros((rows, columns, 2 + BINS.size), np.float32)
    known = (cells >= 0).mean(axis=(1, 3))
    target[..., 0] = (cells > 0).mean(axis=(1, 3)) / np.maximum(known, 1e-6)
    target[..., 1] = known > 0.5
    target[..., 2:] = distribution(width)
    return target


def typical_width(shares: NDArray[Any], distributions: NDArray[Any]) -> float | None:
    """Width in pixels that the answers for an image agree on; None where there are no nuclei.

    shares: (cells,), how much of each is nuclei. distributions: (cells, bins). The quantile LEVEL of the distribution
    of all cells, weighted by their shares, with the share of a bin spread evenly over it.
    """
    if not shares.size or shares.max() < FEWEST:
        return None
    counted = np.where(shares >= COUNTED * shares.max(), shares, 0.0)
    whole = (counted[:, None] * distributions).sum(axis=0, dtype=np.float64)
    below = np.concatenate([[0.0], np.cumsum(whole)])
    edges = np.append(BINS, BINS[-1] + 1 / PER_OCTAVE) - 0.5 / PER_OCTAVE
    return float(2.0 ** np.interp(LEVEL * below[-1], below, edges))
