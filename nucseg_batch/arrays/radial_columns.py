"""How intensity is distributed between the middle of nuclei and their edge, as CellProfiler's RadialDistribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.compartments import sweep
from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import channel_pixels, channel_suffix

BINS = 4
"""Zones between the middle and the edge, as CellProfiler's default."""
_FAR = 2**14
"""More than any distance to an edge: for nuclei that end only where the image does."""
_BAND = 2**15
"""Pixels of a band of rows, which stays in the processor's cache."""


def radial_columns(
    groups: Groups, labels: NDArray[np.integer], channels: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """The share of each nucleus' intensity in each of BINS zones, for each channel: (n,) float64.

    groups: those of `labels`, (height, width). Columns are `radial_distribution_frac_at_d_1of4-<channel>` and so on,
    from the middle to the edge; those of a nucleus sum to 1. As CellProfiler's RadialDistribution_FracAtD with scaled
    bins: the middle is the pixel furthest from the edge, the first of several in raster order. A pixel is in the zone
    floor(4 c / (c + e + 0.001)), where e is its distance to the nearest pixel that is not of its nucleus (beyond the
    image are none) and c its distance from the middle in steps to one of eight neighbours, diagonal ones of length
    sqrt(2). Steps may leave the nucleus here; CellProfiler walks around concave places. NaN where intensities sum to 0.
    Raises ValueError where a plane is not as large as that of the labels.
    """
    zone = _zones(groups, labels) + BINS * groups.spread(np.arange(groups.ids.size))
    table: dict[str, NDArray[np.float64]] = {}
    for channel, plane in channels.items():
        pixels = channel_pixels(groups, channel, plane)
        sums = np.bincount(zone, pixels, BINS * groups.ids.size).reshape(-1, BINS)
        total = sums.sum(axis=1, keepdims=True)
        shares = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total != 0)
        table |= {
            f"radial_distribution_frac_at_d_{i + 1}of{BINS}{channel_suffix(channel)}": shares[:, i] for i in range(BINS)
        }
    return table


def _zones(groups: Groups, labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The zone 0.. of each pixel of the groups."""
    square = squared_distance_to_edge(labels).ravel()[groups.place]
    _, y, x = groups.offsets()
    deepest = groups.spread(groups.reduce(np.maximum, square))
    (candidates,) = np.nonzero(square == deepest)
    first = candidates[np.searchsorted(candidates, groups.first[groups.present])]
    middle_y, middle_x = np.zeros((2, groups.ids.size), np.int64)
    middle_y[groups.present], middle_x[groups.present] = y[first], x[first]
    down, across = np.abs(y - groups.spread(middle_y)), np.abs(x - groups.spread(middle_x))
    from_middle = np.maximum(down, across) + (np.sqrt(2) - 1) * np.minimum(down, across)
    return (BINS * (from_middle / (from_middle + np.sqrt(square) + 0.001))).astype(np.int64)


def squared_distance_to_edge(labels: NDArray[np.integer]) -> NDArray[np.int32]:
    """For each pixel of a nucleus, the squared distance to the nearest pixel that is not of it; 0 for background.

    labels: (height, width), 0 and below are background. The end of the image is no edge; where a nucleus has no other,
    values are _FAR**2 or more.
    """
    height, width = labels.shape
    square = np.full((height, width + 2), 2 * _FAR**2, np.int32)  # with two columns that keep rows apart
    inside, above, beside = labels > 0, np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    for along, unlike in ((above, labels[1:] != labels[:-1]), (beside.T, (labels[:, 1:] != labels[:, :-1]).T)):
        along[1:] |= unlike
        along[:-1] |= unlike
    distance = np.where(inside, np.where(above, np.int32(1), np.int32(_FAR)), np.int32(0))
    sweep(distance, 1)
    np.multiply(distance, distance, out=square[:, 1:-1])
    least = np.where(beside, np.int32(1), np.int32(_FAR**2))
    rows = max(1, _BAND // (width + 2))
    for top in range(0, height, rows) if above.any() or beside.any() else ():
        _spread_along_rows(square[top : top + rows], least[top : top + rows])
    return square[:, 1:-1]


def _spread_along_rows(square: NDArray[np.int32], least: NDArray[np.int32]) -> None:
    """From squared distances along columns to those in the plane, in place; the outer columns stay as they are.

    least: 1 for pixels next to another nucleus or background in their row, and _FAR**2 for others. The squares 1, 4, 9
    are sums of 1, 3, 5: in step k each pixel compares with both neighbours, plus 2 k - 1. Nothing comes from beyond
    another nucleus, because the last pixel before it has 1, which is less.
    """
    pixels, apart = square[:, 1:-1], int(square[0, 0])
    flat = square.reshape(-1)
    for step in range(1, pixels.shape[1] + 1):
        further = np.minimum(flat[:-2], flat[2:])
        further += 2 * step - 1
        np.minimum(flat[1:-1], further, out=flat[1:-1])
        square[:, 0] = square[:, -1] = apart
        if step == 1:
            np.minimum(pixels, least, out=pixels)
        if (step + 1) ** 2 > pixels.max():
            break
