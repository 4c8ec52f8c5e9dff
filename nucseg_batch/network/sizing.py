"""How wide the nuclei of an image are, from a few cheap looks of a model's size network.

An image is looked at at half its scale first. Where its nuclei turn out so narrow or so wide that the network sees them
badly there, it is looked at again at the scale that fits, and once more where these two looks contradict each other. Of
large images only windows are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.normalize import apply_range, as_gain
from nucseg_batch.arrays.scale import padded_resampling
from nucseg_batch.arrays.widths import BINS, CELL, typical_width
from nucseg_batch.network.program import Program

FIRST_SCALE = 0.5
"""Scale of the first look, but at small images."""
SHORTEST = 240
"""The longer side of an image, in pixels, in a look at least, if that does not take more than the largest scale."""
SEEN_WELL = (8.0, 36.0)
"""Widths of nuclei in a look, in pixels, that need no further look."""
AIM = 14.0
"""Width of nuclei in the looks after the first."""
SCALES = (1 / 16, 2.0)
"""Scales of looks, least and most."""
LOOKS = 3
"""Looks at most."""
AGREE = 0.8
"""Octaves by which the widths that two looks find differ at most, if they do not contradict each other."""
WINDOW = 1024
"""Side in pixels, in a look, of the windows in which large images are shown."""
WINDOWS = 4
"""Windows at most, spread evenly over the image."""


class SizeEstimator:
    """The size network of a model, ready on a device; threads may share it.

    program: of the size network without normalisation layers. coarse: whether images are rescaled before they come to
    the device and padded to few shapes, because it compiles a program for each.
    """

    def __init__(self, program: Program, *, coarse: bool = False) -> None:
        self._program = program
        self._coarse = coarse

    def width(self, pixels: NDArray[Any], limits: tuple[float, float]) -> float | None:
        """Typical width of the nuclei of an image in its pixels; None where there are none.

        pixels: (height, width) or (height, width, 3). limits: the values that become 0 and 1.
        """
        least = _limited(_stepped(SHORTEST / max(pixels.shape[:2]), math.ceil), SCALES[0])
        first = scale = max(FIRST_SCALE, least)
        looks: list[tuple[float, float]] = []  # scale, and width as it was seen
        while len(looks) < LOOKS and scale not in [earlier for earlier, _ in looks]:
            width = self._look(pixels, limits, scale)
            if width is None:
                break
            agree = not looks or abs(math.log2(width / scale / looks[-1][1] * looks[-1][0])) <= AGREE
            looks.append((scale, width))
            if agree and not _misfit(width):
                break
            # where two looks contradict each other, the first may have been misled: the third goes the other way
            following = _stepped(scale * AIM / width) if agree else first * 2 if scale < first else first / 2
            scale = _limited(following, least)
        if not looks:
            return None
        scale, width = min(reversed(looks), key=lambda look: _misfit(look[1]))
        return width / scale

    def _look(self, pixels: NDArray[Any], limits: tuple[float, float], scale: float) -> float | None:
        """Typical width of nuclei as they are seen at a scale."""
        shares, distributions = [], []
        for window in _windows(pixels, scale):
            frame = ResampleGeometry.of(window.shape[:2], scale, coarse=self._coarse)
            answer = self._answer(window, limits, frame)
            rows, columns = (max(1, round(length / CELL)) for length in frame.scaled)
            cells = answer[0, :rows, :columns].reshape(-1, 1 + BINS.size).astype(np.float64)
            shares.append(1 / (1 + np.exp(-cells[:, 0])))
            logits = np.exp(cells[:, 1:] - cells[:, 1:].max(axis=1, keepdims=True))
            distributions.append(logits / logits.sum(axis=1, keepdims=True))
        return typical_width(np.concatenate(shares), np.concatenate(distributions))

    def _answer(
        self, window: NDArray[Any], limits: tuple[float, float], frame: ResampleGeometry
    ) -> NDArray[np.float32]:
        """The size network's answer for a window, padded, (1, height / CELL, width / CELL, 1 + BINS.size)."""
        program, seen = self._program, math.prod(frame.bucket)
        if self._coarse:
            side = max(frame.bucket)
            shown = _shown(window, limits, frame, side)
            return program.run(program.heads, shown, *as_gain([(0.0, 1.0)]), seen=side**2)
        low, gain = as_gain([limits])
        image = padded_batch([window], frame.native_bucket, 1)
        if frame.is_native:
            return program.run(program.heads, image, low, gain, seen=seen)
        return program.run(program.heads_rescaled, image, low, gain, *frame.there(), seen=seen)


def _shown(
    window: NDArray[Any], limits: tuple[float, float], frame: ResampleGeometry, side: int
) -> NDArray[np.float32]:
    """What the network is shown of a window: normalised, rescaled, mirrored up to a square, (1, side, side, 3)."""
    rows, columns = (
        padded_resampling(native, scaled, native, side)
        for native, scaled in zip(frame.native, frame.scaled, strict=True)
    )
    image: NDArray[Any] = apply_range(window, *limits).reshape(*frame.native, -1)
    image = np.moveaxis(rows @ np.moveaxis(image, -1, 0) @ columns.T, 0, -1)
    return np.ascontiguousarray(np.broadcast_to(image, (side, side, 3)))[None]


def _misfit(width: float) -> float:
    """By how many octaves a width, as it was seen, is outside SEEN_WELL."""
    return max(0.0, math.log2(SEEN_WELL[0] / width), math.log2(width / SEEN_WELL[1]))


def _stepped(scale: float, rounded: Callable[[float], int] = round) -> float:
    """The power of the root of two that is nearest to a scale, or the next as `rounded` says."""
    return float(2.0 ** (rounded(2 * math.log2(scale)) / 2))


def _limited(scale: float, least: float) -> float:
    return min(max(scale, least), SCALES[1])


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
