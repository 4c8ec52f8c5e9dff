"""Resampling of a window of a plane in narrow bands, so that its cost does not grow with the plane.

A place of the target needs only few pixels of the source near it. Along each axis the target is cut into bands of BAND
places on a grid fixed by the plane, and each band is a product of a small matrix with the few source rows it needs. The
sums of a band are the same in whichever window it is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.scale import resampling

BAND = 16
"""Places in a band; windows of a target begin at multiples of it."""


@dataclass(frozen=True)
class Bands:
    """How to resample one axis of a window, for `program.resampled`."""

    index: NDArray[np.int32]
    """(bands, reach): the source pixels of each band, counted from the beginning of the source's window."""
    weights: NDArray[np.float32]
    """(bands, BAND, reach): their weights in each place; 0 for those that only fill up."""


def needed(length: int, target: int, places: NDArray[np.integer]) -> slice:
    """The source pixels that `places` of the target need; lengths are those of the whole axis.

    Their number depends on that of the places alone, as far as the axis is long enough: few shapes are to be compiled.
    """
    ratio = length / target
    support = max(ratio, 1.0)
    count = math.ceil(places.size * ratio + 2 * support) + 3
    first = math.floor((float(places.min()) + 0.5) * ratio - 0.5 - support)
    start = max(0, min(first, length - count))
    return slice(start, min(length, start + count))


def bands(length: int, target: int, places: NDArray[np.integer], source: slice) -> Bands:
    """How to resample an axis of `length` pixels to `target` pixels, at some `places` of it.

    places: a multiple of BAND of them. source: the window of the axis that is at hand; it must hold what is `needed`
    for all places that are looked at.
    """
    ratio = length / target
    reach = math.ceil(BAND * ratio + 2 * max(ratio, 1.0)) + 2
    groups = places.reshape(-1, BAND)
    index = np.empty((len(groups), reach), np.int32)
    weights = np.zeros((len(groups), BAND, reach), np.float32)
    for group, at, weight in zip(groups, index, weights, strict=True):
        used, values = resampling(length, target, group)
        at[:] = np.arange(used.start, used.start + reach)
        weight[:, : values.shape[1]] = values
    index -= source.start
    return Bands(np.clip(index, 0, source.stop - source.start - 1), weights)
