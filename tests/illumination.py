"""Simulated images of nuclei under uneven light."""

from __future__ import annotations

import numpy as np

BACKGROUND, BRIGHT = 300, 2000
"""Photons of background and of a nucleus where the illumination is 1."""


def vignette(shape: tuple[int, int]) -> np.ndarray:
    """An illumination with mean 1 that falls to about half of its highest value; its centre is not the middle."""
    y, x = ((np.arange(side) + 0.5) / side for side in shape)
    squared = np.square(y - 0.42)[:, None] + np.square(x - 0.58)[None]
    field = 1 / (1 + 1.4 * squared) + 0.05 * x[None]
    return field / field.mean()


def plate(count: int, field: np.ndarray, *, seed: int, spread: float = 0.05) -> list[np.ndarray]:
    """Images (uint16) of disks that are equally bright but for `spread`, at random places, with shot noise."""
    random = np.random.default_rng(seed)
    return [_image(random, field, spread) for _ in range(count)]


def _image(random: np.random.Generator, field: np.ndarray, spread: float) -> np.ndarray:
    y, x = np.indices(field.shape)
    light = np.full(field.shape, BACKGROUND * random.uniform(0.7, 1.4))
    step = 26
    for top in range(0, field.shape[0] - step, step):
        for left in range(0, field.shape[1] - step, step):
            if random.random() < 0.5:
                centre = np.array([top, left]) + step / 2 + random.uniform(-3, 3, 2)
                inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < random.uniform(5, 9) ** 2
                light[inside] += BRIGHT * random.normal(1, spread)
    return random.poisson(light * field).astype(np.uint16)
