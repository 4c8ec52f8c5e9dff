"""Where an image lies on the device: its own grid, the network's scaled one, and what both are padded to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.scale import mirrored, nearest, padded_resampling, scaled_shape
from nucseg_batch.plan import STEP, TILE, bucket_shape, coarse_bucket_shape

SLACK = 0.0625
"""By which share scales are lowered at most so that less is padded."""


@dataclass(frozen=True)
class ResampleGeometry:
    """The shapes of one image on its way there and back."""

    native: tuple[int, int]
    """Height and width of the image."""
    scaled: tuple[int, int]
    """Height and width at the network's scale."""
    coarse: bool = False
    """Whether both are padded to few shapes, because the device compiles a program for each pair of them."""

    @staticmethod
    def of(shape: tuple[int, ...], scale: float, *, coarse: bool = False) -> ResampleGeometry:
        """The frame of an image of this height and width, enlarged by `scale`."""
        height, width = shape
        return ResampleGeometry((height, width), scaled_shape(height, width, scale), coarse)

    @property
    def is_native(self) -> bool:
        """Whether the network sees the image's own pixels."""
        return self.native == self.scaled

    @property
    def is_large(self) -> bool:
        """Whether the image is too large for one call, and done in tiles."""
        return max(*self.bucket, *self.native_bucket) > TILE

    @property
    def native_bucket(self) -> tuple[int, int]:
        """Padded shape of the image."""
        if not self.coarse:
            return bucket_shape(*self.native)
        bucket = self.bucket
        fits = self.native[0] <= bucket[0] and self.native[1] <= bucket[1]
        return bucket if fits else coarse_bucket_shape(*self.native)

    @property
    def bucket(self) -> tuple[int, int]:
        """Padded shape at the network's scale."""
        return coarse_bucket_shape(*self.scaled) if self.coarse else bucket_shape(*self.scaled)

    def there(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Matrices for rows and columns from the padded image to the padded scaled image."""
        sides = zip(self.native, self.scaled, self.native_bucket, self.bucket, strict=True)
        rows, columns = (padded_resampling(*side) for side in sides)
        return rows, columns

    def back(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
        """Matrices for rows and columns from the scaled image to the image, and its nearest rows and columns."""
        sides = zip(self.scaled, self.native, self.bucket, self.native_bucket, strict=True)
        rows, columns = (padded_resampling(*side) for side in sides)
        axes = zip(self.scaled, self.native, self.native_bucket, strict=True)
        near_rows, near_columns = (nearest(*axis[:2], np.arange(axis[2])) for axis in axes)
        return rows, columns, near_rows, near_columns


@dataclass(frozen=True)
class Shown:
    """An image as the network is shown it."""

    pixels: NDArray[Any]
    """(height, width) or (height, width, 3)."""
    limits: tuple[float, float]
    """The values that become 0 and 1."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def grey(self) -> bool:
        """Whether it has one channel."""
        return self.pixels.ndim == 2


def fitted_scale(height: int, width: int, scale: float) -> float:
    """A scale at most SLACK below `scale`, at which the least of what the network sees of an image is padding.

    Only for images that are rescaled and small enough for one call; for others it is `scale`.
    """
    sides = scaled_shape(height, width, scale)
    if sides == (height, width) or max(bucket_shape(*sides)) > TILE:
        return scale

    def filled(candidate: float) -> tuple[float, float]:
        shape = scaled_shape(height, width, candidate)
        return round(math.prod(shape) / math.prod(bucket_shape(*shape)), 3), candidate

    fits = [side // STEP * STEP / length for side, length in zip(sides, (height, width), strict=True)]
    return max([scale, *(fit for fit in fits if (1 - SLACK) * scale <= fit <= scale)], key=filled)


def padded_batch(images: Sequence[NDArray[Any]], bucket: tuple[int, int], size: int) -> NDArray[Any]:
    """Copies images into one array (size, *bucket, channels), mirrored beyond their edges; missing images are 0."""
    first = images[0]
    channels = 1 if first.ndim == 2 else first.shape[2]
    batch = np.empty((size, *bucket, channels), first.dtype)
    for slot, image in zip(batch, images, strict=False):
        height, width = image.shape[:2]
        slot[:height, :width] = image.reshape(height, width, channels)
        if (height, width) == bucket:
            continue
        slot[height:, :width] = slot[mirrored(bucket[0], height)[height:], :width]
        slot[:, width:] = slot[:, mirrored(bucket[1], width)[width:]]
    batch[len(images) :] = 0
    return batch
