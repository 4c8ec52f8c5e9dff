"""How wide the nuclei of an image are, from a few cheap looks of a model's size network.

An image is looked at at half its scale first. Where its nuclei turn out so narrow or so wide that the network sees them
badly there, it is looked at again at the scale that fits. Of large images only windows are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import as_gain
from nucseg_batch.arrays.widths import BINS, CELL, typical_width
from nucseg_batch.network.geometry import Frame, padded_batch
from nucseg_batch.network.program import Program

FIRST_SCALE = 0.5
"""Scale of the first look, but at images of less than SMALL pixels a side."""
SMALL = 256
"""Images whose longer side is at most this are looked at as they are: less would be too little to see."""
SEEN_WELL = (8.0, 36.0)
"""Widths of nuclei in a look, in pixels, that need no further look."""
AIM = 14.0
"""Width of nuclei in the looks after the first."""
SCALES = (1 / 16, 2.0)
"""Scales of looks, least and most."""
LOOKS = 3
"""Looks at most."""
WINDOW = 1024
"""Side in pixels, in a look, of the windows in which large images are shown."""
WINDOWS = 4
"""Windows at most, spread evenly over the image."""


class Sizing:
    """The size network of a model, ready on a device; threads may share it.

    program: of the size network without normalisation layers.
    """

    def __init__(self, program: Program) -> None:
        self._program = program

    def width(self, pixels: NDArray[Any], limits: tuple[float, float]) -> float | None:
        """Typical width of the nuclei of an image in its pixels; None where there are none.

        pixels: (height, width) or (height, width, 3). limits: the values that become 0 and 1.
        """
        scale = FIRST_SCALE if max(pixels.shape[:2]) > SMALL else 1.0
        seen: set[float] = set()
        while True:
            width = self._look(pixels, limits, scale)
            seen.add(scale)
            if width is None or SEEN_WELL[0] <= width <= SEEN_WELL[1] or len(seen) == LOOKS:
                break
            fitting = scale * 2.0 ** (round(2 * math.log2(AIM / width)) / 2)
            fitting = min(max(fitting, SCALES[0]), SCALES[1])
            if fitting in seen:
                break
            scale = fitting
        return None if width is None else width / scale

    def _look(self, pixels: NDArray[Any], limits: tuple[float, float], scale: float) -> float | None:
        """Typical width of nuclei as they are seen at a scale."""
        shares, distributions = [], []
        low, gain = as_gain([limits])
        for window in _windows(pixels, scale):
            frame = Frame.of(window.shape[:2], scale)
            image = padded_batch([window], frame.native_bucket, 1)
            if frame.is_native:
                answer = self._program.run(self._program.heads, image, low, gain)
            else:
                answer = self._program.run(self._program.heads_rescaled, image, low, gain, *frame.there())
            rows, columns = (max(1, round(length / CELL)) for length in frame.scaled)
            cells = answer[0, :rows, :columns].reshape(-1, 1 + BINS.size).astype(np.float64)
            shares.append(1 / (1 + np.exp(-cells[:, 0])))
            logits = np.exp(cells[:, 1:] - cells[:, 1:].max(axis=1, keepdims=True))
            distributions.append(logits / logits.sum(axis=1, keepdims=True))
        return typical_width(np.concatenate(shares), np.concatenate(distributions))


def _windows(pixels: NDArray[Any], scale: float) -> Iterator[NDArray[Any]]:
    """The image or, if it is large at this scale, windows spread evenly over it."""
    side = round(WINDOW / scale)
    places = [_places(length, side) for length in pixels.shape[:2]]
    grid = [(y, x) for y in places[0] for x in places[1]]
    for i in np.unique(np.linspace(0, len(grid) - 1, WINDOWS).round().astype(int)):
        y, x = grid[i]
        yield np.ascontiguousarray(pixels[y : y + side, x : x + side])


def _places(length: int, side: int) -> list[int]:
    """Where windows of a side begin along an axis."""
    return [0] if length <= side else np.linspace(0, length - side, -(-length // side)).round().astype(int).tolist()
