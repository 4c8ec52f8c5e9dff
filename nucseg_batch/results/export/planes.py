"""A plane as all formats see it: its nuclei, and its mask whole or, where that is large, window by window."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.outlines import Polygon, trace
from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.errors import DamageError
from nucseg_batch.results.run import FinishedRun, checked, read_masks
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow

WINDOW = 4
"""Chunks on each side of the windows of a large plane, before those of its nuclei that reach out of it."""
BLOCK_BYTES = 2**22
"""Bytes of masks that are read at once."""
KEPT_BLOCKS = 16
"""Blocks that are kept: images of several shapes come in turn."""


@dataclass(frozen=True)
class NucleiWindow:
    """A part of a plane and the nuclei that lie in it whole."""

    top: int
    """Its first row."""
    left: int
    """Its first column."""
    mask: NDArray[np.uint32]
    """(height, width); it may show parts of other nuclei."""
    places: NDArray[np.intp]
    """Which of the plane's nuclei it is for."""


@dataclass(frozen=True)
class NucleusOutline:
    """One nucleus as polygons."""

    place: int
    """Which of the plane's nuclei it is."""
    label: int
    """Its number."""
    polygons: list[Polygon]
    """In pixels of the plane."""


class MaskBlocks:
    """The masks of small planes, read many at a time, because each reading takes longer than the planes in it."""

    def __init__(self, run: FinishedRun) -> None:
        self.run = run
        """The run."""
        self._kept: OrderedDict[tuple[str, int, tuple[int, ...]], NDArray[np.uint32]] = OrderedDict()

    def mask(self, row: PlaneRow, *, checking: bool = True) -> NDArray[np.uint32]:
        """A plane's mask, (height, width); not to be changed. checking: whether an empty one is damage."""
        array, place = self.run.mask_array(row)
        step = max(1, BLOCK_BYTES // (4 * row.shape[0] * row.shape[1]))
        settled = self.run.written.settled()
        if len(place) != 1 or step == 1 or settled is None:
            return self.run.mask(row) if checking else self.run.mask(row, *map(slice, row.shape))
        key = row.mask, place[0] // step, settled
        if key not in self._kept:
            begin = key[1] * step
            block = read_masks(array, (slice(begin, begin + step),), row)
            if self.run.written.settled() != settled:  # another process has begun to write masks
                return self.mask(row, checking=checking)
            self._kept[key] = block
            while len(self._kept) > KEPT_BLOCKS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        mask = self._kept[key][place[0] % step]
        return checked(mask, row) if checking else mask


class LabelledPlane:
    """A plane that has a mask, with its nuclei. What is read of a small one is kept as long as the object.

    label: which label image its mask is, such as `rings`; its labels are those of the nuclei.
    """

    def __init__(self, blocks: MaskBlocks, row: PlaneRow, nuclei: PlaneNuclei, label: str = NUCLEI_LABEL) -> None:
        self._blocks = blocks
        self._label = label
        self._masked = replace(row, mask=f"{row.mask.rpartition('/')[0]}/{label}")
        self._others = {label: self}
        self.run = blocks.run
        """The run it is of."""
        self.row = row
        """Its row of images.csv."""
        self.nuclei = nuclei
        """Its rows of nuclei.csv."""

    def of(self, label: str) -> LabelledPlane:
        """The same plane with another of its label images as mask."""
        if label not in self._others:
            self._others[label] = LabelledPlane(self._blocks, self.row, self.nuclei, label)
        return self._others[label]

    @cached_property
    def chunk(self) -> int:
        """Side of the squares in which its mask is stored, and read; 0 for a small plane, which is read whole."""
        array, _ = self.run.mask_array(self._masked)
        sides = array.chunks[-2:]
        return 0 if tuple(sides) == tuple(array.shape[-2:]) else max(sides)

    @property
    def large(self) -> bool:
        """Whether its mask is read by windows."""
        return self.chunk > 0

    @cached_property
    def mask(self) -> NDArray[np.uint32]:
        """(height, width); only for planes that are not large."""
        return self._blocks.mask(self._masked, checking=self._label == NUCLEI_LABEL)

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint32]:
        """A window of its mask."""
        return self.run.mask(self._masked, rows, columns) if self.large else self.mask[rows, columns]

    def tiles(self, side: int) -> Iterator[NDArray[np.uint32]]:
        """All of its mask in squares, row after row; those at the far borders are cut there."""
        height, width = self.row.shape
        for top in range(0, height, side):
            for left in range(0, width, side):
                yield self.read(slice(top, min(top + side, height)), slice(left, min(left + side, width)))

    def bands(self) -> Iterator[NDArray[np.uint32]]:
        """All of its mask in bands of whole rows, from the top."""
        height, width = self.row.shape
        step = self.chunk or height
        for top in range(0, height, step):
            yield self.read(slice(top, min(top + step, height)), slice(0, width))

    def windows(self) -> Iterator[NucleiWindow]:
        """Windows that show each of its nuclei whole, in one of them."""
        if not len(self.nuclei):
            return
        if not self.large:
            yield NucleiWindow(0, 0, self.mask, np.arange(len(self.nuclei)))
            return
        box = np.stack([self.nuclei[f"bbox-{side}"] for side in range(4)], axis=1).astype(np.int64)
        side = WINDOW * self.chunk
        across = -(-self.row.shape[1] // side)
        owner = box[:, 0] // side * across + box[:, 1] // side
        order = np.argsort(owner, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            top, left = box[places, :2].min(axis=0).tolist()
            bottom, right = box[places, 2:].max(axis=0).tolist()
            yield NucleiWindow(top, left, self.read(slice(top, bottom), slice(left, right)), places)

    def outlines(self) -> Iterator[NucleusOutline]:
        """Each of its nuclei as polygons. Raises DamageError where the mask and the table are not of each other."""
        return iter(self._outlines) if not self.large else self._traced()

    @cached_property
    def _outlines(self) -> list[NucleusOutline]:
        return list(self._traced())

    def _traced(self) -> Iterator[NucleusOutline]:
        labels = self.nuclei.labels
        for window in self.windows():
            traced = trace(window.mask)
            corner = np.array([window.left, window.top])
            self.check(window, traced)
            for place in window.places.tolist():
                label = int(labels[place])
                polygons = traced[label]
                if window.top or window.left:
                    polygons = [[ring + corner for ring in polygon] for polygon in polygons]
                yield NucleusOutline(place, label, polygons)

    def check(self, window: NucleiWindow, found: dict[int, Any]) -> None:
        """Raises DamageError unless what was found in a window is what the table says of it."""
        labels = set(self.nuclei.labels[window.places].tolist())
        odd = labels - found.keys() or (set() if self.large else found.keys() - labels)
        if odd:
            where = "nuclei.csv but not the mask" if labels - found.keys() else "the mask but not nuclei.csv"
            raise DamageError(
                f"{self.row.name}: {where} has nucleus {min(odd)}. Were masks changed by hand? `nucseg-batch verify` "
                "finds what changed, and --redo segments it again."
            )
