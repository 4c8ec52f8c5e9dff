"""Pixels that labels of two label images share, counted over runs of equal labels instead of pixel by pixel.

A label image has some hundred times fewer runs than pixels. Counts of tiles add up to those of the whole image, so a
plane of any size is compared tile by tile with an exact result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelRuns:
    """A label image as runs of equal labels in raster order, background included."""

    starts: NDArray[np.int64]
    """(n,): the first pixel of each run, counted along the rows of the image; ascending from 0."""
    labels: NDArray[np.int64]
    """(n,): the label of each run."""
    pixels: int
    """Pixels of the image."""

    @classmethod
    def of(cls, image: NDArray[np.integer]) -> LabelRuns:
        """The runs of a label image (height, width) of at least one pixel."""
        flat = np.ascontiguousarray(image).ravel()
        starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
        return cls(starts.astype(np.int64), flat[starts].astype(np.int64), flat.size)

    def areas(self, count: int) -> NDArray[np.int64]:
        """(count + 1,): pixels of the labels 1..count, and then of all larger ones."""
        lengths = np.diff(self.starts, append=self.pixels)
        labels = np.minimum(self.labels, count + 1)
        return np.bincount(labels, weights=lengths, minlength=count + 2).astype(np.int64)[1:]


@dataclass(frozen=True)
class Overlaps:
    """Pairs of labels of two images that share pixels, sorted by the first label and then by the second."""

    first: NDArray[np.int64]
    """(n,): label in the first image."""
    second: NDArray[np.int64]
    """(n,): label in the second image."""
    pixels: NDArray[np.int64]
    """(n,): pixels that have both."""

    @classmethod
    def counted(cls, first: NDArray[np.int64], second: NDArray[np.int64], pixels: NDArray[np.int64]) -> Overlaps:
        """Overlaps of pairs of which some may be listed several times."""
        pairs, where = np.unique((first << 32) | second, return_inverse=True)
        total = np.bincount(where.ravel(), weights=pixels, minlength=pairs.size).astype(np.int64)
        return cls(pairs >> 32, pairs & 0xFFFFFFFF, total)


def overlaps(first: LabelRuns, second: LabelRuns) -> Overlaps:
    """Pixels that labels of two images of one shape share; background is left out."""
    starts = np.concatenate([first.starts, second.starts])
    order = np.argsort(starts, kind="stable")  # a merge, since both are sorted
    of_first = order < first.starts.size
    one, other = first.labels[np.cumsum(of_first) - 1], second.labels[np.cumsum(~of_first) - 1]  # -1 only at the start
    lengths = np.diff(starts[order], append=first.pixels)
    both = (one > 0) & (other > 0) & (lengths > 0)
    return Overlaps.counted(one[both], other[both], lengths[both])


def summed(parts: Sequence[Overlaps]) -> Overlaps:
    """The overlaps of a plane from those of its tiles, of which there is at least one."""
    if len(parts) == 1:
        return parts[0]
    first, second, pixels = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second", "pixels")
    )
    return Overlaps.counted(first, second, pixels)
