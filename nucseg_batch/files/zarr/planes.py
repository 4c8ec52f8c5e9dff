"""Single planes of OME-Zarr images and label images, as annotated data holds them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.folders import is_array, is_store
from nucseg_batch.files.zarr.guard import member_path
from nucseg_batch.files.zarr.guarded_array import GuardedArray
from nucseg_batch.files.zarr.header import STACK, ZarrHeader
from nucseg_batch.files.zarr.nodes import OWNER, open_tree
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.source import describe_image
from nucseg_batch.files.zarr.store import StoreFiles

MAX_IMAGES = 1_000_000
"""Images that an array may have along axis i; more are metadata that lie."""


@dataclass(frozen=True)
class ZarrPlane:
    """One plane of an OME-Zarr image or label group, at full resolution."""

    group: Path
    """The image or label group."""
    index: int | None = None
    """Place on axis i; None for a group that is one image."""

    def read(self, *, max_pixels: int) -> NDArray[Any]:
        """Reads the plane: (height, width), or (height, width, 3) where it has three channels; floats as float32.

        Other axes must be of length 1. Raises ImageError for anything else, for more than `max_pixels` pixels, for
        pixels that are not finite, and for what `GuardedArray` and `describe` refuse.
        """
        files, image = _described(self.group)
        return self._read(self._array(files, image, max_pixels), image, {})

    def open_slices(self, *, max_pixels: int) -> tuple[tuple[int, int, int, int], Callable[[int, int], NDArray[Any]]]:
        """Numbers of time points and z-slices, height and width, and what reads one of them by time point and slice.

        Raises ImageError as `read` does, except that axes t and z may have any length.
        """
        files, image = _described(self.group)
        array = self._array(files, image, max_pixels)
        times, depth, height, width = (image.header.length(axis) for axis in "TZYX")
        return (times, depth, height, width), lambda t, z: self._read(array, image, {"T": t, "Z": z})

    def _array(self, files: StoreFiles, image: ZarrHeader, max_pixels: int) -> GuardedArray:
        height, width = image.header.length("Y"), image.header.length("X")
        if height * width > max_pixels:
            raise ImageError(f"it has {height} x {width} pixels; at most {max_pixels} a plane are allowed.")
        return GuardedArray(files, image, ours=OWNER in attributes(self.group))

    def _read(self, array: GuardedArray, image: ZarrHeader, at: Mapping[str, int]) -> NDArray[Any]:
        letters, shape = image.letters, image.facts.shape
        stored = array.read(tuple(self._place(*axis, at) for axis in zip(letters, shape, strict=True)))
        order = [letters.index(letter) for letter in "YX"]
        order += [place for place, letter in enumerate(letters) if letter in "CS" and stored.shape[place] == 3]
        rest = [place for place in range(len(letters)) if place not in order]
        pixels = stored.transpose(rest + order).reshape([stored.shape[place] for place in order])
        if pixels.dtype.kind == "f":
            if not np.isfinite(pixels).all():
                raise ImageError("it has pixels that are not finite numbers.")
            pixels = pixels.astype(np.float32)
        return np.ascontiguousarray(pixels)

    def _place(self, letter: str, length: int, at: Mapping[str, int]) -> slice:
        if letter in at:
            return slice(at[letter], at[letter] + 1)
        if letter in "YX":
            return slice(0, length)
        if letter == STACK and self.index is not None:
            return slice(self.index, self.index + 1)
        if letter == "S" or (letter == "C" and length == 3):
            return slice(0, 3)
        if length != 1:
            raise ImageError(f"it has {length} places on axis {letter.lower()}; expected one plane, grey or RGB.")
        return slice(0, 1)


def _described(group: Path) -> tuple[StoreFiles, ZarrHeader]:
    if not group.is_dir():
        raise ImageError("there is no group or array of zarr.")
    tree = open_tree(group)
    return tree.files, describe_image(tree, "", annotated=True)


def image_axis_length(group: Path) -> int | None:
    """Images of a group that has axis i; None for a group that is one image.

    Raises ImageError for what is no image, and for more than MAX_IMAGES.
    """
    _, image = _described(group)
    if STACK not in image.letters:
        return None
    count = image.facts.shape[image.letters.index(STACK)]
    if count > MAX_IMAGES:
        raise ImageError(f"it has {count} images on axis i; at most {MAX_IMAGES} are allowed.")
    return count


def attributes(group: Path) -> dict[str, Any]:
    """All attributes of a group; empty for what is no group. Raises ImageError where they cannot be read."""
    node = open_tree(group).node("", "group") if group.is_dir() else None
    return {} if node is None else node.attributes


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array, or is named like a store."""
    return folder.suffix == ".zarr" or is_store(folder)


def labelled_groups(store: Path) -> list[Path]:
    """Groups of a store, itself included, that have a `labels` group, sorted; arrays are not searched."""
    found = []
    for place, folders, _ in os.walk(store):
        here = Path(place)
        if is_array(here):
            folders.clear()
        elif "labels" in folders:
            found.append(here)
            folders.remove("labels")
    return sorted(found)


def label_names(group: Path) -> list[str]:
    """Names of the label images of an image group, as its `labels` group lists them.

    Raises ImageError where they cannot be read, and for a name that leads out of the store.
    """
    names = ome_of(attributes(group / "labels")).get("labels", [])
    return [member_path("", name) for name in names] if isinstance(names, list) else []
