"""What is too large for one call: the network sees it in tiles, nuclei are separated over all of it, or over a window.

Tiles overlap by the network's reach, and what lies beyond a tile is read from the plane, so that the joined answer is
that of the whole plane, whichever part of it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry
from nucseg_batch.arrays.normalize import as_gain
from nucseg_batch.arrays.scale import mirrored, nearest, numbered
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.network.bands import BAND, bands, needed
from nucseg_batch.network.labelling import Separation
from nucseg_batch.network.program import Program
from nucseg_batch.plan import TILE

Read = Callable[[slice, slice], NDArray[Any]]
"""Gives a window of a plane, rows and columns of its own pixels: (h, w) or (h, w, 3)."""
Window = tuple[slice, slice]
"""Rows and columns."""


def heads(
    program: Program, pixels: NDArray[Any], limits: tuple[float, float], frame: ResampleGeometry, halo: int
) -> NDArray[np.float32]:
    """The network's answer over the padded scaled image, folded, computed in tiles of TILE pixels.

    limits: the values shown as 0 and 1. halo: the network's reach in pixels.
    """

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        return pixels[rows, columns]

    height, width = frame.bucket
    block = program.spec.block
    core = TILE - 2 * halo if max(height, width) > TILE else TILE
    joined: NDArray[np.float32] | None = None
    for top in range(0, height, core):
        for left in range(0, width, core):
            rows = slice(max(0, top - halo), min(height, top + core + halo))
            columns = slice(max(0, left - halo), min(width, left + core + halo))
            tile = tile_heads(program.run, program, read, limits, frame, (rows, columns))[0]
            if joined is None:
                joined = np.empty((height // block, width // block, tile.shape[-1]), np.float32)
            bottom, right = min(top + core, height), min(left + core, width)
            inner = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            joined[folded(slice(top, bottom), block), folded(slice(left, right), block)] = tile[
                folded(inner[0], block), folded(inner[1], block)
            ]
    assert joined is not None
    return joined


def folded(pixels: slice, block: int) -> slice:
    """The positions of a network that answer for these pixels, whole blocks of them."""
    return slice(pixels.start // block, pixels.stop // block)


def found(labelling: Separation, answer: NDArray[np.float32], frame: ResampleGeometry) -> SeparatedNuclei:
    """Labels and support on the image's own grid from the network's answer over the padded scaled image."""
    window = (slice(0, frame.bucket[0]), slice(0, frame.bucket[1]))
    grid = (slice(0, frame.native[0]), slice(0, frame.native[1]))
    one = window_labels(labelling, answer[None], frame, window, grid)
    return one if frame.is_native else one._replace(labels=numbered(one.labels))


def certainty(labelling: Separation, answer: NDArray[np.float32], frame: ResampleGeometry) -> float:
    """How certain the foreground of the network's answer over the padded scaled image is."""
    height, width = (np.array([length], np.int32) for length in frame.scaled)
    return labelling.certainty(answer[None], (height, width))


def tile_heads(
    call: Callable[..., Any],
    program: Program,
    read: Read,
    limits: tuple[float, float],
    frame: ResampleGeometry,
    window: Window,
) -> Any:
    """What the network answers when it sees just this window of the padded scaled plane.

    call: `Program.run` for an answer on the host, `Program.call` for one on the device. window: begins and ends at
    multiples of the network's stride and, where the plane is rescaled, of BAND. Returns `Program.heads` of one image,
    folded.
    """
    low, gain = as_gain([limits])
    seen = math.prod(part.stop - part.start for part in window)
    places = [mirrored(p, n)[s] for p, n, s in zip(frame.bucket, frame.scaled, window, strict=True)]
    if frame.is_native:
        tile = read(*(slice(int(p.min()), int(p.max()) + 1) for p in places))
        for axis, place in enumerate(places):
            if place[-1] - place[0] != len(place) - 1:
                tile = np.take(tile, place - place.min(), axis=axis)
        return call(program.heads, _batch_of_one(tile), low, gain, seen=seen)
    sides = list(zip(frame.native, frame.scaled, places, strict=True))
    sources = [needed(*side) for side in sides]
    rows, columns = (bands(*side, source) for side, source in zip(sides, sources, strict=True))
    along = ((rows.index, rows.weights), (columns.index, columns.weights))
    return call(program.heads_in_bands, _batch_of_one(read(*sources)), low, gain, *along, seen=seen)


def window_labels(
    labelling: Separation, answer: Any, frame: ResampleGeometry, window: Window, grid: Window
) -> SeparatedNuclei:
    """Labels of a part of the plane, where their roots are, and how far pixels support them.

    answer: the network's over a window of the padded scaled plane, of one image, folded. grid: the part of the
    plane, in its own pixels, that is labelled; the window must cover it. Where the plane is rescaled, the window begins
    at multiples of 16 and the grid at multiples of BAND. Nuclei are numbered 1..n in the raster order of their roots,
    (n, 2), which are given in pixels of the scaled plane; of a rescaled plane some labels may not occur.
    """
    height, width = (
        np.array([min(n - s.start, s.stop - s.start)], np.int32) for n, s in zip(frame.scaled, window, strict=True)
    )
    if frame.is_native:
        one = labelling.window(answer, (height, width), None)
        inner = tuple(slice(g.start - w.start, g.stop - w.start) for g, w in zip(grid, window, strict=True))
    else:
        sides = list(zip(frame.scaled, frame.native, window, grid, strict=True))
        (rows, near_rows), (columns, near_columns) = (_back(*side) for side in sides)
        one = labelling.window(answer, (height, width), (rows, columns, near_rows, near_columns))
        inner = tuple(slice(0, part.stop - part.start) for part in grid)
    return SeparatedNuclei(one.labels[inner], one.roots + [part.start for part in window], one.support[inner])


def _back(
    scaled: int, native: int, window: slice, grid: slice
) -> tuple[tuple[NDArray[np.int32], NDArray[np.float32]], NDArray[np.int32]]:
    """How one axis of a window returns to the plane's own grid: in bands, and the nearest places."""
    count = -(-(grid.stop - grid.start) // BAND) * BAND
    places = np.minimum(np.arange(grid.start, grid.start + count), native - 1)
    way = bands(scaled, native, places, window)
    near = np.clip(nearest(scaled, native, places) - window.start, 0, window.stop - window.start - 1)
    return (way.index, way.weights), near.astype(np.int32)


def _batch_of_one(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.reshape(1, *pixels.shape[:2], -1)
