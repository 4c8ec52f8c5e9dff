"""Annotated images of the shared data folder, and made ones that need none."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np


def annotated_images(shared: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and grey pixels of `count` images of the test set, spread over it."""
    paths = sorted((shared / "dsb2018" / "test" / "labels").glob("*.png"))
    pairs = []
    for path in paths[:: len(paths) // count][:count]:
        labels = imagecodecs.png_decode(path.read_bytes())
        pixels = imagecodecs.png_decode((path.parents[1] / "images" / path.name).read_bytes())
        pairs.append((labels.astype(np.int32), pixels if pixels.ndim == 2 else pixels[..., 0]))
    return pairs


def made_nuclei(shape: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Ellipses of 6 to 15 pixels' radius, labelled 1.. in no order of place, that touch and hide each other."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for label in range(1, count + 1):
        cy, cx = rng.uniform((0, 0), shape)
        long, wide, angle = rng.uniform(8, 15), rng.uniform(6, 10), rng.uniform(0, np.pi)
        top, left = max(0, int(cy) - 16), max(0, int(cx) - 16)
        box = labels[top : top + 33, left : left + 33]
        y, x = np.indices(box.shape) + np.array([top - cy, left - cx])[:, None, None]
        u, v = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
        box[((u / long) ** 2 + (v / wide) ** 2 <= 1) & (box == 0)] = label
    return labels
