"""What must be known of a large plane before its regions are done: its range of values, and where it is worth a look.

The range that becomes 0 and 1 is that of the whole plane, never of a region, whose empty field would otherwise turn its
noise into nuclei. Of planes up to EXACT_PIXELS every pixel is counted; of larger ones windows are, spread evenly over
the plane at places that depend on its shape and on how it is stored alone. Memory does not grow with the plane.

Blocks of one value, as slides have where nothing was scanned, are left out; the range is that of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.percentiles import PercentileTally
from nucseg_batch.arrays.ranges import ValueTally
from nucseg_batch.settings import Intensities

EXACT_PIXELS = 2**27
"""Planes of up to so many pixels are read whole."""
WINDOWS = 400
"""Windows that are read of larger planes, where pieces in which they are stored are small."""
FEWEST_WINDOWS = 32
"""The same, where pieces are very large."""
WINDOW_PIXELS = (2**16, 2**24)
"""Pixels of a window at least and at most."""
KEPT_VALUES = 2**25
"""Values that are kept at most where they cannot be counted, as of float32; of more pixels only every so many-th is."""
BLOCK = 512
"""Sides of the blocks in which a window is looked at."""
SHRINK = 4
"""Sides of the squares of pixels whose means stand for them when structure is looked for: noise is none."""
BRIGHT = 0.2
"""What rises no higher than this share of the plane's range is not bright."""

Read = Callable[[slice, slice], NDArray[Any]]
"""Gives a window of a plane as the network is shown it: (h, w) or (h, w, 3) of any real dtype."""
Window = tuple[slice, slice]
"""Rows and columns of a plane."""


@dataclass(frozen=True)
class IntensitySurvey:
    """What was found out about a plane."""

    low: float
    """The value that becomes 0."""
    high: float
    """The value that becomes 1; equal to `low` for a plane of one value."""
    shape: tuple[int, int]
    """Height and width of the plane."""
    pixels: int
    """Pixels that were looked at."""
    places: tuple[Window, ...]
    """Blocks of more than one value that were looked at."""
    structure: tuple[float, ...]
    """How much there is to see in each: mean difference of neighbouring squares of pixels, in parts of the range."""

    @property
    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1."""
        return self.low, self.high

    def informative(self, side: int, count: int = 1) -> list[Window]:
        """Up to `count` windows of `side` pixels where there is most to see, best first.

        What is in the middle of one is in no window before it. Windows are shorter where the plane is. The middle of
        the plane where no block has more than one value.
        """
        ordered = sorted(range(len(self.places)), key=lambda i: (-self.structure[i], i))
        found: list[Window] = []
        for place in (self.places[i] for i in ordered):
            y, x = ((part.start + part.stop) // 2 for part in place)
            if not any(r.start <= y < r.stop and c.start <= x < c.stop for r, c in found):
                found.append(self._around((y, x), side))
            if len(found) == count:
                break
        return found or [self._around((self.shape[0] // 2, self.shape[1] // 2), side)]

    def _around(self, centre: tuple[int, int], side: int) -> Window:
        starts = [max(0, min(c - side // 2, n - side)) for c, n in zip(centre, self.shape, strict=True)]
        rows, columns = (slice(s, min(n, s + side)) for s, n in zip(starts, self.shape, strict=True))
        return rows, columns


def survey_intensities(
    read: Read, shape: tuple[int, int], chunk: tuple[int, int] | None = None, intensities: Intensities = "nuclei"
) -> IntensitySurvey:
    """Looks at a plane of this shape, or at a sample of it.

    chunk: the pieces in which it is stored, if known; a plane that is looked at whole is looked at in the same windows
    however it is stored. intensities: the model's rule for the range. Pixels that are not finite are left out.
    """
    windows = sample_windows(shape, chunk if math.prod(shape) > EXACT_PIXELS else None)
    step = _step(sum(math.prod(part.stop - part.start for part in window) for window in windows))
    tally, constant = _tally(intensities, step), _tally(intensities, step)
    places: list[Window] = []
    small: list[NDArray[np.float32]] = []
    pixels = 0
    for rows, columns in windows:
        window = read(rows, columns)
        pixels += math.prod(window.shape[:2])
        for (top, left), block in _blocks(window):
            if is_constant(block):
                constant.add(block)
                continue
            tally.add(block)
            start = rows.start + top, columns.start + left
            places.append((slice(start[0], start[0] + block.shape[0]), slice(start[1], start[1] + block.shape[1])))
            small.append(_shrunk(block))
    low, high = (tally if tally.pixels else constant).limits()
    structure = tuple(_structure(one, low, high) for one in small)
    return IntensitySurvey(low, high, shape, pixels, tuple(places), structure)


def _tally(intensities: Intensities, step: int) -> ValueTally | PercentileTally:
    return ValueTally(step) if intensities == "nuclei" else PercentileTally(step)


def sample_windows(shape: tuple[int, int], chunk: tuple[int, int] | None = None) -> list[Window]:
    """The windows of a plane that are looked at, in raster order: all, or a sample spread evenly over the plane.

    They are whole chunks or, where these are small or huge, several chunks or a part of one.
    """
    height, width = _window_shape(shape, chunk or (BLOCK, BLOCK))
    grid = -(-shape[0] // height), -(-shape[1] // width)
    count = max(FEWEST_WINDOWS, min(WINDOWS, EXACT_PIXELS // (height * width)))
    if math.prod(shape) <= EXACT_PIXELS or count >= math.prod(grid):
        cells = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    else:
        cells = sorted(_spread(grid, count))
    return [
        (slice(y * height, min((y + 1) * height, shape[0])), slice(x * width, min((x + 1) * width, shape[1])))
        for y, x in cells
    ]


def is_constant(pixels: NDArray[Any]) -> bool:
    """Whether all pixels of (h, w) or (h, w, 3) are the same."""
    first = pixels[0, 0]
    return bool((pixels[0] == first).all() and (pixels[:, 0] == first).all() and (pixels == first).all())


def nothing_bright(pixels: NDArray[Any], limits: tuple[float, float]) -> bool:
    """Whether no square of SHRINK x SHRINK pixels is brighter, on average, than BRIGHT of the plane's range.

    A region in which this holds has no nuclei as bright as others of its plane. It never holds where the background is
    bright, as in stained tissue.
    """
    low, high = limits
    return bool(_shrunk(pixels).max(initial=-math.inf) <= low + BRIGHT * (high - low))


def _step(pixels: int) -> int:
    """How many values apart those are that are kept; without a divisor that rows or channels are likely to have."""
    step = max(1, math.ceil(pixels / KEPT_VALUES))
    while math.gcd(step, 6) > 1:
        step += 1
    return step


def _window_shape(shape: tuple[int, int], chunk: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the windows: chunks, joined or cut until their area is within WINDOW_PIXELS."""
    least, most = WINDOW_PIXELS
    height, width = (min(c, n) for c, n in zip(chunk, shape, strict=True))
    if height * width > most:
        height = min(height, math.isqrt(most))
        width = min(width, most // height)
    while height * width < least and (height, width) != shape:
        if width >= shape[1] or (height <= width and height < shape[0]):
            height = min(2 * height, shape[0])
        else:
            width = min(2 * width, shape[1])
    return height, width


def _spread(grid: tuple[int, int], count: int) -> set[tuple[int, int]]:
    """So many cells of a grid, spread evenly: an additive sequence whose steps avoid any regular pattern of the plane.

    The steps are the powers of 1/1.32472, the two-dimensional counterpart of the golden section (Roberts 2018).
    """
    cells: set[tuple[int, int]] = set()
    step = 0
    while len(cells) < count:
        step += 1
        y, x = ((0.5 + step * 1.324717957244746**-power) % 1 for power in (1, 2))
        cells.add((int(y * grid[0]), int(x * grid[1])))
    return cells


def _blocks(window: NDArray[Any]) -> Iterator[tuple[tuple[int, int], NDArray[Any]]]:
    """A window in blocks of about BLOCK pixels a side, each with its place."""
    for top in range(0, window.shape[0], BLOCK):
        for left in range(0, window.shape[1], BLOCK):
            yield (top, left), window[top : top + BLOCK, left : left + BLOCK]


def _shrunk(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Means of squares of SHRINK pixels a side, over all channels; what is left at the ends of an axis is left out.

    Smaller than a square, the pixels are one.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2, dtype=np.float32)
    height, width = (length // SHRINK * SHRINK for length in grey.shape)
    if not height or not width:
        return grey.mean(dtype=np.float32).reshape(1, 1)
    squares = grey[:height, :width].reshape(height // SHRINK, SHRINK, width // SHRINK, SHRINK)
    rows = squares.sum(axis=1, dtype=np.float32)
    return np.asarray(rows.sum(axis=2), np.float32) / np.float32(SHRINK**2)


def _structure(small: NDArray[np.float32], low: float, high: float) -> float:
    """Mean difference of neighbours, in parts of the range and not counting what lies beyond it."""
    if high <= low or min(small.shape) < 2:
        return 0.0
    shown = np.clip((small - low) / (high - low), 0, 1)
    return float(np.abs(np.diff(shown, axis=0)).mean() + np.abs(np.diff(shown, axis=1)).mean())
