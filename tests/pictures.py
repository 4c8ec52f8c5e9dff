"""Small pictures of nuclei for tests."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
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


def annotated_folder(folder: Path, count: int, shape: tuple[int, int] = (96, 112)) -> Path:
    """A folder of `count` annotated pictures, images/ beside labels/, of disks of radius 10; returns it."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        labels = disks(shape, [(int(y), int(x)) for y in (18, 52, 80) for x in (20, 60, 95) if rng.random() < 0.7], 10)
        image = fluorescence(labels, seed=seed)
        (folder / "images" / f"{seed}.png").write_bytes(imagecodecs.png_encode(image))
        (folder / "labels" / f"{seed}.png").write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))
    return folder
