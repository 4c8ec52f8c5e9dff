"""What runs on the device, as functions of tensors: intensity range, rescaling, network, separation, native grid.

Shapes are static; nothing here knows files, batches or tiles. The network's answers, `heads`, stay folded as it gives
them, (batch, height / block, width / block, block * block * outputs), until something must be known pixel by pixel; see
`architectures.to_full_resolution`.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.instances import certainty, sliding_maximum
from nucseg_batch.arrays.normalize import LIMIT
from nucseg_batch.arrays.outputs import Output
from nucseg_batch.machine.cores import available_cores
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import NetworkSpec, to_full_resolution
from nucseg_batch.network.flips import averaged_over_flips
from nucseg_batch.network.ledger import Ledger
from nucseg_batch.plan import SEPARATION_BYTES

FEW_CORES = 4
"""So many are kept busy by the network; of more, some wait for tiles of which nuclei are separated by one thread."""
LOOK_REACH = {"blur": 5, "window": 5}
"""Separation in a look: nuclei may be smaller there than the network knows them, and must not run together."""


class Program:
    """A network with what comes before and after it, compiled for a device on first use.

    network: without normalisation layers, built from `spec`. apart: whether each image of a batch goes through it
    alone, so that its answer does not depend on the others; on a CPU this is as fast (measured). augment: whether
    answers are averaged over mirror images, see `network.flips`. threshold: of the foreground probability. min_area: of
    a nucleus, in pixels at the network's scale. look: whether it only serves to see how wide nuclei are. The last three
    do nothing where nuclei are not separated on the device. ledger: where calls of the network reserve their memory,
    `pixel_bytes` for each pixel that the network sees.
    """

    def __init__(
        self,
        network: keras.Model,
        spec: NetworkSpec,
        *,
        device: str,
        apart: bool = False,
        augment: bool = False,
        threshold: float = 0.5,
        min_area: int = 0,
        look: bool = False,
        ledger: Ledger | None = None,
        pixel_bytes: float = 0.0,
    ) -> None:
        self.spec = spec
        self._ledger = ledger or Ledger(math.inf)
        self._pixel_bytes = pixel_bytes
        self._network = network
        self._answer = backend.one_graph(lambda seen: network(seen, training=False), device)
        self._threshold = threshold
        self._min_area = min_area
        self._reach = LOOK_REACH if look else {}
        self._device = device
        self._apart = apart
        self._augment = augment
        few = available_cores() <= FEW_CORES
        self._tile: contextlib.AbstractContextManager[object] = threading.Lock() if few else contextlib.nullcontext()
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[str, int, str], Callable[..., Any]] = {}

    def run(self, program: Callable[..., Any], first: Any, *others: Any, seen: int = 0) -> Any:
        """Runs one of the methods below, compiled once for each number of channels of its first argument.

        On a GPU also for each dtype. On a CPU the argument becomes float32 first, which is what all of them begin with:
        graphs for another dtype take about 25 MB and 1.7 s (measured with TensorFlow).

        seen: pixels of each image that the network sees, 0 for a program without it; the call waits until there is room
        for them. Raises MemoryError where the device's memory does not suffice.
        """
        with self._room(first.shape[0], seen):
            return keras.tree.map_structure(ops.convert_to_numpy, self._called(program, first, *others))

    def call(self, program: Callable[..., Any], first: Any, *others: Any, seen: int = 0) -> Any:
        """The same, with results that stay on the device."""
        with self._room(first.shape[0], seen):
            return self._called(program, first, *others)

    def separating(self, pixels: int) -> contextlib.AbstractContextManager[None]:
        """Reserves the memory for separating nuclei on the host; pixels: at the network's scale."""
        return self._ledger.reserved(pixels * SEPARATION_BYTES)

    def one_tile(self) -> contextlib.AbstractContextManager[object]:
        """On FEW_CORES, waits until no other thread does a tile of a large image, and lets none begin in the block."""
        return self._tile

    def joined(self, parts: Sequence[Any]) -> Any:
        """Tensors on the device joined along their rows."""
        with self._room(parts[0].shape[0], 0):
            return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)

    def cut(self, answer: Any, rows: slice, columns: slice) -> Any:
        """These rows and columns of a tensor, on the device."""
        with self._room(answer.shape[0], 0):
            return answer[:, rows, columns]

    def fetched(self, answer: Any) -> NDArray[Any]:
        """A tensor as an array on the host; an array as it is. Raises MemoryError where the device ran out of memory.

        JAX computes after a call has returned, and only says so where the result is fetched.
        """
        if isinstance(answer, np.ndarray):
            return answer
        with self._room(answer.shape[0], 0):
            return np.asarray(ops.convert_to_numpy(answer))

    def _called(self, program: Callable[..., Any], first: Any, *others: Any) -> Any:
        if self._device.startswith("cpu"):
            first = ops.cast(first, "float32")
        key = (program.__name__, first.shape[-1], str(first.dtype))
        with self._compiling:
            if key not in self._compiled:
                self._compiled[key] = backend.compiled(program, self._device, self._network.variables)
        return self._compiled[key](first, *others)

    @contextlib.contextmanager
    def _room(self, batch: int, seen: int) -> Iterator[None]:
        """The device, as soon as there is room for a batch; seen: pixels of each image that the network sees."""
        at_once = 1 if self._apart else batch
        room = self._ledger.reserved(at_once * seen * self._pixel_bytes)
        with backend.memory_errors(f"a batch of {batch}"), room, backend.on_device(self._device):
            yield

    def label(self, pixels: Any, low: Any, gain: Any, heights: Any, widths: Any) -> tuple[Any, Any]:
        """(batch, height, width, 1 or 3) raw pixels to labels and support, (batch, height, width) both.

        Labels are uint16 where no image of this size can have more nuclei, so that fewer bytes leave the device, else
        int32; support is uint8.
        """
        return self.separate_small(self.heads(pixels, low, gain), heights, widths)

    def label_rescaled(
        self, pixels: Any, low: Any, gain: Any, shape: tuple[Any, Any], there: tuple[Any, Any], back: Grid
    ) -> Any:
        """The same with the network looking at another scale; labels come back on the grid of `pixels`.

        shape: ((batch,), (batch,)), the real height and width at the network's scale. there: the matrices
        (scaled, native) for rows and columns that rescale the images. back: how to return.
        """
        heads = self.heads_rescaled(pixels, low, gain, *there)
        return self._returned(heads, shape, back)

    def look(self, pixels: Any, low: Any, gain: Any, heights: Any, widths: Any) -> Any:
        """As `label`, and how certain the foreground is, (batch,) float32."""
        heads = self.heads(pixels, low, gain)
        return *self.separate_small(heads, heights, widths), self.certainty(heads, heights, widths)

    def look_rescaled(
        self, pixels: Any, low: Any, gain: Any, shape: tuple[Any, Any], there: tuple[Any, Any], back: Grid
    ) -> Any:
        """As `label_rescaled`, and how certain the foreground is, (batch,) float32."""
        heads = self.heads_rescaled(pixels, low, gain, *there)
        return *self._returned(heads, shape, back), self.certainty(heads, *shape)

    def heads(self, pixels: Any, low: Any, gain: Any) -> Any:
        """(batch, height, width, 1 or 3) raw pixels to the network's answers, folded, offsets in units of OFFSET_UNIT.

        low, gain: (batch,) float32, as `arrays.normalize.as_gain` gives them.
        """
        return self._heads(_normalised(pixels, low, gain))

    def heads_rescaled(self, pixels: Any, low: Any, gain: Any, rows: Any, columns: Any) -> Any:
        """The same after rescaling: rows (scaled height, height) and columns (scaled width, width), float32."""
        image = ops.transpose(_normalised(pixels, low, gain), (0, 3, 1, 2))
        image = self._products(rows, image, columns)
        return self._heads(ops.transpose(image, (0, 2, 3, 1)))

    def heads_in_bands(self, pixels: Any, low: Any, gain: Any, rows: Banded, columns: Banded) -> Any:
        """The same for one image, rescaled in the narrow bands of `network.bands`."""
        return self._heads(_resampled(_normalised(pixels, low, gain), rows, columns))

    def answers(self, pixels: Any, low: Any, gain: Any) -> tuple[Any, Any]:
        """The network's answers, folded, and `probability`, for a separation elsewhere."""
        heads = self.heads(pixels, low, gain)
        return heads, self.probability(heads)

    def answers_rescaled(
        self, pixels: Any, low: Any, gain: Any, there: tuple[Any, Any], back: tuple[Any, Any]
    ) -> tuple[Any, Any, Any]:
        """The same after rescaling, and the foreground's probability on the grid of `pixels`; see `native`."""
        heads = self.heads_rescaled(pixels, low, gain, *there)
        certain = self.probability(heads)
        return heads, certain, self._products(back[0], certain, back[1])

    def probability(self, heads: Any) -> Any:
        """The foreground's probability in each pixel, (batch, height, width) float32."""
        return ops.sigmoid(self._foreground(heads))

    def probability_in_bands(self, heads: Any, rows: Banded, columns: Banded) -> tuple[Any, Any]:
        """The same, and the foreground's probability on another grid; see `native_in_bands`."""
        certain = self.probability(heads)
        return certain, _resampled(certain[..., None], rows, columns)[..., 0]

    def separate(self, heads: Any, heights: Any, widths: Any) -> tuple[Any, Any]:
        """Answers to labels, int32, and support, uint8, (batch, height, width) both; see `separate_rooted`."""
        labels, _, support = self.separate_rooted(heads, heights, widths)
        return labels, support

    def separate_small(self, heads: Any, heights: Any, widths: Any) -> tuple[Any, Any]:
        """The same, with labels as `label` gives them."""
        labels, support = self.separate(heads, heights, widths)
        return self._small(labels, heads), support

    def _returned(self, heads: Any, shape: tuple[Any, Any], back: Grid) -> tuple[Any, Any]:
        """Labels and support of these answers on the grid of the images, with labels as `label` gives them."""
        labels, support = self.native(*self.separate(heads, *shape), self._foreground(heads), *back)
        return self._small(labels, heads), support

    def _small(self, labels: Any, heads: Any) -> Any:
        """Labels that were found in these answers, as uint16 where it is known beforehand that all fit."""
        _, height, width, _ = heads.shape
        if height is None or width is None:  # one graph for all sizes
            return labels
        most = height * width * self.spec.block**2 // max(self._min_area, 1)
        return ops.cast(labels, "uint16") if most < 2**16 else labels

    def separate_rooted(self, heads: Any, heights: Any, widths: Any) -> tuple[Any, Any, Any]:
        """Labels, where the roots are, and support; see `Head.separate`."""
        output = to_full_resolution(ops.convert_to_tensor(heads), self.spec.block, self.spec.outputs)
        options: dict[str, Any] = {"threshold": self._threshold, "min_area": self._min_area, **self._reach}
        return self.spec.head.separate(output, heights, widths, **options)

    def certainty(self, heads: Any, heights: Any, widths: Any) -> Any:
        """Mean probability of the foreground's pixels, (batch,) float32."""
        return certainty(self._foreground(heads), heights, widths, threshold=self._threshold)

    def native(
        self,
        labels: Any,
        support: Any,
        foreground: Any,
        rows: Any,
        columns: Any,
        near_rows: Any,
        near_columns: Any,
    ) -> tuple[Any, Any]:
        """Labels and support, (batch, scaled height, scaled width), brought to the image's own grid.

        What is nucleus is decided on that grid, by the interpolated probability of `foreground` logits; which nucleus,
        by the nearest pixel of `labels`, or of the nucleus beside it where that pixel is just outside.
        """
        probability, labels = self._outlined(labels, foreground)
        probability = self._products(rows, probability, columns)
        near = _nearest(labels, near_rows, near_columns)
        return ops.where(probability > self._threshold, near, 0), _nearest(support, near_rows, near_columns)

    def native_in_bands(
        self, heads: Any, heights: Any, widths: Any, rows: Banded, columns: Banded, near_rows: Any, near_columns: Any
    ) -> tuple[Any, Any, Any]:
        """What `separate_rooted` gives for one image, with labels and support brought to its own grid in bands."""
        labels, roots, support = self.separate_rooted(heads, heights, widths)
        probability, labels = self._outlined(labels, self._foreground(heads))
        probability = _resampled(probability[..., None], rows, columns)[..., 0]
        near = _nearest(labels, near_rows, near_columns)
        return ops.where(probability > self._threshold, near, 0), roots, _nearest(support, near_rows, near_columns)

    def _outlined(self, labels: Any, foreground: Any) -> tuple[Any, Any]:
        """The foreground's probability, and the labels with one pixel more around each nucleus."""
        probability = ops.sigmoid(foreground)
        outside = probability <= self._threshold
        return probability, ops.where((labels == 0) & outside, _largest_neighbour(labels), labels)

    def _products(self, rows: Any, images: Any, columns: Any) -> Any:
        """Images (batch, ..., height, width) resampled by matrices: rows @ image @ columns transposed.

        On a CPU each image is a product of its own: how the library sums a product of the whole batch depends, in the
        last bit, on the place of an image in it (measured with TensorFlow on processors without AVX-512).
        """

        def resampled(image: Any) -> Any:
            return ops.matmul(ops.matmul(rows, image), ops.transpose(columns))

        return ops.map(resampled, images) if self._device.startswith("cpu") else resampled(images)

    def _heads(self, image: Any) -> Any:
        if image.shape[-1] == 1:
            image = ops.broadcast_to(image, (*ops.shape(image)[:3], 3))  # on a CPU twice as fast as joining three
        if self._apart:
            return ops.map(lambda one: self._answered(one[None])[0], image)
        return self._answered(image)

    def _answered(self, image: Any) -> Any:
        return averaged_over_flips(self._answer, self.spec, image) if self._augment else self._answer(image)

    def _foreground(self, values: Any) -> Any:
        """The foreground of each pixel, (batch, height, width), of values folded as heads are.

        On a CPU, TensorFlow takes ten times as long for a slice with a stride as for one column (measured).
        """
        values = ops.convert_to_tensor(values)
        _, height, width, _ = ops.shape(values)
        foreground = ops.reshape(values, (-1, self.spec.outputs))[:, Output.FOREGROUND]
        folded = ops.reshape(foreground, (-1, height, width, self.spec.block**2))
        return to_full_resolution(folded, self.spec.block, 1)[..., 0]


Grid = tuple[Any, Any, Any, Any]
"""How labels return to an image's own grid: matrices for rows and columns, nearest rows and columns."""
Banded = tuple[Any, Any]
"""How an axis is resampled in bands: `index` and `weights` of `network.bands.Bands`."""


def _normalised(pixels: Any, low: Any, gain: Any) -> Any:
    low, gain = (ops.reshape(one, (-1, 1, 1, 1)) for one in (low, gain))
    return ops.clip((ops.cast(pixels, "float32") - low) * gain, 0.0, LIMIT)


def _nearest(values: Any, rows: Any, columns: Any) -> Any:
    """Values (batch, height, width) at these rows and columns."""
    return ops.take(ops.take(values, rows, axis=1), columns, axis=2)


def _resampled(image: Any, rows: Banded, columns: Banded) -> Any:
    """One image (1, height, width, channels), float32, resampled along both axes in bands."""
    for index, weights in (rows, columns):
        _, _, across, channels = ops.shape(image)
        bands, places, reach = ops.shape(weights)
        image = ops.reshape(ops.take(image, ops.reshape(index, (-1,)), axis=1), (bands, reach, across * channels))
        image = ops.reshape(ops.matmul(weights, image), (1, bands * places, across, channels))
        image = ops.transpose(image, (0, 2, 1, 3))
    return image


def _largest_neighbour(labels: Any) -> Any:
    """The largest label among each pixel and the eight around it."""
    for axis in (1, 2):
        labels = sliding_maximum(labels, axis, 1)
    return labels
