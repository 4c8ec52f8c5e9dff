"""How an image was taken: how bright, how sharp, and how much of it is overexposed; as sums, to which parts add up.

A large plane is never there as a whole, so everything is kept as sums over its parts, of whole numbers where pixels are
whole numbers: these come out the same however the plane is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.arguments import as_pixels, is_whole

APART = 2
"""How far apart along x pixels are that are compared: direct neighbours are alike in any image."""
EVERY = 4
"""Only every so many-th row is compared, which says the same in a fourth of the time."""


@dataclass(frozen=True)
class Exposure:
    """Sums over a plane, or over a part of one."""

    pixels: int = 0
    """Pixels."""
    total: float = 0.0
    """Sum of their values."""
    top: float = -math.inf
    """The highest value."""
    at_top: int = 0
    """Pixels that have it."""
    compared: int = 0
    """Pixels that were compared with one that is APART to the right."""
    difference: float = 0.0
    """Sum of the squared differences."""
    rows: int = 0
    """Pixels of the rows that were compared."""
    row_total: float = 0.0
    """Sum of their values."""
    row_squares: float = 0.0
    """Sum of their squares."""

    @classmethod
    def of(
        cls,
        plane: NDArray[np.generic],
        width: int | None = None,
        *,
        top_row: int = 0,
        recorded: NDArray[Any] | None = None,
    ) -> Exposure:
        """The sums over the first `width` columns of a plane (h, w) of any real dtype; None for all.

        Columns after these only serve to be compared with. top_row: which row of the whole plane the first one is.
        recorded: the plane as the camera recorded it, (h, w), if it was corrected; the highest value is that of this.
        """
        from nucseg_batch.arrays.kernels import exposures as kernels

        given = as_pixels(plane)
        height, across = given.shape
        width = across if width is None else min(width, across)
        if not height or not width:
            return cls()
        sums = kernels.whole_sums if is_whole(given) else kernels.real_sums
        first = -top_row % EVERY
        total, row_total, row_squares, difference = sums(given, width, first, EVERY, APART).tolist()
        camera = given if recorded is None else as_pixels(recorded)
        top, at_top = (kernels.whole_top if is_whole(camera) else kernels.real_top)(camera, width)
        rows = len(range(first, height, EVERY))
        compared = rows * (min(width, across - APART) if across > APART else 0)
        return cls(
            height * width,
            float(total),
            top,
            at_top,
            compared,
            float(difference),
            rows * width,
            float(row_total),
            float(row_squares),
        )

    @classmethod
    def joined(cls, parts: Sequence[Exposure]) -> Exposure:
        """The sums over parts together."""
        top = max((part.top for part in parts), default=-math.inf)
        return cls(
            sum(part.pixels for part in parts),
            math.fsum(part.total for part in parts),
            top,
            sum(part.at_top for part in parts if part.top == top),
            sum(part.compared for part in parts),
            math.fsum(part.difference for part in parts),
            sum(part.rows for part in parts),
            math.fsum(part.row_total for part in parts),
            math.fsum(part.row_squares for part in parts),
        )

    def numbers(self) -> NDArray[np.float64]:
        """All sums as numbers, to be kept; exact to 2**53."""
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_numbers(cls, numbers: NDArray[np.float64]) -> Exposure:
        """What `numbers` was made from."""
        pixels, total, top, at_top, compared, difference, rows, row_total, row_squares = numbers.tolist()
        return cls(int(pixels), total, top, int(at_top), int(compared), difference, int(rows), row_total, row_squares)

    @property
    def saturated_fraction(self) -> float:
        """Share of the pixels that have the highest value: hardly any, unless that is where the camera ended."""
        return self.at_top / self.pixels if self.pixels else 0.0

    @property
    def sharpness(self) -> float | None:
        """How different pixels are that are APART, relative to how different any two are; None for a constant plane.

        One minus the autocorrelation at that distance, after Brenner's gradient (Brenner et al. 1976): near 0 out of
        focus, about 1 for noise. Only images of one kind can be compared.
        """
        if not self.compared or not self.rows:
            return None
        mean = self.row_total / self.rows
        variance = self.row_squares / self.rows - mean * mean
        if variance <= 1e-12 * max(mean * mean, 1e-300):
            return None
        return self.difference / self.compared / (2 * variance)
