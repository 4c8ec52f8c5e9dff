"""The assignment of points to points with the least squared distances, by laptrack.

Points that are farther apart than a pair may be are never compared, and groups of points without such a pair between
them are solved apart: the result is the same, and the time grows with the number of points and not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
May = Callable[[Ints, Ints], NDArray[np.bool_]]
AT_ONCE = 200
"""Points that laptrack compares with each other at once, unless more hang together."""
ALONE = 1.05
"""Cost of a point that is left alone, as a multiple of the highest cost of a pair (Jaqaman et al. 2008)."""


def assigned(first: Floats, second: Floats, reach: float, may: May | None = None) -> list[tuple[int, int]]:
    """Pairs of points, as their places in both; each point is in one at most, and as few as possible are left alone.

    first, second: (n, k) and (m, k). reach: largest distance of a pair. may: tells which pairs, given as places in
    first and in second, are allowed; all without it.
    """
    from scipy.spatial import KDTree  # only tracks need it, and every command imports this file

    near = KDTree(first).sparse_distance_matrix(KDTree(second), reach, output_type="ndarray")
    row, column = near["i"].astype(np.int64), near["j"].astype(np.int64)
    if may is not None:
        allowed = may(row, column)
        row, column = row[allowed], column[allowed]
    alone = (np.bincount(row, minlength=1)[row] == 1) & (np.bincount(column, minlength=1)[column] == 1)
    found = list(zip(row[alone].tolist(), column[alone].tolist(), strict=True))
    for part in _parts(row[~alone], column[~alone], len(first)):
        found += _by_laptrack(first, second, row[~alone][part], column[~alone][part], reach**2, limited=may is not None)
    return sorted(found)


def _parts(row: Ints, column: Ints, rows: int) -> Iterator[Ints]:
    """Places of pairs that are solved at once: all of those that hang together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not row.size:
        return
    size = rows + int(column.max()) + 1
    graph = coo_array((np.ones(row.size), (row, rows + column)), shape=(size, size))
    group = connected_components(graph, directed=False)[1]
    points = np.cumsum(np.bincount(group[np.unique(np.concatenate([row, rows + column]))], minlength=group.max() + 1))
    part = (points // AT_ONCE)[group[row]]
    for number in np.unique(part).tolist():
        yield np.flatnonzero(part == number)


def _by_laptrack(
    first: Floats, second: Floats, row: Ints, column: Ints, highest: float, *, limited: bool
) -> list[tuple[int, int]]:
    """The assignment of the points of some pairs; limited: no other pairs of these points are allowed."""
    from laptrack import LapTrack

    (rows, i), (columns, j) = (np.unique(one, return_inverse=True) for one in (row, column))
    points = first[rows], second[columns]
    metric: str | Callable[[Floats, Floats], float] = "sqeuclidean"
    if limited:
        costs = np.full((rows.size, columns.size), math.inf)
        costs[i, j] = ((points[0][i] - points[1][j]) ** 2).sum(axis=1)
        points = np.arange(rows.size, dtype=np.float64)[:, None], np.arange(columns.size, dtype=np.float64)[:, None]

        def metric(one: Floats, other: Floats) -> float:
            return float(costs[int(one[0]), int(other[0])])

    tracker = LapTrack(
        metric=metric,
        cutoff=math.nextafter(highest, math.inf),
        gap_closing_cutoff=False,
        track_start_cost=ALONE * highest,
        track_end_cost=ALONE * highest,
    )
    return [(int(rows[a]), int(columns[b])) for (_, a), (_, b) in tracker.predict(list(points)).edges()]
