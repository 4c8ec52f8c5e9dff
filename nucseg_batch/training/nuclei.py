"""Random changes that follow the nuclei: grey images of other cells, thicker tissue and other focus, made from labels.

Images here are normalised: a typical nucleus is at 0.5 above a background near 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.views import blurred
from nucseg_batch.training.warp import CropView

UNEVEN, SPOTTED, HAZY = 0.25, 0.12, 0.15
"""Shares of grey crops: nuclei of different brightness, with bright chromatin, under light from other depths."""


def change_nuclei(view: CropView, rng: np.random.Generator) -> NDArray[Any]:
    """The image of a grey view, (size, size, 1), as other cells might look."""
    image = view.image
    if rng.random() < UNEVEN:
        image = _uneven(image, view.labels, rng)
    if rng.random() < SPOTTED:
        image = _spotted(image, view, rng)
    if rng.random() < HAZY:
        image = _hazy(image, rng)
    return image


def _uneven(image: NDArray[Any], labels: NDArray[np.int32], rng: np.random.Generator) -> NDArray[Any]:
    """Nuclei brighter and dimmer than they are, each in its own way, as in mixed and mitotic cells."""
    ids = np.maximum(labels, 0)
    gains = np.exp(rng.normal(0, rng.uniform(0.2, 0.7), int(ids.max()) + 1)).astype(np.float32)
    gains[0] = 1
    ground = np.percentile(image, 10)
    return np.asarray(ground + (image - ground) * blurred(gains[ids], 1.0)[..., None])


def _spotted(image: NDArray[Any], view: CropView, rng: np.random.Generator) -> NDArray[Any]:
    """Bright spots in each nucleus, as mouse cells have them where chromatin is dense."""
    rows, columns = np.nonzero(view.labels > 0)
    present = np.unique(view.labels[rows, columns])
    if not present.size:
        return image
    width = float(np.sqrt(4 / np.pi * np.median(view.areas[present])))
    chosen = rng.integers(0, rows.size, int(present.size * rng.uniform(3, 10)))
    spots = np.zeros(view.labels.shape, np.float32)
    spots[rows[chosen], columns[chosen]] = rng.uniform(0.3, 1.0, chosen.size)
    sigma = max(0.7, width * rng.uniform(0.03, 0.08))
    bright = blurred(spots, sigma) * np.float32(2 * np.pi * sigma**2 * rng.uniform(0.3, 1.2))
    inside = blurred(view.labels > 0, 0.7)
    return np.asarray(image + (bright * inside)[..., None])


def _hazy(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """With light from above and below the focus, as in thick tissue: nuclei fade, and gaps between them brighten."""
    glow = blurred(image, rng.uniform(5, 25))
    mixed = image * rng.uniform(0.3, 1.0) + glow * rng.uniform(0.3, 1.2)
    return np.asarray(mixed - np.percentile(mixed, 1))
