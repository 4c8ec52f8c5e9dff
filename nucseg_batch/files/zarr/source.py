"""Images in zarr stores, read by windows of single planes.

Values: bool comes as 0 and 255; floats come as float32, and those that are not finite take the fill value of the array
(0 where that is not finite, either), whatever window they are read in. A plane of which no pixel is finite is refused
when it is read whole. A chunk that is not there is empty, by the rules of zarr: see `count_chunks`.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.missing import is_filling
from nucseg_batch.files.source import Header
from nucseg_batch.files.zarr.census import ChunkCount, count_chunks, has_chunks
from nucseg_batch.files.zarr.guarded_array import GuardedArray
from nucseg_batch.files.zarr.header import ZarrHeader, describe, first_level
from nucseg_batch.files.zarr.nodes import Node, ZarrTree, open_tree
from nucseg_batch.files.zarr.store import StoreFiles, is_url
from nucseg_batch.files.zarr.zipped import is_archive, within_archive

KEPT_BYTES = 256 * 2**20
"""Decoded bytes of all open images that are kept, so that chunks of many planes are decoded once, not for each."""
KEPT_TREES = 4
"""Stores behind URLs and in archives whose lists of files are kept, not read again for each image."""
_TREES: OrderedDict[tuple[str, str], ZarrTree] = OrderedDict()
_FINDING = threading.Lock()
"""Held while `_TREES` is used."""


def open_zarr(
    root: str | os.PathLike[str],
    path: str = "",
    *,
    axes: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ZarrSource:
    """Opens one image of a store, given by path or URL: an image group or an array, at a path in the store.

    `axes` are those of an array that does not say them, such as `tczyx`. Raises ImageError for what cannot be read and
    InputMissingError where there is no such store.
    """
    if not is_url(root):
        root, path = within_archive(os.fspath(root), path)
    tree = _tree(root, storage_options)
    return ZarrSource(tree.files, describe_image(tree, path, axes=axes))


def _tree(root: str | os.PathLike[str], storage_options: Mapping[str, Any] | None) -> ZarrTree:
    if is_url(root):
        key = (str(root), repr(storage_options))
    elif is_archive(root, named=True):  # whose list of files is read once, and anew where it was changed
        status = os.stat(root)
        key = (os.path.abspath(root), f"{status.st_size} {status.st_mtime_ns}")
    else:
        return open_tree(root)
    with _FINDING:
        if key not in _TREES:
            _TREES[key] = open_tree(root, storage_options)
        _TREES.move_to_end(key)
        while len(_TREES) > KEPT_TREES:
            _TREES.popitem(last=False)
        return _TREES[key]


def describe_image(tree: ZarrTree, path: str, *, axes: str | None = None, annotated: bool = False) -> ZarrHeader:
    """Describes one image of a store; raises ImageError where there is none, or one that cannot be read.

    `annotated` allows what annotated data may be besides: label images, and many images along an axis i.
    """
    node = tree.node(path)
    if node is None:
        raise ImageError("there is no group or array of zarr.")
    array = node if node.kind == "array" else tree.node(first_level(node, labels=annotated), "array")
    return described(tree.files, node, array, axes=axes, stacked=annotated)


def described(
    files: StoreFiles, node: Node, array: Node | ImageError | None, *, axes: str | None, stacked: bool = False
) -> ZarrHeader:
    """Describes an image whose metadata were read, and looks at how its chunks are named; see `describe`."""
    image = describe(None if node.kind == "array" else node, array, axes=axes, stacked=stacked)
    if files.local is not None:
        return replace(image, blank=not has_chunks(files.local / image.array, image.facts))
    return image


def check_window(header: Header, t: int, z: int, rows: slice, columns: slice) -> None:
    """Raises ValueError for a window that does not lie within an image: arrays would return a smaller one."""
    sides = ((rows, header.length("Y")), (columns, header.length("X")))
    good = all(
        side.step in (None, 1) and side.stop is not None and 0 <= (side.start or 0) < side.stop <= length
        for side, length in sides
    )
    if not good or not 0 <= t < header.length("T") or not 0 <= z < header.length("Z"):
        raise ValueError(f"the window t={t}, z={z}, {rows}, {columns} lies outside of {header.axes} {header.shape}.")


def real_values(plane: NDArray[Any], *, whole: bool, filling: float) -> NDArray[Any]:
    """Pixels as `Source.read` returns them, contiguous, in native byte order; `filling` replaces what is missing.

    `missing.is_filling` says what is missing. Raises ImageError where no pixel of a `whole` plane is finite, and for
    floats beyond single precision.
    """
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8) * np.uint8(255)
    if plane.dtype.kind != "f":
        return np.ascontiguousarray(plane, plane.dtype.newbyteorder("="))
    good = ~is_filling(plane)
    if whole and not good.any():
        raise ImageError("none of its pixels is a finite number.")
    pixels = plane if good.all() else np.where(good, plane, plane.dtype.type(filling))
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(pixels, np.float32)
    if not np.isfinite(single).all():
        raise ImageError(f"its pixels reach to {np.abs(pixels).max():g}, beyond what single precision can hold.")
    return single


class _Kept:
    """Decoded windows of many planes, the latest up to KEPT_BYTES of them, for all sources."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()

    def get(self, key: tuple[Any, ...]) -> NDArray[Any] | None:
        with self._lock:
            if key in self._windows:
                self._windows.move_to_end(key)
            return self._windows.get(key)

    def put(self, key: tuple[Any, ...], pixels: NDArray[Any]) -> None:
        with self._lock:
            self._windows[key] = pixels
            while sum(window.nbytes for window in self._windows.values()) > KEPT_BYTES:
                self._windows.popitem(last=False)

    def drop(self, source: object) -> None:
        with self._lock:
            for key in [key for key in self._windows if key[0] is source]:
                del self._windows[key]


_KEPT = _Kept()


class ZarrSource:
    """An image in a store that is open for reading; implements `Source`, for many threads at once."""

    def __init__(self, files: StoreFiles, image: ZarrHeader) -> None:
        self._files = files
        self._image = image
        self._array = GuardedArray(files, image)

    @property
    def header(self) -> Header:
        """What its metadata say."""
        return self._image.header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane; see `Source`. Raises ImageError where its chunks cannot be read."""
        check_window(self.header, t, z, rows, columns)
        window = {"Y": (rows.start or 0, rows.stop), "X": (columns.start or 0, columns.stop)}
        block = self._block(t, z, [stop - start for start, stop in window.values()])
        key = (self, *block.values(), *window.values())
        pixels = _KEPT.get(key)
        if pixels is None:
            pixels = self._load(block | window)
            if any(stop - start > 1 for start, stop in block.values()):
                _KEPT.put(key, pixels)
        plane = pixels[t - block["T"][0], z - block["Z"][0]]
        sides = plane.shape[:2] if self._image.colour else plane.shape[-2:]
        whole = sides == (self.header.length("Y"), self.header.length("X"))
        return real_values(plane, whole=whole, filling=self._array.fill_value if plane.dtype.kind == "f" else 0)

    def missing_chunks(self, limit: int = 200_000) -> ChunkCount | None:
        """Counts the chunk files at full resolution, at most `limit`; None behind a URL, where each takes a request.

        A chunk without a file is empty or lost, which zarr cannot tell apart: it reads as the fill value. Chunks that
        are missing within a shard are not seen.
        """
        local = self._files.local
        return None if local is None else count_chunks(local / self._image.array, self._image.facts, limit=limit)

    def close(self) -> None:
        """Lets go of the array and of what was kept of it."""
        self._array.close()
        _KEPT.drop(self)

    def _block(self, t: int, z: int, sides: list[int]) -> dict[str, tuple[int, int]]:
        """Planes that are read together: all in the same chunks, where they are small enough to be kept."""
        letters, facts = self._image.letters, self._image.facts
        block = {}
        for axis, place in (("T", t), ("Z", z)):
            step = facts.chunk[letters.index(axis)] if axis in letters else 1
            block[axis] = (place // step * step, min((place // step + 1) * step, self.header.length(axis)))
        lengths = [stop - start for start, stop in block.values()]
        samples = self.header.length("C") * self.header.length("S")
        if math.prod([*lengths, *sides, samples]) * facts.dtype.itemsize > KEPT_BYTES // 2:
            return {"T": (t, t + 1), "Z": (z, z + 1)}
        return block

    def _load(self, bounds: dict[str, tuple[int, int]]) -> NDArray[Any]:
        """Stored pixels as (t, z, y, x), (t, z, c, y, x) or, of a colour, (t, z, y, x, 3), contiguous in memory."""
        letters = self._image.letters
        where = tuple(
            slice(*bounds[letter]) if letter in bounds else slice(0, 3) if letter == "S" else slice(None)
            for letter in letters
        )
        stored = self._array.read(where)
        order = [letters.index(letter) for letter in ("TZYXS" if self._image.colour else "TZCYX") if letter in letters]
        rest = [place for place, letter in enumerate(letters) if letter == "-"]
        pixels = stored.transpose(rest + order).reshape([stored.shape[place] for place in order])
        for place, axis in enumerate("TZ"):
            if axis not in letters:
                pixels = np.expand_dims(pixels, place)
        return np.ascontiguousarray(pixels)
