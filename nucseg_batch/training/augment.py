"""Random crops that look like images from other microscopes.

One affine map does scale, rotation and flip at once, for image, labels and the nuclei's centres alike: the centre of
a nucleus that the crop cuts stays where it really is. Beyond its image a crop is mirrored and has no weight: nuclei
there are real to the eye, and calling them background would teach the network to miss nuclei at edges (it did).
Nuclei are brought to the model's nominal diameter first, as they are when it is used; the random magnification then
covers what an estimate of their size may be wrong by. Intensities are changed last, in `intensity.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.training.data import Sample
from nucseg_batch.training.intensity import blank_field, change_intensities
from nucseg_batch.training.targets import CHANNELS, training_target

SPREAD = 0.3
"""Standard deviation of the logarithm of most crops' magnification."""
WIDE_SHARE = 0.3
"""Share of crops whose magnification is drawn evenly from all of SCALES instead."""
SCALES = (0.4, 2.5)
"""Range of the random magnification."""
MAX_ZOOM = 6.0
"""Images are magnified at most so many times, however small their nuclei."""
MIN_COVER = 0.55
"""Images are not made so small that they fill less of a crop's side than this."""
BLANK_SHARE = 0.03
"""Share of crops without a nucleus: simulated empty fields."""


def training_crop(
    sample: Sample, size: int, diameter: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One augmented crop: image (size, size, 3) and target (size, size, CHANNELS).

    `diameter` is that to which nuclei are brought, in pixels, before the random magnification.
    """
    if rng.random() < BLANK_SHARE:
        return blank_field(size, rng), empty_target(size)
    least = MIN_COVER * size / max(sample.labels.shape)
    matrix, magnification = _random_affine(diameter / sample.diameter, least, rng)
    centre = _random_centre(sample.labels.shape, size / magnification, rng)
    offset = centre - matrix @ np.full(2, (size - 1) / 2)
    image, target = _cut(sample, matrix, offset, size, magnification)
    return change_intensities(image, rng), target


def empty_target(size: int) -> NDArray[np.float32]:
    """The target of a crop without nuclei, (size, size, CHANNELS)."""
    target = np.zeros((size, size, CHANNELS), np.float32)
    target[..., 1] = 1.0
    return target


def plain_crop(sample: Sample, size: int, diameter: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middle of an image with nuclei brought to `diameter` pixels and nothing else changed.

    Mirrored beyond the image where that is smaller; mirrored pixels have no weight in the target.
    """
    magnification = min(diameter / sample.diameter, MAX_ZOOM)
    matrix = np.eye(2) / magnification
    offset = (np.array(sample.labels.shape) - 1) / 2 - matrix @ np.full(2, (size - 1) / 2)
    image, target = _cut(sample, matrix, offset, size, magnification)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image, target


def _cut(
    sample: Sample, matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, magnification: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What an affine map from crop to image coordinates shows: (size, size, 1 or 3) and (size, size, CHANNELS)."""
    labels = ndimage.affine_transform(
        sample.labels, matrix, offset, (size, size), order=0, mode="constant", cval=-1, output=np.int32
    )
    planes = [sample.image] if sample.image.ndim == 2 else list(np.moveaxis(sample.image, 2, 0))
    warped = [_warped(plane, matrix, offset, size, magnification) for plane in planes]
    centres = (sample.centres - offset) @ np.linalg.inv(matrix).T
    return np.stack(warped, axis=-1), training_target(labels, centres, sample.areas * magnification**2)


def _warped(
    plane: NDArray[np.float32], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, zoom: float
) -> NDArray[np.float32]:
    """One channel of the crop; where it is made smaller it is blurred first, as an area average would."""
    if zoom < 0.8:
        corners = np.array([[0, 0], [0, size], [size, 0], [size, size]]) @ matrix.T + offset
        margin = 4
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - margin, 0, None)
        high = np.ceil(corners.max(axis=0)).astype(int) + margin
        window = plane[low[0] : high[0], low[1] : high[1]]
        if min(window.shape) > margin:
            plane, offset = ndimage.gaussian_filter(window, 0.4 / zoom), offset - low
    return ndimage.affine_transform(plane, matrix, offset, (size, size), order=1, mode="reflect")


def _random_affine(zoom: float, least: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A matrix from crop to image coordinates, and how much larger things are in the crop than in the image."""
    if rng.random() < WIDE_SHARE:
        random = math.exp(rng.uniform(*np.log(SCALES)))
    else:
        random = float(np.clip(math.exp(rng.normal(0, SPREAD)), *SCALES))
    magnification = min(max(zoom * random, least), MAX_ZOOM)
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
