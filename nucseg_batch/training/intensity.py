"""Random changes of intensity and colour, and simulated empty fields: what microscopes, stains and files differ in.

Images here are normalised, 0 to 1 between an image's percentiles and up to LIMIT above.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nucseg_batch.arrays.normalize import LIMIT, apply_range, percentile_range
from nucseg_batch.training.stain import change_colours, empty_tissue, smooth_field, stained

INVERTED = 0.12
"""Share of crops whose contrast is inverted."""
STAINED = 0.08
"""Share of grey crops that are shown as if they had been stained with dyes."""


def change_intensities(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    """(size, size, 1 or 3) normalised pixels to (size, size, 3)."""
    if image.shape[2] == 3:
        image = change_colours(image, rng)
    elif rng.random() < STAINED:
        image = stained(image, rng)
    if rng.random() < 0.2:
        sigma = rng.uniform(0.5, 2.0)
        image = ndimage.gaussian_filter(image, (sigma, sigma, 0))
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
    image = image * np.float32(rng.uniform(0.7, 1.3)) + np.float32(rng.uniform(-0.1, 0.1))
    if rng.random() < 0.45:
        image = image + _noise(image, rng)
    if rng.random() < 0.1:
        image = _through_jpeg(np.clip(image, 0.0, 1.0), int(rng.integers(25, 90)))
    image = np.clip(image, 0.0, LIMIT).astype(np.float32)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def blank_field(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """An empty field as percentile normalisation shows it, (size, size, 3): amplified noise, haze, hot pixels."""
    image: NDArray[Any] = rng.standard_normal((size, size), dtype=np.float32)
    if rng.random() < 0.6:
        image = ndimage.gaussian_filter(image, rng.uniform(0.3, 4.0))
        image /= image.std()
    image = image + smooth_field(size, rng)[..., 0] * np.float32(rng.choice([0.0, rng.uniform(0.2, 4.0)]))
    if rng.random() < 0.3:
        rows, columns = rng.integers(0, size, (2, int(rng.integers(1, 30))))
        image[rows, columns] += np.float32(rng.uniform(5, 40))
    if rng.random() < 0.3:  # few counts: most pixels are equal
        image = np.round(image * np.float32(rng.uniform(0.2, 2.0)))
    image = apply_range(image, *percentile_range(image))[..., None]
    if rng.random() < 0.2:
        image = 1.0 - np.minimum(image, 1.0)
    if rng.random() < 0.2:
        image = empty_tissue(size, rng)
    if rng.random() < 0.5:
        image = image * np.float32(rng.uniform(0.2, 1.0)) + np.float32(rng.uniform(0.0, 0.3))
    image = np.clip(image, 0.0, LIMIT).astype(np.float32)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _noise(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float32]:
    noise: NDArray[Any] = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.3:
        noise = ndimage.gaussian_filter(noise, (0.7, 0.7, 0)) * np.float32(2.0)
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
