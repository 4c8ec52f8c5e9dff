"""Where other nuclei are: how far the nearest, how many near, how much of the border touches one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups


def neighbour_columns(centroids: NDArray[np.float64], radius: float) -> dict[str, NDArray[Any]]:
    """`neighbour_distance` (n,) float64 and `neighbour_count` (n,) int64, from the centroids of all nuclei of a plane.

    centroids: (n, 2), rows and columns. neighbour_distance: to the nearest other centroid, as CellProfiler's
    FirstClosestDistance; NaN for a nucleus alone. neighbour_count: other centroids at most `radius` away.
    Both in the unit of the centroids. Of a plane measured in parts, this needs the table of the whole.
    """
    from scipy.spatial import KDTree  # few runs have these columns, and every command imports this file

    number = len(centroids)
    if number < 2:
        return {"neighbour_distance": np.full(number, np.nan), "neighbour_count": np.zeros(number, np.int64)}
    tree = KDTree(centroids)
    nearest = tree.query(centroids, k=2)[0][:, 1]
    near = tree.query_ball_point(centroids, radius, return_length=True)
    return {"neighbour_distance": nearest, "neighbour_count": near.astype(np.int64) - 1}


def touching_fraction(groups: Groups, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(n,): the share of each nucleus' border that is also the border of another nucleus.

    groups: those of `labels`, (height, width). The border is the sides of its pixels that adjoin another label or
    background; the end of the image is none. 0 for a nucleus without a border inside the image.
    """
    border, shared = np.zeros((2, groups.ids.size), np.int64)
    for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        unlike = one != other
        sides = one[unlike], other[unlike]
        both = (sides[0] > 0) & (sides[1] > 0)
        for side in sides:
            place = np.minimum(np.searchsorted(groups.ids, side), groups.ids.size - 1)
            known = (side > 0) & (groups.ids[place] == side) if groups.ids.size else np.zeros(side.shape, bool)
            border += np.bincount(place[known], minlength=groups.ids.size)
            shared += np.bincount(place[known & both], minlength=groups.ids.size)
    return shared / np.maximum(border, 1)
