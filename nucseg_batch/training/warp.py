"""What an affine map shows of an annotated image: pixels, labels, and the nuclei's true centres and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.views import blurred, sample_labels, sample_linear
from nucseg_batch.training.data import Sample
from nucseg_batch.training.targets import CompactTarget, compact_target

BLURRED = 0.8
"""Below this magnification an image is blurred before it is sampled."""
MARGIN = 4
"""Pixels around what a view shows that count when it is blurred."""


@dataclass(frozen=True)
class CropView:
    """A square view of an annotated image."""

    image: NDArray[Any]
    """(size, size, 1 or 3) normalised pixels."""
    labels: NDArray[np.int32]
    """(size, size): 0 is background, -1 lies beyond the image and is not annotated."""
    cover: NDArray[np.float32]
    """(size, size), 0 to 1: how much of each pixel is nucleus, which at an outline is a part."""
    centres: NDArray[np.float64]
    """(n + 1, 2), of each label in pixels of the view; they may lie outside it."""
    areas: NDArray[np.floating[Any]]
    """(n + 1,), of the whole nuclei in square pixels of the view."""

    @property
    def target(self) -> CompactTarget:
        """What the network should answer, as it is handed over."""
        return compact_target(self.labels, self.centres, self.areas, self.cover)


def view_of(
    sample: Sample, matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, magnification: float
) -> CropView:
    """What an affine map from view to image coordinates shows; beyond the image it is mirrored."""
    image = sample.image.reshape(*sample.labels.shape, -1)
    labels, cover = sample_labels(sample.labels, matrix, offset, size)
    window = _window(matrix, offset, size, sample.labels.shape) if magnification < BLURRED else None
    if window is None:
        shown = sample_linear(image, matrix, offset, size)
    else:  # it is made smaller, and blurred first, as an area average would
        inside = (sample.labels[window] > 0).astype(np.float32)[..., None]
        soft = blurred(np.concatenate([image[window], inside], axis=2), 0.4 / magnification)
        both = sample_linear(soft, matrix, offset - [part.start for part in window], size)
        shown, cover = both[..., :-1], both[..., -1]
    centres = (sample.centres - offset) @ np.linalg.inv(matrix).T
    return CropView(shown, labels, cover, centres, sample.areas * magnification**2)


def _window(
    matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, shape: tuple[int, ...]
) -> tuple[slice, slice] | None:
    """The part of an image that a view shows, with a margin; None where next to nothing of the image is in it."""
    corners = np.array([[0, 0], [0, size], [size, 0], [size, size]]) @ matrix.T + offset
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - MARGIN, 0, None)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + MARGIN, shape)
    if (high - low).min() <= MARGIN:
        return None
    return slice(low[0], high[0]), slice(low[1], high[1])
