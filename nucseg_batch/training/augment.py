"""Random crops that look like images from other microscopes.

One affine map does scale, rotation and flip at once, for image, labels and the nuclei's centres alike: the centre of
a nucleus that the crop cuts stays where it really is. Beyond its image a crop is mirrored and has no weight: nuclei
there are real to the eye, and calling them background would teach the network to miss nuclei at edges (it did).
Intensities are changed afterwards, in ways microscopes differ: gain, offset, gamma, noise, blur, colour, and dark
nuclei on bright ground instead of the reverse.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.training.data import Sample
from nucseg_batch.training.targets import training_target

SCALES = (0.6, 1.7)
"""Range of the random magnification."""
INVERTED = 0.15
"""Share of crops whose contrast is inverted."""


def training_crop(
    sample: Sample, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One augmented crop: image (size, size, 3) and target (size, size, 5)."""
    matrix, magnification = _random_affine(rng)
    centre = _random_centre(sample.labels.shape, size / magnification, rng)
    offset = centre - matrix @ np.full(2, (size - 1) / 2)
    labels = ndimage.affine_transform(
        sample.labels, matrix, offset, (size, size), order=0, mode="constant", cval=-1, output=np.int32
    )
    planes = [sample.image] if sample.image.ndim == 2 else list(np.moveaxis(sample.image, 2, 0))
    warped = [ndimage.affine_transform(p, matrix, offset, (size, size), order=1, mode="reflect") for p in planes]
    image = _change_intensities(np.stack(warped, axis=-1), rng)
    centres = (sample.centres - offset) @ np.linalg.inv(matrix).T
    return image, training_target(labels, centres, sample.areas * magnification**2)


def plain_crop(sample: Sample, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middle of an image without augmentation, mirrored where the image is smaller than the crop.

    Mirrored pixels have no weight in the target.
    """
    height, width = sample.labels.shape
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    rows, columns = slice(top, top + size), slice(left, left + size)
    image = sample.image if sample.image.ndim == 3 else np.repeat(sample.image[..., None], 3, axis=2)
    target = training_target(sample.labels, sample.centres, sample.areas)[rows, columns]
    image = image[rows, columns]
    missing = [(0, size - image.shape[0]), (0, size - image.shape[1]), (0, 0)]
    return np.pad(image, missing, mode="symmetric"), np.pad(target, missing)


def _random_affine(rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A matrix from crop to image coordinates, and how much larger things are in the crop than in the image."""
    magnification = math.exp(rng.uniform(*np.log(SCALES)))
    angle = rng.choice(4) * math.pi / 2
    if rng.random() < 0.5:
        angle += rng.uniform(-math.pi / 4, math.pi / 4)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.diag(np.exp(rng.normal(0, 0.06, 2)))
    flip = np.diag([1.0, rng.choice([-1.0, 1.0])])
    return rotation @ stretch @ flip / magnification, magnification


def _random_centre(shape: tuple[int, ...], side: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A place for the middle of the crop, such that the crop lies inside the image where the image is large enough."""
    middle = []
    for length in shape:
        margin = min(side / 2, length / 2)
        middle.append(rng.uniform(margin, length - margin))
    return np.array(middle) - 0.5


def _change_intensities(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """(size, size, 1 or 3) normalised pixels to (size, size, 3)."""
    if image.shape[2] == 3:
        if rng.random() < 0.3:
            image = image[..., rng.permutation(3)]
        if rng.random() < 0.5:
            image = image * rng.uniform(0.8, 1.2, 3).astype(np.float32)
        if rng.random() < 0.15:
            image = image.mean(axis=2, keepdims=True)
    if rng.random() < 0.15:
        sigma = rng.uniform(0.5, 1.5)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
    if rng.random() < INVERTED:
        image = 1.0 - np.minimum(image, 1.0)
    if rng.random() < 0.5:
        image = np.maximum(image, 0.0) ** np.float32(math.exp(rng.uniform(-0.5, 0.5)))
    image = image * np.float32(rng.uniform(0.7, 1.3)) + np.float32(rng.uniform(-0.1, 0.1))
    if rng.random() < 0.4:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + noise * np.float32(rng.uniform(0.01, 0.1))
    image = np.clip(image, 0.0, 2.0)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
