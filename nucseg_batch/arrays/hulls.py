"""Convex hulls of all nuclei at once, on the grid of pixels, as `skimage.morphology.convex_hull_image` has them.

A pixel stands for the middles of its four sides. Their hull is cut at each row of pixels, and the pixels whose centres
lie in it or on its border are counted; each row has one, because the hull is at least a pixel wide. Coordinates are
doubled, so that all are integers and the counts are exact. Each nucleus is two chains of points, its left side and,
mirrored, its right side. All chains are hulled together: a step finds the next edge of every chain, so that there are
as many steps as the hull with most edges has on one side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups

_FAR = 2**40
"""The end of a row without pixels: no hull reaches there."""


class Hulls(NamedTuple):
    """Measures of the convex hull of each label."""

    area: NDArray[np.int64]
    """(n,): its pixels, as `area_convex`; 0 for a label without pixels."""
    diameter: NDArray[np.float64]
    """(n,): the largest distance between middles of sides of its pixels, as `feret_diameter_max`; 0 without pixels."""


def hulls(groups: Groups) -> Hulls:
    """The hulls of all labels of a plane, whose order is that of `groups.ids`."""
    area, diameter = np.zeros(groups.ids.size, np.int64), np.zeros(groups.ids.size)
    if groups.present.size:
        height, ends = _ends(groups)
        rows = ends.size // 2
        chain = np.repeat(np.arange(2 * height.size), np.tile(height, 2))
        ends = _first_inside(_points(ends, chain), chain)
        inside = 1 - ends[:rows] - ends[rows:]
        area[groups.present] = np.add.reduceat(inside, np.cumsum(height) - height)
        diameter[groups.present] = _diameters(_points(ends, chain), chain, height.size)
    return Hulls(area, diameter)


def _ends(groups: Groups) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows from the first to the last of each label with pixels, (n,), and where each row begins, (2 rows,).

    First those of all labels, then those of all mirrored labels: their last columns, with the sign changed.
    """
    group, y, x, length = groups.runs()
    first = np.flatnonzero(np.diff(group, prepend=-1))
    top, bottom = y[first], y[np.append(first[1:], group.size) - 1]
    height = bottom - top + 1
    rows = int(height.sum())
    place = np.cumsum(np.diff(group, prepend=-1) > 0) - 1  # of the label among those with pixels
    row = (np.cumsum(height) - height - top)[place] + y
    ends = np.full(2 * rows, _FAR)
    ends[row[::-1]] = x[::-1]  # of runs in one row the first is kept
    ends[rows + row] = 1 - x - length
    return height, ends


def _points(ends: NDArray[np.int64], chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far left each chain is, in half pixels: a point for each row of pixels, and one before, between and after."""
    middle = _middles(chain)
    points = np.full(2 * chain.size + chain[-1] + 1, 2 * _FAR)
    points[middle - 1] = 2 * ends
    points[middle] = 2 * ends - 1
    points[middle + 1] = np.minimum(points[middle + 1], 2 * ends)
    return points


def _middles(chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the point of each row is: a chain has one more than twice as many points as rows."""
    return 2 * np.arange(chain.size) + 1 + chain


def _edges(points: NDArray[np.int64], chain: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each point, the first and the last point of the edge of the hull beside it."""
    start, end = np.arange(points.size), np.arange(points.size)
    owner = _owners(chain, points.size)
    corner = np.flatnonzero(np.diff(owner, prepend=-1))
    rest = np.delete(start, corner)
    while rest.size:
        of = owner[rest]
        first = np.flatnonzero(np.diff(of, prepend=-1))
        count = np.diff(first, append=rest.size)
        # Quotients of integers so small are equal as floats only where they are equal.
        slope = (points[rest] - points[corner[of]]) / (rest - corner[of])
        steepest = np.repeat(np.minimum.reduceat(slope, first), count)
        following = np.maximum.reduceat(np.where(slope == steepest, rest, -1), first)
        reached = np.repeat(following, count)
        covered = rest <= reached
        start[rest[covered]], end[rest[covered]] = corner[of[covered]], reached[covered]
        corner[of[first]] = following
        rest = rest[~covered]
    return start, end


def _owners(chain: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    """The chain of each point."""
    owner = np.zeros(points, np.int64)
    owner[1 + _middles(chain)] = owner[_middles(chain)] = owner[_middles(chain) - 1] = chain
    return owner


def _first_inside(points: NDArray[np.int64], chain: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row of each chain, the first column whose centre lies in the hull or on its border."""
    start, end = _edges(points, chain)
    middle = _middles(chain)
    start, end = start[middle], end[middle]
    length = end - start
    border = points[start] * length + (points[end] - points[start]) * (middle - start)
    return -(-border // (2 * length))


def _diameters(points: NDArray[np.int64], chain: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """The largest distance between two points of each label, whose two chains are `number` apart."""
    start, end = _edges(points, chain)
    corner = np.unique(np.concatenate([start, end]))  # only corners of the hull can be furthest apart
    owner = _owners(chain, points.size)
    label, right = owner[corner] % number, owner[corner] >= number
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    down, across = corner - first[owner[corner]], np.where(right, -points[corner], points[corner])
    order = np.argsort(label, kind="stable")
    label, down, across = label[order], down[order], across[order]
    furthest = np.zeros(label.size, np.int64)
    for apart in range(1, int(np.bincount(label).max())):
        both = label[apart:] == label[:-apart]
        square = (down[apart:] - down[:-apart]) ** 2 + (across[apart:] - across[:-apart]) ** 2
        np.maximum(furthest[apart:], square * both, out=furthest[apart:])
    return np.sqrt(np.maximum.reduceat(furthest, np.flatnonzero(np.diff(label, prepend=-1)))) / 2
