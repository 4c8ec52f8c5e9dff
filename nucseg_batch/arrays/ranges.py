"""Which values of an image become 0 and 1, whatever its exposure, how much of it is empty, and what disturbs it.

Percentiles of all pixels would make a nucleus dim in a crowd and far brighter alone in a large field. So the range is
measured on the nuclei themselves: it begins where the background does, and ends TOP times as far above it as a typical
nucleus. What is clearly brighter than the background may be haze for the most part, so pixels count there by the light
that they add. Where nothing is clearly brighter, as in a crowd without gaps, percentiles decide.

Two things do not count. Bright pixels that stand alone are detector faults: of each 2x2 block the darker diagonal is
taken. Pixels of one value below the background are padding, as mosaics and rotated images have it. Noise is never
stretched over more than a small share of the range.

Colour images with a bright background, as of stained tissue, are treated upside down. Their dark end is a percentile,
unless nuclei are so rare that the percentile is still noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.arguments import as_pixels, is_whole
from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.settings import Intensities

if TYPE_CHECKING:
    from nucseg_batch.arrays.kernels.ranges import Ranked


@dataclass
class RankedTally:
    """Values of one kind, added piece by piece: those of 8 and 16 bits are counted, others are held."""

    below: NDArray[np.int64] | None = None
    """(numbers,): how many are not above each whole number from 0 on, which is the highest at most."""
    held: list[NDArray[np.float32]] = field(default_factory=list)

    def count(self, below: NDArray[np.int64]) -> None:
        """Adds values of which so many are not above each whole number; takes the array over."""
        if not below.size:
            return
        if self.below is None:
            self.below = below
            return
        more, fewer = (self.below, below) if self.below.size > below.size else (below, self.below)
        more[: fewer.size] += fewer
        more[fewer.size :] += fewer[-1]
        self.below = more

    def hold(self, values: NDArray[Any]) -> None:
        """Adds values, (n,), of any real type, except those that are not finite."""
        self.held.append(values[np.isfinite(values)].astype(np.float32, copy=False))

    def ranked(self) -> Ranked:
        """All of them in ascending order."""
        from nucseg_batch.arrays.kernels.ranges import Ranked

        values = np.sort(np.concatenate(self.held)) if self.held else _NONE_HELD
        return Ranked(values, _NONE_COUNTED if self.below is None else self.below)


_NONE_HELD, _NONE_COUNTED = np.zeros(0, np.float32), np.zeros(0, np.int64)


@dataclass
class ValueTally:
    """The values of an image, or of a part of it, added piece by piece; pieces begin at even rows and columns.

    step: of values that are not counted every so many-th is held.
    """

    step: int = 1
    pixels: int = 0
    """Pixels that were added."""
    _dark: RankedTally = field(default_factory=RankedTally)
    _bright: RankedTally = field(default_factory=RankedTally)
    _steps: RankedTally = field(default_factory=RankedTally)

    def add(self, pixels: NDArray[np.generic]) -> None:
        """Adds all of (h, w) or (h, w, 3); what is not finite is left out."""
        if not pixels.size:
            return
        self.pixels += math.prod(pixels.shape[:2])
        add = self._count if is_whole(pixels) else self._hold
        add(_blocks(pixels), pixels.ndim == 3)

    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1; equal where all values are. (0, 0) where nothing was added."""
        from nucseg_batch.arrays.kernels.ranges import nuclei_limits

        return nuclei_limits(self._dark.ranked(), self._bright.ranked(), self._steps.ranked())

    def _count(self, pixels: NDArray[Any], colour: bool) -> None:
        from nucseg_batch.arrays.kernels.ranges import count_blocks

        kinds = self._dark, self._bright, self._steps
        for kind, below in zip(kinds, count_blocks(as_pixels(pixels), colour), strict=True):
            kind.count(below)

    def _hold(self, pixels: NDArray[Any], colour: bool) -> None:
        first, second = _diagonals(pixels)
        dark = np.minimum(first, second)
        even = dark[:, : dark.shape[1] // 2 * 2]
        left, right = even[:, 0::2], even[:, 1::2]
        self._dark.hold(dark.ravel()[:: self.step])
        self._steps.hold((np.maximum(left, right) - np.minimum(left, right)).ravel()[:: self.step])
        if colour:
            self._bright.hold(np.maximum(first, second).ravel()[:: self.step])


def intensity_range(pixels: NDArray[np.generic], intensities: Intensities = "nuclei") -> tuple[float, float]:
    """The values of an image, (height, width) or (height, width, 3), that become 0 and 1.

    One range for all channels. A constant image gives two equal values. 8 and 16 bit versions of an image agree.
    """
    if intensities == "percentiles":
        return percentile_range(pixels)
    tally = ValueTally()
    tally.add(pixels)
    return tally.limits()


def _blocks(pixels: NDArray[Any]) -> NDArray[Any]:
    """(h, w, channels) of at least one 2x2 block; each pixel of a line becomes a block of its own."""
    if min(pixels.shape[:2]) >= 2:
        return pixels.reshape(*pixels.shape[:2], -1)
    return np.repeat(np.repeat(pixels.reshape(1, -1, 1), 2, axis=0), 2, axis=1)


def _diagonals(pixels: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sums of the two diagonals of each 2x2 block, (h // 2, w // 2, channels)."""
    height, width = (length // 2 * 2 for length in pixels.shape[:2])
    even = pixels[:height, :width]
    parts = [even[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return np.add(parts[0], parts[3], dtype=np.float32), np.add(parts[1], parts[2], dtype=np.float32)
