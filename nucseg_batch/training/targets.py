"""What is handed to the device of an annotated view, from which `on_device` makes the target of the network."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.views import renumber

COVER_STEPS = 255
"""`cover` of a whole pixel, as it is handed over."""
PIXELS_A_NUCLEUS = 32
"""Pixels of a target for each nucleus that it can hold, up to MOST_NUCLEI; further nuclei count as not annotated."""
MOST_NUCLEI = np.iinfo(np.int16).max
"""Largest label of a target."""


class CompactTarget(TypedDict):
    """A target as it is handed over: 3 bytes a pixel in place of the 20 of the target itself, and a table of nuclei."""

    labels: NDArray[np.int16]
    """(height, width): row of `nuclei`; 0 is background, -1 is not annotated and has no weight."""
    cover: NDArray[np.uint8]
    """(height, width): how much of each pixel is nucleus, 0 to COVER_STEPS; 0 where nothing is annotated."""
    nuclei: NDArray[np.float32]
    """(room + 1, 3): y and x of the centre of each nucleus, which may lie outside the view, and its area, in pixels of
    the view. Row 0 and rows without a nucleus are 0."""


def centres_and_areas(labels: NDArray[np.integer]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Centroid (y, x) and area in pixels of every label 0..max; row 0 and absent labels are zero."""
    ids = labels.ravel().astype(np.intp)
    area = np.bincount(ids)
    y, x = np.indices(labels.shape)
    sums = np.stack([np.bincount(ids, y.ravel()), np.bincount(ids, x.ravel())], axis=1)
    centres = sums / np.maximum(area, 1)[:, None]
    centres[0], area[0] = 0, 0
    return centres, area


def compact_target(
    labels: NDArray[np.int32],
    centres: NDArray[np.float64],
    areas: NDArray[Any],
    cover: NDArray[np.float32] | None = None,
) -> CompactTarget:
    """The target of a view, to be handed over.

    labels: (height, width), 0 is background, -1 is not annotated (as what lies beyond the image) and has no weight.
    centres: (n + 1, 2), the centre of each label in pixels of the view; it may lie outside the view, as it must for a
    nucleus that the view cuts. areas: (n + 1,), in pixels of the view's scale, of the whole nucleus. cover:
    (height, width), how much of each pixel is nucleus; 1 or 0, as `labels` say, if None.
    """
    table = np.column_stack([centres, areas]).astype(np.float32)
    rows, nuclei = renumber(labels, table, min(labels.size // PIXELS_A_NUCLEUS, MOST_NUCLEI))
    if cover is None:
        shown = (rows > 0).astype(np.uint8) * np.uint8(COVER_STEPS)
    else:
        shown = (cover * np.float32(COVER_STEPS) + np.float32(0.5)).astype(np.uint8)
        shown[rows < 0] = 0
    return CompactTarget(labels=rows, cover=shown, nuclei=nuclei)
