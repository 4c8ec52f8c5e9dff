"""An annotated image before it is read: where its pixels and its annotation are, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.annotations.encoding import Annotation
from nucseg_batch.files.annotations.reading import read_empty, read_label_files, read_label_plane, read_masks
from nucseg_batch.files.images import read_image
from nucseg_batch.files.zarr.planes import ZarrPlane

MAX_IMAGE_PIXELS = 100_000_000
"""Images to train on with more pixels are refused."""


@dataclass(frozen=True)
class Pair:
    """One annotated image, as files or as planes of a zarr store."""

    key: str
    """Name that is unique in the data set."""
    image: Path | ZarrPlane
    """The image."""
    labels: tuple[Path, ...] | ZarrPlane
    """A label image, or a binary picture for each nucleus; no file where an image of Kaggle's layout has no nuclei."""
    split: str | None = None
    """`train` or `val` where the data set says so."""
    modality: str = "unknown"
    """Kind of microscopy, where the data set says so."""
    group: str | None = None
    """Plate, patient or the like, where the data set says so: images of one group stay together in a split."""
    pictures: bool = False
    """Whether the labels are pictures of single nuclei."""
    ignore: tuple[Path, ...] = ()
    """Images whose non-zero pixels are neither nucleus nor background: nothing is learned or scored there."""
    collection: str = ""
    """Folder of the data set that it belongs to, where several were given or found."""

    def read_pixels(self) -> NDArray[Any]:
        """(height, width) or (height, width, 3) of any real dtype; ImageError where it cannot be read."""
        if isinstance(self.image, ZarrPlane):
            return self.image.read(max_pixels=MAX_IMAGE_PIXELS)
        return read_image(self.image, max_pixels=MAX_IMAGE_PIXELS)

    def read_labels(self, *, semantic: bool = False, prediction: bool = False) -> Annotation:
        """Its nuclei, by the rules of `encoding`; ImageError where they cannot be read or are no labels."""
        if isinstance(self.labels, ZarrPlane):
            return read_label_plane(self.labels, semantic=semantic, prediction=prediction)
        if not self.labels:
            return read_empty(self.image)
        return read_label_files(self.labels, pictures=self.pictures, semantic=semantic, prediction=prediction)

    def read_ignored(self) -> NDArray[np.bool_] | None:
        """(height, width), True where `ignore` says so; None where it names no file. ImageError as for labels."""
        return read_masks(self.ignore) if self.ignore else None


@dataclass(frozen=True)
class DataSet:
    """The annotated images of a folder, and what in it is no annotated image."""

    pairs: tuple[Pair, ...] = ()
    """Sorted by key."""
    problems: tuple[str, ...] = ()
    """A sentence for all that does not pair or is not used, for the user."""
    orphans: tuple[Path, ...] = ()
    """Label images, by their folder or name, without an image."""
    loose: tuple[Path, ...] = ()
    """Files in folders where nothing says which are images and which are label images."""


def joined(parts: Iterable[DataSet]) -> DataSet:
    """Several data sets as one; problems keep their order."""
    parts = list(parts)
    return DataSet(
        tuple(sorted((pair for part in parts for pair in part.pairs), key=lambda pair: pair.key)),
        tuple(problem for part in parts for problem in part.problems),
        tuple(path for part in parts for path in part.orphans),
        tuple(path for part in parts for path in part.loose),
    )
