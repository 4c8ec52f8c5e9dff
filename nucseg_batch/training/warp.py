"""What an affine map shows of an annotated image: pixels, labels, and the nuclei's true centres and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.training.data import Sample
from nucseg_batch.training.targets import training_target


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
    labels = ndimage.affine_transform(
        sample.labels, matrix, offset, (size, size), order=0, mode="constant", cval=-1, output=np.int32
    )
    planes = [sample.image] if sample.image.ndim == 2 else list(np.moveaxis(sample.image, 2, 0))
    warped = [_warped(plane, matrix, offset, size, magnification) for plane in planes]
    centres = (sample.centres - offset) @ np.linalg.inv(matrix).T
    cover = _warped((sample.labels > 0).astype(np.float32), matrix, offset, size, magnification)
    return CropView(np.stack(warped, axis=-1), labels, cover, centres, sample.areas * magnification**2)


def _warped(
    plane: NDArray[np.float32], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, zoom: float
) -> NDArray[np.float32]:
    """One channel; where it is made smaller it is blurred first, as an area average would."""
    if zoom < 0.8:
        corners = np.array([[0, 0], [0, size], [size, 0], [size, size]]) @ matrix.T + offset
        margin = 4
        low = np.clip(np.floor(corners.min(axis=0)).astype(int) - margin, 0, None)
        high = np.ceil(corners.max(axis=0)).astype(int) + margin
        window = plane[low[0] : high[0], low[1] : high[1]]
        if min(window.shape) > margin:
            plane, offset = ndimage.gaussian_filter(window, 0.4 / zoom), offset - low
    return ndimage.affine_transform(plane, matrix, offset, (size, size), order=1, mode="reflect")
