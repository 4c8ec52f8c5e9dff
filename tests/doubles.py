"""The segmenter that tests put in the network's place: it needs no Keras and no time, and what it finds is known.

One class for all of them, with what `stream.Segmenter`, `region_stream.Segmenter` and `local` ask of a predictor; a
test that needs more than its options derives from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.arrays.scale import step_scale
from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.arrays.seams import Rect
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.plan import Adapt, Budget
from nucseg_batch.settings import Intensities

BRIGHT = 100
"""Pixels above this value are those of nuclei."""


@dataclass(frozen=True)
class WholeRegion:
    """A region as one tile at scale 1: what is read of it is what is labelled."""

    core: Rect
    around: Rect

    def part(self, name: str) -> Rect:
        """Rows and columns of `core`, `grid`, `source` and `roots` in the plane's pixels."""
        return self.around if name in ("grid", "source") else self.core


class Threshold:
    """Takes bright things that touch for one nucleus; its root is its first pixel, its support is the same all over.

    diameter: of nuclei, in pixels. size: images in a batch. margin: pixels around a region in which its nuclei are
    whole. poison: largest values of images at which the device fails. memory: the largest batch for which the device
    has room; None for any. support: of all pixels of nuclei, of 255; None gives whole images none, and so no
    confidence.

    shown: the largest value of each image and tile that it was given; batches: how many images each batch had.
    """

    device, precision, backend = "cpu:0", "float32", "threshold 1"
    intensities: Intensities = "percentiles"
    sizes_alone = False
    budget = Budget(2_000_000_000, "float32")

    def __init__(
        self,
        *,
        diameter: float = 26.0,
        size: int = 4,
        margin: int = 16,
        poison: Iterable[int] = (),
        memory: int | None = None,
        support: int | None = 200,
    ) -> None:
        self.diameter = diameter
        self.shown: list[int] = []
        self.batches: list[int] = []
        self._size = size
        self._margin = margin
        self._poison = frozenset(poison)
        self._memory = memory
        self._support = support

    def hardware(self) -> str:
        """What computes."""
        return "a threshold"

    def machine(self) -> dict[str, str]:
        """How it computes."""
        return {"precision": self.precision, "device": self.device, "backend": self.backend}

    def range_of(self, pixels: NDArray[Any]) -> tuple[float, float]:
        """Of no use here."""
        return 0.0, 1.0

    def looks_at_once(self, shape: tuple[int, int]) -> int:
        """The same for all shapes."""
        return self._size

    def own_scales(
        self, images: Sequence[NDArray[Any]], limits: Sequence[tuple[float, float]], *, fill: bool = True
    ) -> list[float]:
        """Of no use here."""
        return [1.0] * len(images)

    def scale_of(self, width: float, *, grey: bool) -> float:
        """The nearest step."""
        return step_scale(self.diameter / width)

    def width(self, pixels: NDArray[Any], limits: tuple[float, float] | None = None) -> float | None:
        """Of no use here."""
        return None

    def look(self, pixels: NDArray[Any], begin: float) -> ScaleTrial:
        """One look is enough."""
        return self.found(pixels, begin)

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        """The same for all shapes."""
        return self._size

    def shrink(self, shape: tuple[int, int], scale: float, size: int) -> bool:
        """Halves all batches."""
        self._size = min(self._size, max(1, size // 2))
        return size > 1

    def predict_batch(
        self,
        images: Sequence[NDArray[Any]],
        scale: float = 1.0,
        *,
        adapt: Adapt = "no",
        limits: Sequence[tuple[float, float]] | None = None,
        fill: bool = True,
    ) -> list[ScaleTrial]:
        """Labels images; like the real one as if batches were full, so that fewer images need no less memory.

        Unless not `fill`: then only as many are computed as are given.
        """
        assert len({(image.dtype, image.ndim) for image in images}) == 1
        assert scale == 1 or len({image.shape for image in images}) == 1
        size = self._size  # another thread may halve it meanwhile
        assert len(images) <= size
        self.batches.append(len(images))
        self.called(images)
        if self._memory is not None and (size if fill else len(images)) > self._memory:
            raise MemoryError("the device has no room")
        return [self.found(image, scale) for image in images]

    def tiles(self, shape: tuple[int, int], scale: float, bounds: Rect, region: int) -> list[WholeRegion]:
        """A region is one tile."""
        rows, columns = (
            slice(max(0, side.start - self._margin), min(length, side.stop + self._margin))
            for side, length in zip(bounds, shape, strict=True)
        )
        return [WholeRegion(bounds, (rows, columns))]

    def label_tile(self, tile: WholeRegion, pixels: NDArray[Any], limits: tuple[float, float]) -> SeparatedNuclei:
        """Labels a region."""
        self.called([pixels])
        labels = self.found(pixels, 1.0).labels.astype(np.int32)
        values, first = np.unique(labels, return_index=True)
        roots = np.stack(np.unravel_index(first[values > 0], labels.shape), axis=1).astype(np.int64)
        return SeparatedNuclei(
            labels, roots + [side.start for side in tile.around], _filled(labels, self._support or 0)
        )

    def called(self, images: Sequence[NDArray[Any]]) -> None:
        """What each call of the device does before it finds anything; raises RuntimeError at a poisoned image."""
        highest = [int(image.max()) for image in images]
        if self._poison & set(highest):
            raise RuntimeError("the device does not like this image")
        self.shown += highest

    def found(self, image: NDArray[Any], scale: float) -> ScaleTrial:
        """What is in an image."""
        labels = ndimage.label(self.bright(image if image.ndim == 2 else image.max(axis=2)))[0].astype(np.int32)
        return ScaleTrial(labels, scale, support=None if self._support is None else _filled(labels, self._support))

    def bright(self, plane: NDArray[Any]) -> NDArray[np.bool_]:
        """Where nuclei are."""
        return np.asarray(plane > BRIGHT)


def _filled(labels: NDArray[np.int32], value: int) -> NDArray[np.uint8]:
    return np.where(labels > 0, value, 0).astype(np.uint8)
