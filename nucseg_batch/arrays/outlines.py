"""Outlines of nuclei along the edges of pixels: polygons that cover exactly the pixels of their label.

Corners have whole numbers: the pixel in the first row and column is the square from (0, 0) to (1, 1). All outlines of a
mask are found together, as straight runs of edges in rows and in columns, which meet in corners; only to put the runs
of rows in order takes a loop.

Pixels of one label that touch at a corner only are different polygons, and a hole that touches the outside at a corner
is a hole. So no ring crosses or touches itself, and polygons are valid as GEOS, JTS and shapely define it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

Ring = NDArray[np.int64]
"""(n, 2): corners x, y of a closed line, the first not repeated. With y downwards an outer one is clockwise, so that
its area is positive; that of a hole is negative."""
Polygon = list[Ring]
"""An outer ring and, after it, its holes."""


@dataclass(frozen=True)
class _Runs:
    """Straight runs of edges, gone so that their piece is to the right, in the order of lines and places on them."""

    line: NDArray[np.int64]
    """The y of one in a row, the x of one in a column."""
    start: NDArray[np.int64]
    """Where on its line it begins."""
    stop: NDArray[np.int64]
    """Where it ends."""
    piece: NDArray[np.int32]
    """Whose edge it is."""

    def beginning_at(
        self, line: NDArray[np.int64], place: NDArray[np.int64], piece: NDArray[np.int32], length: int
    ) -> NDArray[np.int64]:
        """For each corner, given by its line and place, the run of this piece that begins there; -1 for none."""
        if not self.line.size:
            return np.full(line.size, -1, np.int64)
        keys, wanted = self.line * length + self.start, line * length + place
        found = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
        return np.where((keys[found] == wanted) & (self.piece[found] == piece), found, -1)


def trace(mask: NDArray[np.integer]) -> dict[int, list[Polygon]]:
    """The polygons of each label of a mask (height, width), 0 being background: one for each 4-connected piece.

    The area of a label's polygons is the number of its pixels.
    """
    pieces, count = connected(mask, background=0, return_num=True, connectivity=1)
    labels = np.zeros(count + 1, np.int64)
    labels[pieces.ravel()] = mask.ravel()
    polygons: list[Polygon] = [[] for _ in range(count + 1)]
    for piece, area, ring in _rings(pieces.astype(np.int32)):
        polygons[piece].insert(0 if area > 0 else len(polygons[piece]), ring)
    traced: dict[int, list[Polygon]] = {}
    for label, polygon in zip(labels[1:].tolist(), polygons[1:], strict=True):
        traced.setdefault(label, []).append(polygon)
    return traced


def ring_area(ring: Ring) -> int:
    """Pixels in a ring; negative for a hole."""
    x, y = ring[:, 0], ring[:, 1]
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2


def _rings(pieces: NDArray[np.int32]) -> list[tuple[int, int, Ring]]:
    """Piece, area and corners of each ring."""
    height, width = pieces.shape
    around = np.pad(pieces, 1)
    above, below = around[:-1, 1:-1], around[1:, 1:-1]
    left, right = around[1:-1, :-1].T, around[1:-1, 1:].T
    east, west = _runs(below, above, forward=True), _runs(above, below, forward=False)
    south, north = _runs(left, right, forward=True), _runs(right, left, forward=False)
    columns, rows = (south, north), (east, west)
    # Where a piece meets itself in a corner, two runs begin there. Turning left keeps what lies between as a hole.
    after_row = np.concatenate(
        [_next(east, columns, "backward", height + 1), _next(west, columns, "forward", height + 1)]
    )
    after_column = np.concatenate([_next(south, rows, "forward", width + 1), _next(north, rows, "backward", width + 1)])
    order, begins = _cycles(after_column[after_row])
    if not begins:
        return []
    line, start, stop, piece = (
        np.concatenate([getattr(run, name) for run in rows])[order] for name in ("line", "start", "stop", "piece")
    )
    corners = np.stack([np.stack([start, line], axis=1), np.stack([stop, line], axis=1)], axis=1).reshape(-1, 2)
    areas = np.add.reduceat(line * (start - stop), begins)
    rings = np.split(corners, [2 * begin for begin in begins[1:]])
    return list(zip(piece[begins].tolist(), areas.tolist(), rings, strict=True))


def _runs(inside: NDArray[np.int32], outside: NDArray[np.int32], *, forward: bool) -> _Runs:
    """The edges between two sides of a line, (lines, places) both, of the pieces that lie inside."""
    owner = np.where(inside != outside, inside, 0)
    changes = np.diff(owner, axis=1, prepend=0, append=0) != 0
    line, first = np.nonzero(changes[:, :-1] & (owner != 0))
    last = np.nonzero(changes[:, 1:] & (owner != 0))[1] + 1
    return _Runs(line, *((first, last) if forward else (last, first)), owner[line, first])


def _next(runs: _Runs, across: tuple[_Runs, _Runs], preferred: str, length: int) -> NDArray[np.int64]:
    """Which of the runs across, those forward counted first, begins where each of these ends.

    length: how many corners a line across has.
    """
    forward, backward = (other.beginning_at(runs.stop, runs.line, runs.piece, length) for other in across)
    backward = np.where(backward >= 0, backward + across[0].line.size, -1)
    first, second = (forward, backward) if preferred == "forward" else (backward, forward)
    return np.where(first >= 0, first, second)


def _cycles(after: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The numbers of a permutation in the order of its cycles, and where in it each cycle begins."""
    following, seen = after.tolist(), bytearray(after.size)
    order: list[int] = []
    begins: list[int] = []
    for number in range(after.size):
        if seen[number]:
            continue
        begins.append(len(order))
        while not seen[number]:
            seen[number] = 1
            order.append(number)
            number = following[number]
    return order, begins
