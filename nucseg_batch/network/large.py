"""An image too large for one call: the network sees it in tiles, nuclei are separated over all of it.

Tiles lie on a grid fixed by the image and overlap by the network's reach, so that the joined answer is that of the
whole image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.scale import mirrored, nearest, numbered, resampling
from nucseg_batch.network.geometry import Frame
from nucseg_batch.network.program import Program
from nucseg_batch.plan import TILE


def heads(
    program: Program, pixels: NDArray[Any], limits: tuple[float, float], frame: Frame, halo: int
) -> NDArray[np.float32]:
    """The network's answer over the padded scaled image, (*frame.bucket, outputs), computed in tiles of TILE pixels.

    limits: the values shown as 0 and 1. halo: the network's reach in pixels.
    """
    height, width = frame.bucket
    core = TILE - 2 * halo if max(height, width) > TILE else TILE
    joined: NDArray[np.float32] | None = None
    for top in range(0, height, core):
        for left in range(0, width, core):
            rows = slice(max(0, top - halo), min(height, top + core + halo))
            columns = slice(max(0, left - halo), min(width, left + core + halo))
            tile = _tile_heads(program, pixels, limits, frame, rows, columns)
            if joined is None:
                joined = np.empty((height, width, tile.shape[-1]), np.float32)
            bottom, right = min(top + core, height), min(left + core, width)
            inner = tile[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
            joined[top:bottom, left:right] = inner
    assert joined is not None
    return joined


def labels(program: Program, answer: NDArray[np.float32], frame: Frame) -> NDArray[np.int32]:
    """Labels on the image's own grid from the network's answer over the padded scaled image."""
    real = tuple(np.array([length], np.int32) for length in frame.scaled)
    found = program.run(program.separate, answer[None], *real)
    height, width = frame.native
    if frame.is_native:
        return found[0, :height, :width]
    native = np.empty(frame.native, np.int32)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            places = (np.arange(top, min(top + TILE, height)), np.arange(left, min(left + TILE, width)))
            sides = list(zip(frame.scaled, frame.native, places, strict=True))
            (some_rows, rows), (some_columns, columns) = (_framed(*resampling(*side), side[0]) for side in sides)
            near_rows, near_columns = (nearest(*side) for side in sides)
            part = program.run(
                program.native,
                found[:, some_rows, some_columns],
                answer[None, some_rows, some_columns, 0],
                rows,
                columns,
                near_rows - np.int32(some_rows.start),
                near_columns - np.int32(some_columns.start),
            )
            native[np.ix_(*places)] = part[0]
    return numbered(native)


def certainty(program: Program, answer: NDArray[np.float32], frame: Frame) -> float:
    """How certain the foreground of the network's answer over the padded scaled image is."""
    real = tuple(np.array([length], np.int32) for length in frame.scaled)
    return float(program.run(program.certainty, answer[None], *real)[0])


def _tile_heads(
    program: Program, pixels: NDArray[Any], limits: tuple[float, float], frame: Frame, rows: slice, columns: slice
) -> NDArray[np.float32]:
    low, high = (np.array([value], np.float32) for value in limits)
    places = [mirrored(p, n)[s] for p, n, s in zip(frame.bucket, frame.scaled, (rows, columns), strict=True)]
    if frame.is_native:
        return program.run(program.heads, _batch_of_one(pixels[np.ix_(*places)]), low, high)[0]
    sides = zip(frame.native, frame.scaled, places, strict=True)
    (some_rows, row_weights), (some_columns, column_weights) = (resampling(*side) for side in sides)
    tile = _batch_of_one(pixels[some_rows, some_columns])
    return program.run(program.heads_rescaled, tile, low, high, row_weights, column_weights)[0]


def _batch_of_one(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.reshape(1, *pixels.shape[:2], -1)


def _framed(source: slice, weights: NDArray[np.float32], length: int) -> tuple[slice, NDArray[np.float32]]:
    """The same resampling with one more pixel to either side, so that a pixel's neighbours are seen as well."""
    wider = slice(max(0, source.start - 1), min(length, source.stop + 1))
    return wider, np.pad(weights, [(0, 0), (source.start - wider.start, wider.stop - source.stop)])
