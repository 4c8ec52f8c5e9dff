"""How large nuclei are, and how an image is rescaled so that they come out as the model knows them.

Resampling is a product with a matrix for each axis, which any device does well and which holds the whole rule: a
triangular filter as wide as the coarser of the two grids (linear interpolation when enlarging, a weighted area mean
when reducing), weights that stay inside the image, and what lies beyond its edge mirrored.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.arrays.kernels.arguments import as_labels

STEPS_PER_OCTAVE = 2
"""Estimated scales are powers of 2 ** (1 / STEPS_PER_OCTAVE), so that few shapes have to be compiled."""
MIN_SCALE, MAX_SCALE = 1 / 16, 4.0
"""Images are never rescaled further than this."""
MAX_ENLARGED_PIXELS = 64_000_000
"""Images are not enlarged beyond this many pixels."""


def nuclei_areas(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Area in pixels of every label 1..max of an image; absent labels have 0.

    Where all is one label, as in the plain mask of a semantic model, each connected piece of it counts.
    """
    from nucseg_batch.arrays.kernels import measuring as kernels

    runs, highest = kernels.find_runs(as_labels(labels))
    if highest == 1:
        runs, highest = kernels.find_runs(as_labels(ndimage.label(labels)[0]))
    return kernels.run_areas(runs, highest)


def typical_diameter(areas: NDArray[Any]) -> float | None:
    """Typical width of nuclei from their areas: the median diameter of equal area, each nucleus weighed by its own.

    The weight keeps specks of dirt from deciding. `areas` in pixels; areas of 0 are absent labels. None without any.
    """
    found = np.sort(np.sqrt(4 / math.pi * areas[areas > 0].astype(np.float64)))
    if not found.size:
        return None
    below = np.cumsum(found)
    return float(found[np.searchsorted(below, below[-1] / 2)])


def step_scale(scale: float) -> float:
    """The nearest power of 2 ** (1 / STEPS_PER_OCTAVE) between MIN_SCALE and MAX_SCALE."""
    scale = min(max(scale, MIN_SCALE), MAX_SCALE)
    return float(2.0 ** (round(math.log2(scale) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE))


def scaled_shape(height: int, width: int, scale: float) -> tuple[int, int]:
    """Shape of a rescaled image; enlarging stops at MAX_ENLARGED_PIXELS."""
    if scale > 1:
        scale = max(1.0, min(scale, math.sqrt(MAX_ENLARGED_PIXELS / (height * width))))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resampling(length: int, target: int, places: NDArray[np.integer]) -> tuple[slice, NDArray[np.float32]]:
    """How to resample an axis of `length` pixels to `target` pixels, for some `places` among those.

    Returns the range of source pixels that are needed, and the matrix (len(places), len(range)) of their weights.
    """
    source, weights = _taps(length, target, places)
    needed = slice(int(source.min()), int(source.max()) + 1)
    return needed, _spread(source - needed.start, weights, (len(places), needed.stop - needed.start))


@lru_cache(maxsize=16)
def padded_resampling(length: int, target: int, padded_length: int, padded_target: int) -> NDArray[np.float32]:
    """The matrix (padded_target, padded_length) that resamples a whole axis of `length` pixels to `target` pixels.

    Columns from `length` on are zero: what is there is never looked at. Rows from `target` on mirror those before.
    """
    matrix = _spread(*_taps(length, target, mirrored(padded_target, target)), (padded_target, padded_length))
    matrix.setflags(write=False)
    return matrix


def _taps(length: int, target: int, places: NDArray[np.integer]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Source pixels of each place and their weights, (len(places), taps) both; pixels beyond the axis weigh nothing."""
    ratio = length / target
    support = max(ratio, 1.0)
    centre = ((places + 0.5) * ratio - 0.5)[:, None]
    source = np.floor(centre - support).astype(np.intp) + 1 + np.arange(math.ceil(2 * support))
    weights = np.maximum(1.0 - np.abs(source - centre) / support, 0.0)
    weights[(source < 0) | (source >= length)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(source, 0, length - 1), weights.astype(np.float32)


def _spread(source: NDArray[np.intp], weights: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """A matrix of a shape with these weights at these columns of its rows, and zeros elsewhere."""
    matrix = np.zeros(shape, np.float32)
    np.add.at(matrix, (np.arange(len(source))[:, None], source), weights)  # at the ends of an axis columns repeat
    return matrix


def mirrored(padded: int, length: int) -> NDArray[np.intp]:
    """For each place of a padded axis the place that it shows: itself, then the axis mirrored again and again."""
    place = np.arange(padded) % (2 * length)
    return np.where(place < length, place, 2 * length - 1 - place)


def nearest(length: int, target: int, places: NDArray[np.integer]) -> NDArray[np.int32]:
    """For some `places` among `target` pixels the nearest pixel of the `length` pixels that cover the same axis."""
    return np.minimum(np.floor((places + 0.5) * length / target), length - 1).astype(np.int32)


@overload
def numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]: ...
@overload
def numbered(labels: NDArray[np.uint16]) -> NDArray[np.uint16]: ...
def numbered(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels (height, width) as 1..n without gaps, in their order: rescaling may lose the smallest.

    0 and below become 0. The result is uint16 where the labels are, else int32.
    """
    from nucseg_batch.arrays.kernels import measuring as kernels

    runs, highest = kernels.find_runs(as_labels(labels))
    kernels.number(runs, highest)
    found = np.zeros(labels.shape, np.uint16 if labels.dtype == np.uint16 else np.int32)
    kernels.draw(runs, found)
    return found
