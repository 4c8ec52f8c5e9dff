"""Which predicted and annotated volumes of a stack share voxels, counted slice by slice for `agreement`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, overlaps, summed
from nucseg_batch.arrays.label_overlaps import Overlaps as SharedPixels
from nucseg_batch.arrays.metrics import Overlaps

Ints = NDArray[np.int64]
Part = TypeVar("Part")
LEAST = 2**16
"""Entries that are kept before they are added up first."""


def stack_overlaps(slices: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]]) -> Overlaps:
    """Finds the pairs of volumes of two label stacks that share voxels, as `metrics.overlaps` does for whole arrays.

    slices: of each slice the prediction and the truth, (height, width) of labels below 2^32, of one shape. Memory is
    that of one slice, and a few hundred bytes for each volume, however many slices it has. Raises ValueError where two
    shapes differ.
    """
    predicted, annotated = _RunningSum(_summed_areas, _area_count), _RunningSum(_summed_areas, _area_count)
    shared = _RunningSum(_summed_pairs, _pair_count)
    for prediction, truth in slices:
        if prediction.shape != truth.shape:
            raise ValueError(f"label images must have one shape, but are {prediction.shape} and {truth.shape}.")
        one, other = LabelRuns.of(prediction), LabelRuns.of(truth)
        predicted.add(_areas(one.labels, np.diff(one.starts, append=one.pixels)))
        annotated.add(_areas(other.labels, np.diff(other.starts, append=other.pixels)))
        shared.add(overlaps(one, other))
    (one_labels, one_areas), (other_labels, other_areas), pairs = predicted.total, annotated.total, shared.total
    first, second = np.searchsorted(one_labels, pairs.first), np.searchsorted(other_labels, pairs.second)
    iou = pairs.pixels / (one_areas[first] + other_areas[second] - pairs.pixels)
    return Overlaps(one_areas, other_areas, first, second, pairs.pixels, iou)


def _areas(labels: Ints, pixels: Ints) -> tuple[Ints, Ints]:
    """The labels but 0, sorted, and the pixels of each; both may list a label several times."""
    known, where = np.unique(labels, return_inverse=True)
    total = np.bincount(where.ravel(), weights=pixels, minlength=known.size).astype(np.int64)
    return known[known > 0], total[known > 0]


def _summed_areas(parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    labels, pixels = zip(*parts, strict=True)
    return _areas(np.concatenate(labels), np.concatenate(pixels))


def _summed_pairs(parts: Sequence[SharedPixels]) -> SharedPixels:
    return summed(parts) if parts else SharedPixels(*[np.zeros(0, np.int64)] * 3)


def _area_count(part: tuple[Ints, Ints]) -> int:
    return part[0].size


def _pair_count(part: SharedPixels) -> int:
    return part.first.size


class _RunningSum(Generic[Part]):
    """The sum of many parts, in memory for no more than about twice as many entries as the sum has.

    summed: adds parts up, in which an entry may be several times; size: entries of a part.
    """

    def __init__(self, summed: Callable[[Sequence[Part]], Part], size: Callable[[Part], int]) -> None:
        self._summed, self._size = summed, size
        self._parts: list[Part] = []
        self._entries, self._most = 0, LEAST

    def add(self, part: Part) -> None:
        """Adds a part. Adding up waits until entries have doubled, so that its cost is shared by all parts."""
        self._parts.append(part)
        self._entries += self._size(part)
        if self._entries > self._most:
            self._parts = [self.total]
            self._entries = self._size(self._parts[0])
            self._most = max(LEAST, 2 * self._entries)

    @property
    def total(self) -> Part:
        """The sum of all parts."""
        return self._summed(self._parts)
