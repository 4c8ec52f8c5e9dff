"""Which predicted and annotated volumes of a stack share voxels, counted slice by slice for `agreement`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, overlaps, summed
from nucseg_batch.arrays.label_overlaps import Overlaps as SharedPixels
from nucseg_batch.arrays.metrics import Overlaps

Ints = NDArray[np.int64]


def stack_overlaps(slices: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]]) -> Overlaps:
    """Finds the pairs of volumes of two label stacks that share voxels, as `metrics.overlaps` does for whole arrays.

    slices: of each slice the prediction and the truth, (height, width) of labels below 2^32, of one shape. Memory is
    that of one slice, and some hundred bytes for each section of a nucleus.
    """
    predicted, annotated, shared = list[tuple[Ints, Ints]](), list[tuple[Ints, Ints]](), list[SharedPixels]()
    for prediction, truth in slices:
        if prediction.shape != truth.shape:
            raise ValueError(f"label images must have one shape, but are {prediction.shape} and {truth.shape}.")
        one, other = LabelRuns.of(prediction), LabelRuns.of(truth)
        predicted.append(_areas(one.labels, np.diff(one.starts, append=one.pixels)))
        annotated.append(_areas(other.labels, np.diff(other.starts, append=other.pixels)))
        shared.append(overlaps(one, other))
    one_labels, one_areas = _areas(*_joined(predicted))
    other_labels, other_areas = _areas(*_joined(annotated))
    pairs = summed(shared) if shared else SharedPixels(*[np.zeros(0, np.int64)] * 3)
    first, second = np.searchsorted(one_labels, pairs.first), np.searchsorted(other_labels, pairs.second)
    iou = pairs.pixels / (one_areas[first] + other_areas[second] - pairs.pixels)
    return Overlaps(one_areas, other_areas, first, second, pairs.pixels, iou)


def _areas(labels: Ints, pixels: Ints) -> tuple[Ints, Ints]:
    """The labels but 0, sorted, and the pixels of each; both may list a label several times."""
    known, where = np.unique(labels, return_inverse=True)
    total = np.bincount(where.ravel(), weights=pixels, minlength=known.size).astype(np.int64)
    return known[known > 0], total[known > 0]


def _joined(parts: list[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    labels, pixels = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(pixels)
