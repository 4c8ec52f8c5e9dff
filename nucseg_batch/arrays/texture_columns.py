"""Textures of nuclei from co-occurrence of grey levels (Haralick et al. 1973), of all nuclei at once.

All sums are of integers, so that a nucleus has the same values wherever it lies and whatever is measured with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import channel_pixels, channel_suffix

LEVELS = 8
"""Grey levels, between the lowest and the highest value of each nucleus."""
TEXTURES = ("contrast", "dissimilarity", "homogeneity", "asm", "energy", "correlation")
"""What `texture_columns` returns for each channel."""
_ROW, _COLUMN = (axis.ravel() for axis in np.indices((LEVELS, LEVELS)))
_APART = np.abs(_ROW - _COLUMN)
_WEIGHTS = np.stack([np.ones_like(_ROW), _ROW, _ROW * _ROW, _ROW * _COLUMN, _APART, _APART * _APART], axis=1)


def texture_columns(groups: Groups, channels: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """`texture_contrast-<channel>` and so on, for each of TEXTURES and each channel: (n,) float64.

    channels: planes (height, width) of any real type by name. As `skimage.feature.graycoprops` of a symmetric matrix of
    LEVELS grey levels, scaled for each nucleus and channel, of pairs of its pixels at distance 1; averaged over
    those of four directions in which there are pairs. NaN without any pair, or with a pixel that is not finite. Raises
    ValueError where a plane is not as large as that of the labels.
    """
    levels = [_levels(groups, channel_pixels(groups, name, plane)) for name, plane in channels.items()]
    found = np.zeros((len(levels), len(TEXTURES), groups.ids.size))
    directions = np.zeros(groups.ids.size)
    for one, other, group in _pairs(groups):
        some = np.bincount(group, minlength=groups.ids.size) > 0
        for sums, level in zip(found, levels, strict=True):
            code = group * LEVELS**2 + (level[one] * LEVELS + level[other])
            counts = np.bincount(code, minlength=some.size * LEVELS**2).reshape(-1, LEVELS, LEVELS)
            sums += np.where(some, _properties(counts + counts.swapaxes(1, 2)), 0)
        directions += some
    found /= np.where(directions > 0, directions, np.nan)
    table: dict[str, NDArray[np.float64]] = {}
    for (channel, plane), sums in zip(channels.items(), found, strict=True):
        if plane.dtype.kind == "f":
            spoilt = groups.reduce(np.logical_or, ~np.isfinite(channel_pixels(groups, channel, plane))) > 0
            sums[:, spoilt] = np.nan
        table |= {
            f"texture_{name}{channel_suffix(channel)}": column for name, column in zip(TEXTURES, sums, strict=True)
        }
    return table


def _pairs(groups: Groups) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]]:
    """For each of four directions, pixels that have a neighbour of their group there, that neighbour, and the group.

    Pixels are numbered in the order of the groups.
    """
    height, width = groups.shape
    framed = np.full((height + 2) * (width + 2), -1, np.int32)  # the number of each pixel; a frame around
    y, x = np.divmod(groups.place, width or 1)
    place = (y + 1) * (width + 2) + x + 1
    framed[place] = np.arange(place.size)
    group = np.append(groups.spread(np.arange(groups.ids.size)), -1)  # that of number -1 is none
    for step in (1, width + 1, width + 2, width + 3):
        other = framed[place + step]
        one = np.flatnonzero(group[other] == group[:-1]).astype(np.int32)
        yield one, other[one], group[one]


def _levels(groups: Groups, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The grey level of each pixel of the groups."""
    values = pixels.astype(np.float64)
    low, high = groups.reduce(np.minimum, values), groups.reduce(np.maximum, values)
    with np.errstate(invalid="ignore"):  # of infinite values
        values -= groups.spread(low)
        values *= LEVELS
        values /= groups.spread(np.where(high > low, high - low, 1))
    return np.nan_to_num(values, copy=False).clip(0, LEVELS - 1).astype(np.uint8)


def _properties(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(TEXTURES, n) from symmetric matrices (n, LEVELS, LEVELS); of one without pairs, anything."""
    flat = counts.reshape(-1, LEVELS**2)
    pairs, total, squares, products, apart, contrast = (flat @ _WEIGHTS).T
    pairs = np.maximum(pairs, 1)
    homogeneity = (flat / (1 + _APART * _APART)).sum(axis=1)
    asm = (flat * flat).sum(axis=1) / pairs**2
    variance, covariance = squares * pairs - total**2, products * pairs - total**2
    correlation = np.divide(covariance, variance, out=np.ones(len(flat)), where=variance > 0)
    return np.stack([contrast / pairs, apart / pairs, homogeneity / pairs, asm, np.sqrt(asm), correlation])
