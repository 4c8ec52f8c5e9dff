"""Random crops that look like images from other microscopes.

One affine map does scale, rotation and flip at once, for image, labels and the nuclei's centres alike: the centre of
a nucleus that the crop cuts stays where it really is. Beyond its image a crop is mirrored and has no weight: nuclei
there are real to the eye, and calling them background would teach the network to miss nuclei at edges (it did).
Nuclei are brought to the model's nominal diameter first, as they are when it is used; the random magnification then
covers what an estimate of their size may be wrong by. Intensities are changed last, in `intensity.py`
and `stain.py`. A crop is handed over as integers; `on_device.py` makes image and target of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.training.data import Sample
from nucseg_batch.training.empty import blank_field
from nucseg_batch.training.intensity import change_intensities, in_steps
from nucseg_batch.training.paste import pasted
from nucseg_batch.training.targets import CompactTarget, compact_target
from nucseg_batch.training.warp import CropView, view_of

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
BLANK_SHARE = 0.06
"""Share of crops without a nucleus: simulated empty fields."""
PASTED_SHARE = 0.15
"""Share of crops into which nuclei from elsewhere in their image are pasted, so that more touch."""


def training_crop(
    sample: Sample, size: int, diameter: float, rng: np.random.Generator
) -> tuple[NDArray[np.int16], CompactTarget]:
    """One augmented crop, as it is handed over: image (size, size, 3), see `in_steps`, and target.

    `diameter` is that to which nuclei are brought, in pixels, before the random magnification.
    """
    if rng.random() < BLANK_SHARE:
        return in_steps(blank_field(size, rng, sample.intensities)), empty_target(size)
    least = MIN_COVER * size / max(sample.labels.shape)
    matrix, magnification = _random_affine(diameter / sample.diameter, least, rng)
    centre = _random_centre(sample.labels.shape, size / magnification, rng)
    view = view_of(sample, matrix, centre - matrix @ np.full(2, (size - 1) / 2), size, magnification)
    if rng.random() < PASTED_SHARE:
        view = pasted(view, _another_view(sample, size, magnification, rng), rng)
    return in_steps(change_intensities(view, rng)), view.target


def empty_target(size: int) -> CompactTarget:
    """The target of a crop (size, size) without nuclei."""
    return compact_target(np.zeros((size, size), np.int32), np.zeros((1, 2)), np.zeros(1))


def plain_crop(sample: Sample, size: int, diameter: float) -> tuple[NDArray[np.int16], CompactTarget]:
    """The middle of an image with nuclei brought to `diameter` pixels and nothing else changed, as it is handed over.

    Mirrored beyond the image where that is smaller; mirrored pixels have no weight in the target.
    """
    magnification = min(diameter / sample.diameter, MAX_ZOOM)
    matrix = np.eye(2) / magnification
    offset = (np.array(sample.labels.shape) - 1) / 2 - matrix @ np.full(2, (size - 1) / 2)
    view = view_of(sample, matrix, offset, size, magnification)
    return in_steps(view.image), view.target


def _another_view(sample: Sample, size: int, magnification: float, rng: np.random.Generator) -> CropView:
    """Another place of the image, turned and mirrored at random, at the same magnification."""
    matrix = turned(rng) / magnification
    centre = _random_centre(sample.labels.shape, size / magnification, rng)
    return view_of(sample, matrix, centre - matrix @ np.full(2, (size - 1) / 2), size, magnification)


def _random_affine(zoom: float, least: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """A matrix from crop to image coordinates, and how much larger things are in the crop than in the image."""
    if rng.random() < WIDE_SHARE:
        random = math.exp(rng.uniform(*np.log(SCALES)))
    else:
        random = float(np.clip(math.exp(rng.normal(0, SPREAD)), *SCALES))
    magnification = min(max(zoom * random, least), MAX_ZOOM)
    return turned(rng) / magnification, magnification


def turned(rng: np.random.Generator) -> NDArray[np.float64]:
    """A turn, a slight stretch and a flip."""
    angle = rng.choice(4) * math.pi / 2
    if rng.random() < 0.5:
        angle += rng.uniform(-math.pi / 4, math.pi / 4)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = np.diag(np.exp(rng.normal(0, 0.06, 2)))
    flip = np.diag([1.0, rng.choice([-1.0, 1.0])])
    turned: NDArray[np.float64] = rotation @ stretch @ flip
    return turned


def _random_centre(shape: tuple[int, ...], side: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A place for the middle of the crop, such that the crop lies inside the image where the image is large enough."""
    middle = []
    for length in shape:
        margin = min(side / 2, length / 2)
        middle.append(rng.uniform(margin, length - margin))
    return np.array(middle) - 0.5
