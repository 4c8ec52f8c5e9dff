"""Small pictures of nuclei for tests."""

from __future__ import annotations

import numpy as np


def disks(shape: tuple[int, int], centres: list[tuple[int, int]], radius: int) -> np.ndarray:
    """A label image of disks, numbered from 1 in the order given."""
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number, (cy, cx) in enumerate(centres, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def fluorescence(labels: np.ndarray, *, seed: int = 0, peak: int = 180) -> np.ndarray:
    """A uint8 picture of a label image: bright nuclei on dark, noisy ground."""
    rng = np.random.default_rng(seed)
    return np.clip((labels > 0) * peak + rng.normal(20, 4, labels.shape), 0, 255).astype(np.uint8)
