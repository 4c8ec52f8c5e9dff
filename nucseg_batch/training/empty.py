"""Simulated fields without a nucleus: noise, haze, and structures that are none, as the network is shown them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import spatial

from nucseg_batch.arrays.kernels.views import blurred
from nucseg_batch.arrays.normalize import apply_range
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.settings import Intensities
from nucseg_batch.training.stain import empty_tissue, smooth_field

STRUCTURED = 0.6
"""Share of empty fields in which something is to be seen."""


def blank_field(size: int, rng: np.random.Generator, intensities: Intensities = "nuclei") -> NDArray[Any]:
    """A field without a nucleus, (size, size, 1 or 3): noise, haze, hot pixels, filaments, bacteria or membranes.

    intensities: by which rule it is normalised.
    """
    image: NDArray[Any] = _noise(size, rng)
    if rng.random() < STRUCTURED:
        draw = (_filaments, _rods, _membranes)[rng.integers(3)]
        shown = blurred(draw(size, rng), rng.uniform(0.5, 2.0))
        image = image + shown * np.float32(rng.uniform(4, 60))
    image = apply_range(image, *intensity_range(image, intensities))[..., None]
    if rng.random() < 0.2:
        image = 1.0 - np.minimum(image, 1.0)
    if rng.random() < 0.2:
        image = empty_tissue(size, rng)
    if rng.random() < 0.5:
        image = image * np.float32(rng.uniform(0.2, 1.2)) + np.float32(rng.uniform(0.0, 0.3))
    return image


def _noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of deviation 1, with or without haze out of focus, hot pixels and few counts."""
    image: NDArray[Any] = rng.standard_normal((size, size), dtype=np.float32)
    if rng.random() < 0.5:
        image = blurred(image, rng.uniform(0.3, 4.0))
        image /= image.std()
    if rng.random() < 0.5:
        haze = blurred(rng.standard_normal((size, size), dtype=np.float32), rng.uniform(3.0, 30.0))
        image += haze / haze.std() * np.float32(math.exp(rng.uniform(math.log(0.3), math.log(6.0))))
    image += smooth_field(size, rng)[..., 0] * np.float32(rng.choice([0.0, rng.uniform(0.2, 4.0)]))
    if rng.random() < 0.3:
        rows, columns = rng.integers(0, size, (2, int(rng.integers(1, 30))))
        image[rows, columns] += np.float32(rng.uniform(5, 40))
    if rng.random() < 0.3:  # few counts: most pixels are equal
        image = np.round(image * np.float32(rng.uniform(0.2, 2.0)))
    return image


def _filaments(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Long curved lines, as of a cytoskeleton."""
    picture = Image.new("L", (size, size))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(5, 60)):
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, rng.uniform(0.02, 0.4), 40))
        steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(3, 10)
        path = rng.uniform(0, size, 2) + np.cumsum(steps, axis=0)
        pen.line(
            [(float(x), float(y)) for x, y in path], fill=int(rng.integers(60, 256)), width=int(rng.integers(1, 4))
        )
    return np.asarray(picture, np.float32) / np.float32(255)


def _rods(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Short thin rods, as bacteria."""
    picture = Image.new("L", (size, size))
    pen = ImageDraw.Draw(picture)
    width = int(rng.integers(1, 4))
    for _ in range(rng.integers(20, 500)):
        angle, length = rng.uniform(0, 2 * np.pi), width * rng.uniform(2.5, 6)
        x, y = rng.uniform(0, size, 2)
        end = (float(x + math.cos(angle) * length), float(y + math.sin(angle) * length))
        pen.line([(float(x), float(y)), end], fill=int(rng.integers(120, 256)), width=width)
    return np.asarray(picture, np.float32) / np.float32(255)


def _membranes(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Outlines of cells that fill the field, as of a stained membrane or cell wall."""
    apart = rng.uniform(12, 80)
    seeds = rng.uniform(-apart, size + apart, (max(8, int((size / apart + 2) ** 2)), 2))
    places = np.moveaxis(np.indices((size, size)), 0, -1).reshape(-1, 2)
    distance, _ = spatial.cKDTree(seeds).query(places, k=2)
    gap = (distance[:, 1] - distance[:, 0]).reshape(size, size).astype(np.float32)
    wall = np.clip(1.5 - gap / np.float32(rng.uniform(1.0, 4.0)), 0.0, 1.0)
    return np.asarray(wall * (1 + 0.3 * smooth_field(size, rng)[..., 0]), np.float32)
