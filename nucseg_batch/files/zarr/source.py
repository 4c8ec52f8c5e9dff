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
from collections.abc import Callable, Mapping
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
AHEAD_BYTES = 2**20
"""Decoded bytes of small planes that follow each other in a local store and are read in one call: a call of zarr takes
longer than decoding such a plane."""
KEPT_AHEAD = 32 * AHEAD_BYTES
"""Decoded bytes that were read ahead and are kept, of all open images."""
KEPT_TREES = 4
"""Stores behind URLs and in archives whose lists of files are kept, not read again for each image."""
Bounds = dict[str, tuple[int, int]]
"""The first place along each of some axes, and the one behind the last."""
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
    """Decoded windows of many planes, the latest of them up to `most` bytes, for all sources."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[Any, ...], NDArray[Any]] = OrderedDict()
        self._loading: dict[tuple[Any, ...], threading.Lock] = {}

    def once(self, key: tuple[Any, ...], load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What is kept under a key, or what `load` returns; threads that ask for the same wait for one of them."""
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        try:
            with loading:
                pixels = self.get(key)
                if pixels is None:
                    pixels = load()
                    self.put(key, pixels)
                return pixels
        finally:
            with self._lock:
                self._loading.pop(key, None)

    def get(self, key: tuple[Any, ...]) -> NDArray[Any] | None:
        with self._lock:
            if key in self._windows:
                self._windows.move_to_end(key)
            return self._windows.get(key)

    def put(self, key: tuple[Any, ...], pixels: NDArray[Any]) -> None:
        with self._lock:
            self._windows[key] = pixels
            while sum(window.nbytes for window in self._windows.values()) > self._most:
                self._windows.popitem(last=False)

    def drop(self, source: object) -> None:
        with self._lock:
            for key in [key for key in self._windows if key[0] is source]:
                del self._windows[key]


_KEPT = _Kept(KEPT_BYTES)
_AHEAD = _Kept(KEPT_AHEAD)


class ZarrSource:
    """An image in a store that is open for reading; implements `Source`, for many threads at once."""

    def __init__(self, files: StoreFiles, image: ZarrHeader) -> None:
        self._files = files
        self._image = image
        self._array = GuardedArray(files, image)
        self._alone: set[tuple[int, ...]] = set()

    @property
    def header(self) -> Header:
        """What its metadata say."""
        return self._image.header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane; see `Source`. Raises ImageError where its chunks cannot be read."""
        check_window(self.header, t, z, rows, columns)
        window = {"Y": (rows.start or 0, rows.stop), "X": (columns.start or 0, columns.stop)}
        block, pixels = self._pixels(t, z, window)
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
        _AHEAD.drop(self)

    def _pixels(self, t: int, z: int, window: Bounds) -> tuple[Bounds, NDArray[Any]]:
        """The planes that are read together with a plane, and their pixels in a window, as `_load` returns them.

        If a plane that is read ahead cannot be read, planes are read one by one, so that only this plane fails.
        """
        block = self._block(t, z, window)
        ahead = self._ahead(block, window)
        place = (*ahead["T"], *ahead["Z"])
        if ahead != block and place not in self._alone:
            try:
                return ahead, _AHEAD.once((self, *place), lambda: self._load(ahead | window))
            except ImageError:
                self._alone.add(place)
        if all(stop - start == 1 for start, stop in block.values()):
            return block, self._load(block | window)
        return block, _KEPT.once((self, *block.values(), *window.values()), lambda: self._load(block | window))

    def _block(self, t: int, z: int, window: Bounds) -> Bounds:
        """Planes that are read together: all in the same chunks, where they are small enough to be kept."""
        letters, facts = self._image.letters, self._image.facts
        block = {}
        for axis, place in (("T", t), ("Z", z)):
            step = facts.chunk[letters.index(axis)] if axis in letters else 1
            block[axis] = (place // step * step, min((place // step + 1) * step, self.header.length(axis)))
        if self._bytes(block, window) > KEPT_BYTES // 2:
            return {"T": (t, t + 1), "Z": (z, z + 1)}
        return block

    def _ahead(self, block: Bounds, window: Bounds) -> Bounds:
        """The same and the planes around them, in the order of a run, up to AHEAD_BYTES; only of whole planes.

        Behind a URL, where each chunk takes a request, nothing is read that was not asked for.
        """
        whole = all(window[axis] == (0, self.header.length(axis)) for axis in "YX")
        if self._files.local is None or not whole or self._bytes(block, window) > AHEAD_BYTES // 2:
            return block
        letters, facts = self._image.letters, self._image.facts
        found = dict(block)
        for axis in "ZT":
            length = self.header.length(axis)
            step = facts.chunk[letters.index(axis)] if axis in letters else 1
            step *= max(1, AHEAD_BYTES // self._bytes({**found, axis: (0, step)}, window))
            start = block[axis][0] // step * step
            found[axis] = (start, min(start + step, length))
            if found[axis] != (0, length):
                break
        return found

    def _bytes(self, block: Bounds, window: Bounds) -> int:
        """Decoded bytes of a window of the planes of a block."""
        lengths = [stop - start for start, stop in (block | window).values()]
        samples = self.header.length("C") * self.header.length("S")
        return math.prod([*lengths, samples]) * self._image.facts.dtype.itemsize

    def _load(self, bounds: Bounds) -> NDArray[Any]:
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
