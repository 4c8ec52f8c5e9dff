"""What the network is trained to answer for each pixel of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.outputs import OFFSET_UNIT, Target

EDGE_WEIGHT = 3.0
"""How much more a pixel at the edge of a nucleus counts in the cross-entropy."""
TYPICAL_AREA = 530.0
"""Area in pixels of a nucleus whose pixels count once; those of smaller ones count more, of larger ones less."""


def centres_and_areas(labels: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centroid (y, x) and area in pixels of every label 0..max; row 0 and absent labels are zero."""
    ids = labels.ravel().astype(np.intp)
    area = np.bincount(ids)
    y, x = np.indices(labels.shape)
    sums = np.stack([np.bincount(ids, y.ravel()), np.bincount(ids, x.ravel())], axis=1)
    centres = sums / np.maximum(area, 1)[:, None]
    centres[0], area[0] = 0, 0
    return centres, area


def training_target(
    labels: NDArray[np.integer],
    centres: NDArray[np.float64],
    areas: NDArray[Any],
    cover: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """(height, width, Target): what a network of any task is trained to answer.

    labels: (height, width), 0 is background, -1 is not annotated (as what lies beyond the image) and has no weight.
    centres: (n + 1, 2), the centre of each label in pixels of this crop; it may lie outside the crop, as it must for a
    nucleus that the crop cuts. areas: (n + 1,), in pixels of this crop's scale, of the whole nucleus. cover:
    (height, width), how much of each pixel is nucleus; 1 or 0, as `labels` say, if None.
    """
    height, width = labels.shape
    target = np.zeros((height, width, len(Target)), np.float32)
    inside, known = labels > 0, labels >= 0
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        step = np.diff(labels, axis=axis) != 0
        step &= np.diff(known.astype(np.int8), axis=axis) == 0  # where annotation ends is not where a nucleus does
        low = [slice(None), slice(None)]
        high = [slice(None), slice(None)]
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        edge[tuple(low)] |= step
        edge[tuple(high)] |= step
    weight = np.sqrt(TYPICAL_AREA / np.maximum(areas, 1.0))
    target[..., Target.FOREGROUND] = inside if cover is None else np.where(known, cover, 0)
    of_size = np.concatenate([[1.0], weight[1:].clip(0.7, 2.0), [0.0]])  # the last is for what is not annotated: -1
    by_edge = np.stack([of_size, of_size * EDGE_WEIGHT], axis=1).astype(np.float32).ravel()
    target[..., Target.FOREGROUND_WEIGHT] = by_edge[2 * labels + edge]
    of_offsets = np.concatenate([[0.0], weight[1:].clip(0.3, 3.0), [0.0]]).astype(np.float32)
    target[..., Target.OFFSET_WEIGHT] = of_offsets[labels]
    for offset, axis, place in (
        (Target.OFFSET_Y, 0, np.arange(height)[:, None]),
        (Target.OFFSET_X, 1, np.arange(width)),
    ):
        towards = centres[:, axis].astype(np.float32)[labels]
        towards -= place.astype(np.float32)
        towards /= OFFSET_UNIT
        towards *= inside
        target[..., offset] = towards
    return target
