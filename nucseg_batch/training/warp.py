"""What an affine map shows of an annotated image: pixels, labels, and the nuclei's true centres and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.training.data import Sample
from nucseg_batch.training.targets import training_target

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
    def target(self) -> NDArray[np.float32]:
        """What the network should answer: (size, size, Target)."""
        return training_target(self.labels, self.centres, self.areas, self.cover)


def view_of(
    sample: Sample, matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, magnification: float
) -> CropView:
    """What an affine map from view to image coordinates shows; beyond the image it is mirrored."""
    image, inside, shape = sample.image, sample.labels > 0, sample.labels.shape
    y, x = _places(matrix, offset, size)
    labels = _nearest(sample.labels, y, x)
    window = _window(matrix, offset, size, shape) if magnification < BLURRED else None
    if window is not None:  # it is made smaller, and blurred first, as an area average would
        sigma = 0.4 / magnification
        image = ndimage.gaussian_filter(image[window], (sigma, sigma, 0)[: image.ndim])
        inside = ndimage.gaussian_filter(inside[window].astype(np.float32), sigma)
        y, x, shape = y - window[0].start, x - window[1].start, inside.shape
    between = _Bilinear(y, x, shape)
    centres = (sample.centres - offset) @ np.linalg.inv(matrix).T
    warped = between.of(image).reshape(size, size, -1)
    return CropView(warped, labels, between.of(inside), centres, sample.areas * magnification**2)


def _places(
    matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns in the image of each pixel of a view, (size, size) each."""
    along = np.arange(size, dtype=np.float64)
    y, x = ((row[0] * along + start)[:, None] + row[1] * along for row, start in zip(matrix, offset, strict=True))
    return y, x


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


def _nearest(labels: NDArray[np.int32], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.int32]:
    """The label of the nearest pixel, -1 beyond the middles of the outermost pixels."""
    height, width = labels.shape
    beyond = (y < 0) | (y > height - 1) | (x < 0) | (x > width - 1)
    rows, columns = (np.floor(place + 0.5).astype(np.intp) for place in (y, x))
    rows *= width
    rows += columns
    found: NDArray[np.int32] = labels.ravel().take(rows, mode="clip")
    found[beyond] = -1
    return found


class _Bilinear:
    """Linear interpolation at some places of planes of one shape, which are mirrored at their edges."""

    def __init__(self, y: NDArray[np.float64], x: NDArray[np.float64], shape: tuple[int, ...]) -> None:
        height, width = shape
        (top, bottom), below = _neighbours(y, height)
        (left, right), across = _neighbours(x, width)
        top *= width
        bottom *= width
        self._corners = (top + left, top + right, bottom + left, bottom + right)
        lower = below * across
        self._weights = (1 - below - across + lower, across - lower, below - lower, lower)

    def of(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Values of a plane (height, width), or of one with channels in a third axis; bool or float32."""
        flat = plane.reshape(-1, *plane.shape[2:])
        total: NDArray[Any] = np.zeros((*self._corners[0].shape, *plane.shape[2:]), np.float32)
        for corner, weight in zip(self._corners, self._weights, strict=True):
            total += flat.take(corner, axis=0) * (weight if plane.ndim == 2 else weight[..., None])
        return total


def _neighbours(
    places: NDArray[np.float64], length: int
) -> tuple[tuple[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float32]]:
    """The pixels of an axis before and after each place, and how far it is from the one to the other."""
    before = np.floor(places)
    share = (places - before).astype(np.float32)
    at = before.astype(np.intp)
    first = int(at.min())
    shown = np.arange(first, int(at.max()) + 2) % (2 * length)
    shown = np.where(shown < length, shown, 2 * length - 1 - shown)
    at -= first
    return (shown[:-1].take(at), shown[1:].take(at)), share
