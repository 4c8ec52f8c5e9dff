"""An annotated image before it is read: where its pixels and its annotation are, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.annotations import read_label_plane, read_labels
from nucseg_batch.files.images import read_image
from nucseg_batch.files.zarr.planes import ZarrPlane

MAX_PIXELS = 100_000_000
"""Annotated images with more pixels are refused."""


@dataclass(frozen=True)
class Pair:
    """One annotated image, as files or as planes of a zarr store."""

    key: str
    """Name that is unique in the data set."""
    image: Path | ZarrPlane
    """The image."""
    labels: tuple[Path, ...] | ZarrPlane
    """A label image, or a binary picture for each nucleus."""
    split: str | None = None
    """`train` or `val` where the data set says so."""
    modality: str = "unknown"
    """Kind of microscopy, where the data set says so."""
    group: str | None = None
    """Plate, patient or the like, where the data set says so: images of one group stay together in a split."""

    def read_pixels(self) -> NDArray[Any]:
        """(height, width) or (height, width, 3) of any real dtype; ImageError where it cannot be read."""
        if isinstance(self.image, ZarrPlane):
            return self.image.read(max_pixels=MAX_PIXELS)
        return read_image(self.image, max_pixels=MAX_PIXELS)

    def read_labels(self) -> NDArray[np.int32]:
        """(height, width), nuclei 1..n, 0 for background; ImageError where they cannot be read."""
        return read_label_plane(self.labels) if isinstance(self.labels, ZarrPlane) else read_labels(self.labels)


@dataclass(frozen=True)
class DataSet:
    """The annotated images of a folder, and what in it is no annotated image."""

    pairs: tuple[Pair, ...] = ()
    """Sorted by key."""
    problems: tuple[str, ...] = ()
    """A sentence for all that does not pair or is not used, for the user."""


def joined(parts: Iterable[DataSet]) -> DataSet:
    """Several data sets as one; problems keep their order."""
    parts = list(parts)
    pairs = sorted((pair for part in parts for pair in part.pairs), key=lambda pair: pair.key)
    return DataSet(tuple(pairs), tuple(problem for part in parts for problem in part.problems))
