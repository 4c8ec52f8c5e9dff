"""How the blocks of a network's answers become an image.

A network may answer for a whole block of full-resolution pixels at one position, as channels; unfolding these is the
sub-pixel step of Shi et al. 2016 (arXiv:1609.05158).
"""

from __future__ import annotations

from typing import Any

from keras import ops


def to_full_resolution(heads: Any, block: int, outputs: int) -> Any:
    """Unfolds (batch, h, w, block * block * outputs) into (batch, block * h, block * w, outputs), of the same dtype.

    Pixel (y, x) is entry (y % block, x % block) of the block it lies in; with a block of 1 nothing changes.
    """
    if block == 1:
        return heads
    _, height, width, _ = ops.shape(heads)
    x = ops.reshape(heads, (-1, height, width, block, block, outputs))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, block * height, block * width, outputs))
