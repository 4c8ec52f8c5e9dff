"""Runs a model on the device: raw pixels go up, labels come down.

One compiled function takes a batch of images as they were read, applies their intensity range, runs the network and
separates nuclei. Its shapes are static: images are padded to a shape from a short list (`bucket_shape`), which depends
on nothing but the image, and batches are always full, so that an image's labels never depend on its neighbours.

An image too large for one call is sent through the network in tiles that overlap by the network's reach, on a grid
fixed by the image; the outputs are then exactly those of the whole image, and nuclei are separated over all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.instances import separate
from nucseg_batch.arrays.normalize import LIMIT, percentile_range
from nucseg_batch.network import backend
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.unet import HEADS, OFFSET_UNIT, build_unet, fold_weights, to_full_resolution
from nucseg_batch.plan import TILE, bucket_shape
from nucseg_batch.settings import SegmentSettings

BATCH_PIXELS = 2**20
"""Pixels in a batch of automatic size: enough to fill the processor, few enough to bound memory."""
MAX_BATCH = 16
"""Images in a batch of automatic size at most."""

CPU_FLOAT32_BATCH = 4
"""Most images in a float32 batch on a CPU: from 8 on, oneDNN adds in another order and last bits differ (measured; with
up to 4, and in bfloat16 always, an image's result is the same in every batch)."""


class Predictor:
    """A model, ready on a device.

    threshold and min_area are the settings' or, where those are None, the model's own.
    """

    def __init__(self, model: Model, settings: SegmentSettings) -> None:
        self.device = backend.resolve_device(settings.device)
        self.precision = backend.resolve_precision(settings.precision, self.device)
        self.model = model
        self.threshold = model.info.threshold if settings.threshold is None else settings.threshold
        self.min_area = model.info.min_area if settings.min_area is None else settings.min_area
        self._batch_size = settings.batch_size
        self._shrunk: dict[tuple[int, int], int] = {}
        with backend.on_device(self.device):
            self._network = build_unet(model.info.network, normalise=False, dtype=self.precision)
            self.refresh()
        self._programs: dict[tuple[str, int, str], Callable[..., Any]] = {}

    def refresh(self) -> None:
        """Takes over the model's present weights, as needed while it is being trained."""
        fold_weights(self.model.network, self._network)

    def batch_size(self, bucket: tuple[int, int]) -> int:
        """Images of this padded shape that go into one call."""
        height, width = bucket
        if max(bucket) > TILE:
            return 1  # its tiles are the batches; more such images at once would only fill memory
        size = self._batch_size or int(np.clip(BATCH_PIXELS // (height * width), 1, MAX_BATCH))
        exact = self.precision == "float32" and self.device.startswith("cpu")
        return min(size, self._shrunk.get(bucket, size), CPU_FLOAT32_BATCH if exact else size)

    def shrink(self, bucket: tuple[int, int]) -> bool:
        """Halves the batches of this padded shape, after a MemoryError; False where they are of one image already."""
        size = self.batch_size(bucket)
        self._shrunk[bucket] = max(1, size // 2)
        return size > 1

    def machine(self) -> dict[str, str]:
        """How results are computed: what a run must not change halfway."""
        library = backend.versions()
        name = library["backend"]
        return {"precision": self.precision, "device": self.device.split(":")[0], "backend": f"{name} {library[name]}"}

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.int32]:
        """Labels one image, (height, width) or (height, width, 3) of uint8, uint16 or float32, to (height, width)."""
        return self.predict_batch([pixels])[0]

    def predict_batch(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.int32]]:
        """Labels images that share padded shape, dtype and number of channels, at most `batch_size` of them.

        Raises MemoryError where the device's memory does not suffice, and ValueError for more images than that.
        """
        ranges = [percentile_range(image) for image in images]
        shapes = [image.shape[:2] for image in images]
        bucket = bucket_shape(*shapes[0])
        if max(bucket) > TILE:
            return [self._predict_large(image, *limits) for image, limits in zip(images, ranges, strict=True)]
        size = self.batch_size(bucket)
        if len(images) > size:
            raise ValueError(f"a batch of images padded to {bucket} holds {size}, but {len(images)} were given.")
        pixels = padded_batch(images, bucket, size)
        fill = size - len(images)
        low, high = np.array(ranges + [(0.0, 0.0)] * fill, np.float32).T
        heights, widths = np.array(shapes + [(1, 1)] * fill, np.int32).T
        with backend.on_device(self.device):
            labels = self._run(self._label, pixels, low, high, heights, widths)
        return [labels[i, :h, :w] for i, (h, w) in enumerate(shapes)]

    def heads(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The network's answer for one image: (height, width, HEADS), the offsets in pixels."""
        low, high = percentile_range(pixels)
        height, width = pixels.shape[:2]
        return self._tiled_heads(pixels, low, high)[:height, :width]

    def separate_heads(self, heads: NDArray[np.float32], *, threshold: float, min_area: int) -> NDArray[np.int32]:
        """Labels from the `heads` of one image, as when several thresholds are tried on one answer."""
        height, width, _ = heads.shape
        bucket = bucket_shape(height, width)
        padded = np.zeros((1, *bucket, HEADS), np.float32)
        padded[0, :height, :width] = heads
        limits = (np.array([height], np.int32), np.array([width], np.int32))
        with backend.on_device(self.device):
            labels = separate(padded[..., 0], padded[..., 1:], *limits, threshold=threshold, min_area=min_area)
        return ops.convert_to_numpy(labels)[0, :height, :width]

    def _predict_large(self, pixels: NDArray[Any], low: float, high: float) -> NDArray[np.int32]:
        height, width = pixels.shape[:2]
        heads = self._tiled_heads(pixels, low, high)
        with backend.on_device(self.device):
            limits = (np.array([height], np.int32), np.array([width], np.int32))
            return self._run(self._separate, heads[None], *limits)[0, :height, :width]

    def _tiled_heads(self, pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
        """Heads of a padded image, computed in tiles of TILE pixels with the network's reach around them."""
        height, width = bucket_shape(*pixels.shape[:2])
        padded = padded_batch([pixels], (height, width), 1)
        halo = self.model.info.network.halo
        core = TILE - 2 * halo if max(height, width) > TILE else TILE
        heads = np.empty((height, width, HEADS), np.float32)
        limits = (np.array([low], np.float32), np.array([high], np.float32))
        for top in range(0, height, core):
            for left in range(0, width, core):
                rows = slice(max(0, top - halo), min(height, top + core + halo))
                columns = slice(max(0, left - halo), min(width, left + core + halo))
                with backend.on_device(self.device):
                    tile = self._run(self._heads, padded[:, rows, columns], *limits)[0]
                bottom, right = min(top + core, height), min(left + core, width)
                inner = tile[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
                heads[top:bottom, left:right] = inner
        return heads

    def _run(self, program: Callable[..., Any], first: NDArray[Any], *others: NDArray[Any]) -> NDArray[Any]:
        """Runs a device program, compiled once for each dtype and number of channels of its first argument."""
        key = (program.__name__, first.shape[-1], first.dtype.str)
        if key not in self._programs:
            self._programs[key] = backend.compiled(program, self.device)
        try:
            return ops.convert_to_numpy(self._programs[key](first, *others))
        except Exception as error:  # each backend has its own class for this
            if backend.is_out_of_memory(error):
                raise MemoryError(f"the device has no room for a batch of {first.shape[0]}") from error
            raise

    def _label(self, pixels: Any, low: Any, high: Any, heights: Any, widths: Any) -> Any:
        """The device program: (batch, height, width, 1 or 3) raw pixels to (batch, height, width) int32 labels."""
        return self._separate(self._heads(pixels, low, high), heights, widths)

    def _heads(self, pixels: Any, low: Any, high: Any) -> Any:
        low = ops.reshape(low, (-1, 1, 1, 1))
        high = ops.reshape(high, (-1, 1, 1, 1))
        scale = ops.where(high > low, 1.0 / ops.where(high > low, high - low, 1.0), 0.0)
        image = ops.clip((ops.cast(pixels, "float32") - low) * scale, 0.0, LIMIT)
        if image.shape[-1] == 1:
            image = ops.concatenate([image, image, image], axis=-1)
        heads = to_full_resolution(self._network(image, training=False))
        return ops.concatenate([heads[..., :1], heads[..., 1:] * OFFSET_UNIT], axis=-1)

    def _separate(self, heads: Any, heights: Any, widths: Any) -> Any:
        heads = ops.convert_to_tensor(heads)
        foreground, offsets = heads[..., 0], heads[..., 1:]
        return separate(foreground, offsets, heights, widths, threshold=self.threshold, min_area=self.min_area)


def padded_batch(images: Sequence[NDArray[Any]], bucket: tuple[int, int], size: int) -> NDArray[Any]:
    """Copies images into one array (size, *bucket, channels), mirrored beyond their edges; missing images are 0."""
    first = images[0]
    channels = 1 if first.ndim == 2 else first.shape[2]
    batch = np.zeros((size, *bucket, channels), first.dtype)
    for slot, image in zip(batch, images, strict=False):
        height, width = image.shape[:2]
        image = image.reshape(height, width, channels)
        if (height, width) != bucket:
            image = np.pad(image, [(0, bucket[0] - height), (0, bucket[1] - width), (0, 0)], mode="symmetric")
        slot[...] = image
    return batch
