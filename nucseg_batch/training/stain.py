"""Random dyes: what laboratories stain tissue with differs more than any one collection of images shows.

Colours are changed where dyes act, in absorbance: -log of the light that passes (Beer and Lambert; Ruifrok and Johnston
2001 for the vectors of haematoxylin and eosin). Images are normalised, 0 to 1.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.arrays.kernels.views import blurred
from nucseg_batch.arrays.normalize import LUMA, apply_range, percentile_range

GLANDS = 0.6
"""Share of images of immunohistochemistry in which whole groups of cells are brown."""
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
"""How strongly the dye of nuclei absorbs red, green and blue."""
EOSIN = np.array([0.07, 0.99, 0.11], np.float32)
"""The same of the dye of all else."""
DIAMINOBENZIDINE = np.array([0.27, 0.57, 0.78], np.float32)
"""The same of the brown dye of immunohistochemistry."""


def change_colours(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A colour image (height, width, 3) as other dyes, another lamp or another camera might have shown it."""
    if rng.random() < 0.3:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.6:  # other dyes: another mixture of the channels' absorbances
        mixture = np.eye(3) + rng.normal(0, rng.uniform(0.05, 0.3), (3, 3))
        mixture /= np.maximum(mixture.sum(axis=1, keepdims=True), 0.3)
        strength = rng.uniform(0.6, 1.5, (3, 1))
        light = np.log(np.clip(image, 0.02, 1.0)) @ (strength * mixture.T).astype(np.float32)
        image = np.exp(np.minimum(light, 0.0))
    if rng.random() < 0.3:  # another lamp
        image = image * rng.uniform(0.75, 1.2, 3).astype(np.float32)
    if rng.random() < 0.35:  # paler, or more vivid
        grey = (image @ LUMA)[..., None]
        image = grey + (image - grey) * rng.uniform(0.1, 1.4)
    return np.clip(image, 0.0, None).astype(np.float32)


def immunostained(image: NDArray[Any], labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A colour image (size, size, 3) of tissue as immunohistochemistry shows it: blue nuclei, brown around some.

    labels: (size, size), -1 is not annotated. Brown is what eosin was, rings around some nuclei, or groups of cells.
    Nuclei are paler than with haematoxylin and eosin.
    """
    absorbance = -np.log(np.clip(image, 0.02, 1.0))
    dyes = np.stack([HAEMATOXYLIN, EOSIN])
    blue, pink = np.moveaxis(np.maximum(absorbance @ np.linalg.pinv(dyes).astype(np.float32), 0.0), -1, 0)
    ids = np.maximum(labels, 0)
    chosen = rng.random(int(ids.max()) + 1) < rng.uniform(0.0, 1.0)
    chosen[0] = False
    around = blurred(chosen[ids], rng.uniform(2.0, 7.0)) * (ids == 0)
    brown = around * rng.uniform(0.0, 2.5) + pink * rng.uniform(0.0, 1.2)
    grain = blurred(rng.standard_normal(labels.shape, dtype=np.float32), rng.uniform(0.7, 4.0))
    if rng.random() < GLANDS:
        glands, pale = _glands(ids, rng)
        brown, blue = brown * rng.uniform(0.0, 1.0) + glands, blue * pale
    brown = brown * np.exp(grain / grain.std() * rng.uniform(0.0, 0.5))
    mixed = (
        blue[..., None] * rng.uniform(0.4, 1.1) * _dye(HAEMATOXYLIN, rng)
        + brown[..., None] * _dye(DIAMINOBENZIDINE, rng)
        + pink[..., None] * rng.uniform(0.0, 0.3) * _dye(EOSIN, rng)
    )
    return np.exp(-np.maximum(mixed, 0.0)).astype(np.float32)


def _glands(ids: NDArray[np.int32], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Regions of many cells whose cytoplasm and membranes are brown: how brown each pixel is, and how pale its nuclei.

    Membranes lie where two nuclei, of ids from 1 on, are equally far.
    """
    noise = blurred(rng.standard_normal(ids.shape, dtype=np.float32), rng.uniform(10.0, 45.0))
    inside = (noise > np.quantile(noise, rng.uniform(0.2, 0.8))).astype(np.float32)
    inside = blurred(inside, rng.uniform(0.7, 2.0))
    cell = ids
    if ids.any():
        rows, columns = ndimage.distance_transform_edt(ids == 0, return_distances=False, return_indices=True)
        cell = ids[rows, columns]
    walls = ndimage.maximum_filter(cell, 3) != ndimage.minimum_filter(cell, 3)
    lines = blurred(walls, rng.uniform(0.7, 2.0))
    nucleus = blurred(ids > 0, 0.7) * rng.uniform(0.6, 1.0)
    brown = inside * (1 - nucleus) * (rng.uniform(0.2, 1.2) + lines * rng.uniform(0.0, 2.0))
    return brown, 1 - inside * rng.uniform(0.0, 0.6)


def stained(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """A grey image (size, size, 1) with bright nuclei as stained tissue: (size, size, 3), nuclei dark."""
    size = image.shape[0]
    nuclei = np.clip(image, 0.0, 1.0) * rng.uniform(0.6, 1.8)
    return _lit(nuclei * _dye(HAEMATOXYLIN, rng) + _tissue(size, rng), rng)


def empty_tissue(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Stained tissue without a nucleus, (size, size, 3)."""
    return _lit(_tissue(size, rng), rng)


def smooth_field(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A slowly varying field of mean 0 and deviation 1, (size, size, 1): light that is not even."""
    along = _enlarging(size)
    field = along @ rng.standard_normal((4, 4)) @ along.T
    return ((field - field.mean()) / field.std())[..., None].astype(np.float32)


@functools.lru_cache(maxsize=8)
def _enlarging(size: int) -> NDArray[np.float64]:
    """(size, 4): how four values along an axis become `size` by cubic splines."""
    weights: NDArray[np.float64] = ndimage.zoom(np.eye(4), (size / 4, 1), order=3, mode="nearest", grid_mode=True)
    weights.setflags(write=False)
    return weights


def _tissue(size: int, rng: np.random.Generator) -> NDArray[Any]:
    """Absorbance of what lies around nuclei, (size, size, 3): ground at several grains, at times with red cells."""
    ground = smooth_field(size, rng)[..., 0] * rng.uniform(0.0, 1.0)
    for sigma in (1.0, 3.0, 9.0):
        grain = blurred(rng.standard_normal((size, size), dtype=np.float32), sigma)
        ground = ground + grain / grain.std() * rng.uniform(0.0, 0.6)
    absorbance = np.maximum(ground * 0.15 + rng.uniform(0.05, 0.5), 0.0)[..., None] * _dye(EOSIN, rng)
    if rng.random() < 0.3:
        cells = blurred(rng.standard_normal((size, size), dtype=np.float32), rng.uniform(3.0, 7.0))
        edge = np.quantile(cells, rng.uniform(0.8, 0.97))
        density = blurred(cells > edge, 0.8) * rng.uniform(0.2, 0.8)
        absorbance = absorbance + density[..., None] * _dye(EOSIN, rng)
    return absorbance


def _dye(vector: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A dye much like the given one."""
    other = np.abs(vector + rng.normal(0, 0.15, 3))
    return (other / np.linalg.norm(other)).astype(np.float32)


def _lit(absorbance: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """What passes of a lamp's light, normalised as images are."""
    light = np.exp(-absorbance) * rng.uniform(0.8, 1.0, 3).astype(np.float32)
    return apply_range(light, *percentile_range(light))
