"""Which part of a plane is shown, and how much smaller: pure geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 512
"""Longest side of a picture, in its own pixels, but for planes that are hardly larger."""
WHOLE = 720
"""Planes of no longer side are shown whole as they are."""
NUCLEUS = 24.0
"""A nucleus stays at least so many pixels wide where a plane is shown smaller than it is."""
MOST = 6
"""Larger planes are shown in part, not smaller than this."""
STEPS = 4
"""Windows are tried at each of so many steps of their side."""


@dataclass(frozen=True)
class PictureWindow:
    """A part of a plane."""

    rows: slice
    """Its rows."""
    columns: slice
    """Its columns."""
    reduce: int
    """Pixels of the plane along a side of one of the picture."""
    enlarge: int
    """Pixels of the picture along a side of one of the plane; one of both is 1."""

    def whole(self, shape: tuple[int, int]) -> bool:
        """Whether it is all of a plane."""
        return (self.rows.stop - self.rows.start, self.columns.stop - self.columns.start) == shape


def window(
    shape: tuple[int, int],
    centres: NDArray[np.float64],
    weights: NDArray[np.float64],
    diameter: float | None,
) -> PictureWindow:
    """The part of a plane that is shown: where nuclei weigh most, at full resolution unless they are large.

    centres: (n, 2), y and x; weights: (n,); diameter: usual width of the nuclei in pixels, None without any.
    """
    if SIDE < max(shape) <= WHOLE:
        return PictureWindow(slice(0, shape[0]), slice(0, shape[1]), 1, 1)
    reduce = _reduction(shape, diameter)
    top, left = _start(shape, SIDE * reduce, centres, weights)
    return _at(shape, top, left, reduce)


def windows_through(
    shape: tuple[int, int], centres: NDArray[np.float64], diameter: float | None, most: int
) -> list[PictureWindow]:
    """Up to so many more parts of a large plane, from those with many nuclei to those with few; none overlap."""
    reduce = _reduction(shape, diameter)
    side = SIDE * reduce
    columns = -(-shape[1] // side)
    cells = (centres[:, 0] // side).astype(np.intp) * columns + (centres[:, 1] // side).astype(np.intp)
    filled, counts = np.unique(cells, return_counts=True)
    ranked = filled[np.lexsort((filled, -counts))]
    chosen = ranked[np.unique(np.linspace(0, ranked.size - 1, min(most, ranked.size)).astype(np.intp))]
    return [_at(shape, int(cell) // columns * side, int(cell) % columns * side, reduce) for cell in chosen]


def _reduction(shape: tuple[int, int], diameter: float | None) -> int:
    fits = max(1, math.ceil(max(shape) / SIDE))
    return min(fits, MOST) if diameter is None else max(1, min(int(diameter / NUCLEUS), fits, MOST))


def _at(shape: tuple[int, int], top: int, left: int, reduce: int) -> PictureWindow:
    side, enlarge = SIDE * reduce, max(1, SIDE // max(shape)) if reduce == 1 else 1
    return PictureWindow(
        slice(top, min(top + side, shape[0])), slice(left, min(left + side, shape[1])), reduce, enlarge
    )


def _start(
    shape: tuple[int, int], side: int, centres: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[int, int]:
    """Where a window begins; in the middle of the plane where nothing weighs anything."""
    room = [max(length - side, 0) for length in shape]
    if not any(room) or not weights.sum() > 0:
        return room[0] // 2, room[1] // 2
    step = side // STEPS
    cells = [length // step + 1 for length in shape]
    places = tuple(np.clip(centres[:, axis] // step, 0, cells[axis] - 1).astype(np.intp) for axis in range(2))
    counts = np.bincount(places[0] * cells[1] + places[1], weights, cells[0] * cells[1])
    sums = counts.astype(np.float64).reshape(cells)
    for axis in range(2):
        wide = min(STEPS, cells[axis])
        total = np.cumsum(np.insert(sums, 0, 0, axis=axis), axis=axis)
        sums = _moving(total, wide, axis)
    y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return min(int(y) * step, room[0]), min(int(x) * step, room[1])


def _moving(total: NDArray[np.float64], wide: int, axis: int) -> NDArray[np.float64]:
    """Sums over so many neighbours, from their cumulative sums."""
    ends, starts = [slice(None)] * 2, [slice(None)] * 2
    ends[axis], starts[axis] = slice(wide, None), slice(None, -wide)
    return total[tuple(ends)] - total[tuple(starts)]


def scale_bar(width: int, micrometres: float) -> tuple[float, float]:
    """Length of a scale bar in micrometres, 1, 2 or 5 times a power of ten, and in pixels of a picture.

    It is about a fifth as long as the picture is wide. micrometres: width of a pixel of the picture.
    """
    most = width * micrometres / 4
    power = 10.0 ** math.floor(math.log10(most))
    length = next(power * factor for factor in (5, 2, 1) if power * factor <= most * (1 + 1e-9))
    return length, length / micrometres
