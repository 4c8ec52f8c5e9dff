"""The flat field of a microscope, estimated from images that it took: how bright each place is shown, mean 1.

The model is `pixel = field(place) x (background of the image + nuclei)`, with a smooth field. Each image is reduced to
cells by the mean of the middle half of their values, which neither small nuclei nor rounding to whole numbers moves
much. The logarithm of the cells is then background + field, both fitted alternately: the background of an image as a
robust mean of its cells, the field as a penalised spline (Eilers and Marx, "Flexible smoothing with B-splines and
penalties", 1996) through robust means of the images, smoothed as much as generalised cross-validation says. Cells that
nuclei fill are outliers, to which Tukey's biweight gives no weight; images of which the background varies count less.

The published reference is BaSiC (Peng et al., "A BaSiC tool for background and shading correction of optical microscopy
images", 2017), with which docs/segment.md compares it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CELLS = 24
"""Cells along the longer side of an image."""
CELL_PIXELS = 2048
"""Pixels read from each cell, approximately."""
INTERVALS = 6
"""Polynomial pieces of the spline along each axis."""
ROUNDS = 12
"""Fits, each with weights from the one before."""
BIWEIGHT = 4.685
"""Residuals of so many standard deviations have no weight: 95 % efficiency with normal errors."""
SMOOTHING = tuple(10.0**power for power in np.arange(-6, 4.5, 0.5))
"""Penalties that are tried, relative to the weight of the data."""
RIDGE = 1e-9
"""The same for the size of the spline, where cells without weight leave gaps."""
BAND = 256
"""Rows that are computed together."""
LEAST_SPREAD = 1e-4
"""Residuals are not taken for more exact than this, relative to the background."""


def cell_values(plane: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the middle half of the values in each cell of a plane (h, w) of any real dtype: (rows, columns).

    Cells have about equal sides, CELLS along the longer side of the plane and at least one along the other.
    """
    count = [max(1, round(CELLS * side / max(plane.shape))) for side in plane.shape]
    rows, columns = (
        np.linspace(0, side, min(n, side) + 1).round().astype(int) for side, n in zip(plane.shape, count, strict=True)
    )
    step = max(1, round((plane.size / ((len(rows) - 1) * (len(columns) - 1)) / CELL_PIXELS) ** 0.5))
    found = np.empty((len(rows) - 1, len(columns) - 1))
    for y, (top, bottom) in enumerate(itertools.pairwise(rows)):
        for x, (left, right) in enumerate(itertools.pairwise(columns)):
            found[y, x] = _middle_mean(plane[top:bottom:step, left:right:step].ravel())
    return found


def estimate_flat_field(cells: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The flat field (h, w) = shape, float32 with mean 1, of images of one shape.

    cells: `cell_values` of each image, at least one. None where the background is too dark to say anything: no image
    has a cell above 0 at every place.
    """
    stacked = np.stack(cells)
    lit = stacked[(stacked > 0).all(axis=(1, 2)) & np.isfinite(stacked).all(axis=(1, 2))]
    if not lit.size:
        return None
    count, grid = len(lit), lit.shape[1:]
    logs = np.log(lit).reshape(count, -1)
    basis, penalty = _surface(grid)
    field = np.zeros(logs.shape[1])
    weights = np.ones_like(logs)
    for _ in range(ROUNDS):
        level = _weighted_median(logs - field, weights)
        coefficients = _fitted(logs - level[:, None], weights, basis, penalty)
        field = basis @ coefficients
        field -= field.mean()
        rest = logs - field
        rest -= _weighted_median(rest, weights)[:, None]
        spread = np.maximum(np.median(np.abs(rest), axis=1, keepdims=True) / 0.6745, LEAST_SPREAD)
        weights = np.square(np.clip(1 - np.square(rest / (BIWEIGHT * spread)), 0, None)) / np.square(spread)
    rows, columns = (
        _splines((np.arange(side) + 0.5) / side, _intervals(cells)) for side, cells in zip(shape, grid, strict=True)
    )
    across = coefficients.reshape(rows.shape[1], -1) @ columns.T
    whole = np.empty(shape, np.float32)
    for top in range(0, shape[0], BAND):  # a large plane takes no more than its field
        whole[top : top + BAND] = np.exp(rows[top : top + BAND] @ across)
    whole /= np.float32(whole.mean(dtype=np.float64))
    return whole


def _middle_mean(values: NDArray[Any]) -> float:
    """Mean of the values between the quartiles."""
    cut = values.size // 4
    part = np.partition(values, (cut, values.size - cut - 1)) if values.size > 4 else np.sort(values)
    return float(part[cut : values.size - cut].mean(dtype=np.float64))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row."""
    order = np.argsort(values, axis=1)
    below = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    place = (below < below[:, -1:] / 2).sum(axis=1)
    return np.take_along_axis(values, order, axis=1)[np.arange(len(values)), place]


def _intervals(cells: int) -> int:
    """Pieces of the spline along a side of so many cells."""
    return max(1, min(INTERVALS, cells // 4))


def _splines(places: NDArray[np.float64], intervals: int) -> NDArray[np.float64]:
    """Uniform cubic B-splines at places from 0 to 1: (places, intervals + 3)."""
    piece = np.clip((places * intervals).astype(np.int64), 0, intervals - 1)
    u = places * intervals - piece
    found = np.zeros((places.size, intervals + 3))
    weights = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)
    for number, weight in enumerate(weights):
        found[np.arange(places.size), piece + number] = weight / 6
    return found


def _surface(grid: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values of all products of splines at the middles of cells, (cells, splines), and what makes them rough."""
    rows, columns = (_splines((np.arange(cells) + 0.5) / cells, _intervals(cells)) for cells in grid)
    rough = [np.diff(np.eye(one.shape[1]), n=2, axis=0) for one in (rows, columns)]
    one, other = (difference.T @ difference for difference in rough)
    penalty = np.kron(one, np.eye(columns.shape[1])) + np.kron(np.eye(rows.shape[1]), other)
    return np.asarray(np.kron(rows, columns), np.float64), np.asarray(penalty, np.float64)


def _fitted(
    values: NDArray[np.float64], weights: NDArray[np.float64], basis: NDArray[np.float64], penalty: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Coefficients of the smooth surface through the weighted means over images of values (images, cells)."""
    halves = [_Normal(values[part::2], weights[part::2], basis) for part in (0, 1)]
    whole = _Normal(values, weights, basis)
    if len(values) < 2:
        return whole.solved(SMOOTHING[-1], penalty)
    misses = [
        sum(other.miss(basis @ one.solved(smoothing, penalty)) for one, other in (halves, halves[::-1]))
        for smoothing in SMOOTHING
    ]
    return whole.solved(SMOOTHING[int(np.argmin(misses))], penalty)


class _Normal:
    """The normal equations of some images."""

    def __init__(self, values: NDArray[np.float64], weights: NDArray[np.float64], basis: NDArray[np.float64]) -> None:
        self._weight = weights.sum(axis=0)
        self._mean = (weights * values).sum(axis=0) / np.where(self._weight > 0, self._weight, 1)
        self._weight /= self._weight.mean() or 1
        weighted = basis.T * self._weight
        self._left, self._right = weighted @ basis, weighted @ self._mean

    def solved(self, smoothing: float, penalty: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coefficients with this penalty, which is relative to the weight of the data."""
        size = np.trace(self._left)
        ridge = RIDGE * size / len(self._left) * np.eye(len(self._left))
        left = self._left + smoothing * size / np.trace(penalty) * penalty + ridge
        return np.asarray(np.linalg.solve(left, self._right))

    def miss(self, field: NDArray[np.float64]) -> float:
        """Mean squared difference from a field that other images gave, whatever its level."""
        rest = self._mean - field
        rest -= (self._weight * rest).mean()
        return float((self._weight * np.square(rest)).mean())
