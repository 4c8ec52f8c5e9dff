"""Random changes of intensity and colour: what microscopes, stains and files differ in.

Images here are normalised, 0 to 1 between the ends of an image's range and up to LIMIT above.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.arrays.kernels.views import blurred, in_three_channels, sample_linear
from nucseg_batch.arrays.normalize import LIMIT, LUMA
from nucseg_batch.training.nuclei import change_nuclei
from nucseg_batch.training.stain import change_colours, immunostained, smooth_field, stained
from nucseg_batch.training.warp import CropView

INVERTED = 0.12
"""Share of crops whose contrast is inverted."""
COARSENED = 0.08
"""Share of crops that are shown as if taken at a lower resolution."""
IMMUNOSTAINED = 0.3
"""Share of colour crops that are shown with a brown stain around nuclei."""
COLOURLESS = 0.06
"""Share of colour crops that are shown in grey."""
VALUE_STEP = LIMIT / 32767
"""Of normalised pixels that are handed over as int16: a sixty-fourth of a level of an image of 8 bits that is spread
from 0 to 1."""
STAINED = 0.08
"""Share of grey crops that are shown as if they had been stained with dyes."""


def change_intensities(view: CropView, rng: np.random.Generator) -> NDArray[Any]:
    """The image of a view, (size, size, 1 or 3) normalised pixels, changed: (size, size, 1 or 3), not cut to LIMIT."""
    image = view.image
    if image.shape[2] == 3:
        if rng.random() < IMMUNOSTAINED:
            image = immunostained(image, view.labels, rng)
        image = change_colours(image, rng)
        if rng.random() < COLOURLESS:
            image = (image @ LUMA)[..., None]
    else:
        image = change_nuclei(view, rng)
        if rng.random() < STAINED:
            image = stained(image, rng)
    if rng.random() < COARSENED:
        image = _coarsened(image, rng)
    if rng.random() < 0.2:
        sigma = rng.uniform(0.5, 2.0)
        image = blurred(image, sigma)
    if rng.random() < INVERTED:
        image = 1.0 - np.minimum(image, 1.0)
    if rng.random() < 0.5:
        image = np.maximum(image, 0.0) ** np.float32(math.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.25:
        image = image * np.exp(smooth_field(image.shape[0], rng) * np.float32(rng.uniform(0.1, 0.5)))
    if rng.random() < 0.2:
        haze = smooth_field(image.shape[0], rng)
        image = image + (haze - haze.min()) * np.float32(rng.uniform(0.02, 0.12))
    if rng.random() < 0.1:
        image = np.minimum(image, np.float32(rng.uniform(0.5, 1.0)))
    image = image * np.float32(math.exp(rng.uniform(-0.5, 0.5))) + np.float32(rng.uniform(-0.1, 0.1))
    if rng.random() < 0.45:
        image = image + _noise(image, rng)
    if rng.random() < 0.1:
        image = _through_jpeg(np.clip(image, 0.0, 1.0), int(rng.integers(25, 90)))
    return image


def in_steps(image: NDArray[Any]) -> NDArray[np.int16]:
    """An image (size, size, 1 or 3) as it is handed over: cut to 0..LIMIT, in steps of VALUE_STEP, (size, size, 3)."""
    return in_three_channels(np.ascontiguousarray(image, np.float32), np.float32(VALUE_STEP), np.float32(LIMIT))


def _coarsened(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """As if it had been taken with larger pixels and enlarged."""
    factor = rng.uniform(1.5, 3.5)
    soft = blurred(image, 0.4 * factor)
    size = image.shape[0]
    few = max(2, round(size / factor))
    return _resized(_resized(soft, few), size)


def _resized(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A square image at another size, (size, size, channels), by linear interpolation between middles of pixels."""
    step = image.shape[0] / size
    return sample_linear(image, np.eye(2) * step, np.full(2, (step - 1) / 2), size)


def _noise(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    noise: NDArray[Any] = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = blurred(noise, 0.7) * np.float32(2.0)
    if rng.random() < 0.4:
        noise = noise * np.sqrt(np.maximum(image, 0.02))
    strength = np.float32(math.exp(rng.uniform(math.log(0.01), math.log(0.15))))
    return np.asarray(noise * strength, np.float32)


def _through_jpeg(image: NDArray[Any], quality: int) -> NDArray[np.float32]:
    pixels = np.round(image * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "jpeg", quality=quality)
    decoded = np.asarray(Image.open(buffer)).astype(np.float32) / np.float32(255)
    return decoded[..., None] if decoded.ndim == 2 else decoded
