"""Planned images, opened to read their planes: by the reader that fits, kept open while more planes are to come."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.bioio_source import BIOIO_SUFFIXES, open_bioio
from nucseg_batch.files.channel_source import ChannelFiles
from nucseg_batch.files.flat_fields import FlatFields
from nucseg_batch.files.images import open_file
from nucseg_batch.files.source import ChannelInfo, Header, Source
from nucseg_batch.files.zarr.source import open_zarr
from nucseg_batch.plan import ImageInfo, Plane
from nucseg_batch.settings import SegmentSettings

State = tuple[int, int]
"""Size in bytes and time of last change in nanoseconds of an image, as `ImageInfo` has them."""
KEPT_OPEN = 16
"""Images that stay open at once because more of their planes or regions may be asked for."""


@dataclass
class _OpenImage:
    """An image that is open, and how many readers are in it."""

    source: Source
    readers: int = 0


class ImageReader:
    """The images of a run below IN; threads may read at once. A context manager, which closes them.

    states: size and time of last change of images that were changed after they were planned, and are meant as they are
    now, by key; flat_fields: what `corrected` divides by, None for nothing.
    """

    def __init__(
        self,
        root: str | Path,
        settings: SegmentSettings,
        states: Mapping[str, State] | None = None,
        flat_fields: FlatFields | None = None,
    ) -> None:
        self._root = root
        self._settings = settings
        self._states = {} if states is None else states
        self.flat_fields = flat_fields
        self._open: OrderedDict[str, _OpenImage] = OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for one in self._open.values():
                one.source.close()
            self._open.clear()

    def read(self, plane: Plane, rows: slice | None = None, columns: slice | None = None) -> NDArray[Any]:
        """Pixels of a plane or of a window of it: (h, w) grey, (h, w, 3) colour, or (c, h, w) with separate channels.

        Raises ImageError where they cannot be read, the image is no longer the one that was planned, or it was changed
        while it was read.
        """
        info = plane.image
        rows, columns = rows or slice(0, info.height), columns or slice(0, info.width)
        with self.opened(info) as source:
            self._check_planned(plane, source.header)
            t = plane.t or 0
            if not info.projected:
                pixels = source.read(t, plane.z or 0, rows, columns)
            else:
                pixels = source.read(t, 0, rows, columns)
                for z in range(1, source.header.length("Z")):
                    pixels = np.maximum(pixels, source.read(t, z, rows, columns))
        if info.group is None and state_of(self._root, info, self._settings) != self.state(info):
            raise ImageError("the file was changed while it was read; run the same command again.")
        return pixels

    def corrected(
        self, pixels: NDArray[Any], info: ImageInfo, rows: slice | None = None, columns: slice | None = None
    ) -> NDArray[Any]:
        """What `read` returned, divided by the flat fields of the run, as float32; the same array without any."""
        if self.flat_fields is None:
            return pixels
        return self.flat_fields.corrected(pixels, info, rows or slice(0, info.height), columns or slice(0, info.width))

    def held_bytes(self, info: ImageInfo) -> int:
        """Bytes that a plane takes while it waits: its pixels, and what `corrected` makes of them."""
        return info.held_bytes(corrected=self.flat_fields is not None)

    def state(self, info: ImageInfo) -> State:
        """Size and time of last change, in nanoseconds, that an image is expected to have."""
        return self._states.get(info.key, (info.size, info.mtime_ns))

    def _check_planned(self, plane: Plane, header: Header) -> None:
        """Raises ImageError where an image is no longer what was planned, or has lost the plane."""
        info = plane.image
        if (header.size, header.mtime_ns) != self.state(info):
            raise ImageError("the file was changed after it was planned; run the same command again.")
        found = (header.length("Y"), header.length("X"), header.dtype)
        if found != (info.height, info.width, info.dtype):
            raise ImageError(
                f"planned as {info.height} x {info.width} {info.dtype}, but it is {found[0]} x {found[1]} {found[2]}; "
                "segment it into another OUT."
            )
        channels = header.length("C") if "C" in header.axes else 0
        if channels != len(info.names):
            raise ImageError(
                f"planned with {len(info.names) or 'no'} separate channels, but it has {channels or 'none'}; segment "
                "it into another OUT."
            )
        _check_places("T", "time point", header, None if info.t is None else info.times, plane.t)
        depths = None if info.z is None and not info.projected else info.depths
        _check_places("Z", "z-slice", header, depths, plane.z)

    @contextlib.contextmanager
    def opened(self, info: ImageInfo) -> Iterator[Source]:
        """The image, open; raises ImageError where it cannot be opened."""
        if info.plane_count == 1 and info.height * info.width <= self._settings.region**2:
            source = self._opened(info)
            try:
                yield source
            finally:
                source.close()
            return
        one = self._entered(info)
        try:
            yield one.source
        finally:
            with self._lock:
                one.readers -= 1

    def _entered(self, info: ImageInfo) -> _OpenImage:
        with self._lock:
            one = self._open.get(info.key)
            if one is None:
                one = self._open[info.key] = _OpenImage(self._opened(info))
                for key in [key for key, other in self._open.items() if other.readers == 0 and other is not one]:
                    if len(self._open) <= KEPT_OPEN:
                        break
                    self._open.pop(key).source.close()
            self._open.move_to_end(info.key)
            one.readers += 1
            return one

    def _opened(self, info: ImageInfo) -> Source:
        return open_source(self._root, info.key, self._settings, info.files, info.group)


def _check_places(axis: str, what: str, header: Header, planned: range | None, place: int | None) -> None:
    """Raises ImageError where an image has gained or lost an axis since it was planned, or has lost a place along it.

    planned: places along the axis, None for an image that was planned without it; place: that of the plane, None where
    all of them are projected. An axis that has become longer is no error: what was planned is still there.
    """
    length = header.length(axis) if axis in header.axes else 0
    if planned is None:
        if length:
            raise ImageError(f"planned without {what}s, but it has {length}; segment it into another OUT.")
    elif (place or 0) >= length:
        then = _places_text(what, planned) if place is not None else f"{what}s"
        now = f"only {_places_text(what, range(length))}" if length else "none"
        raise ImageError(
            f"planned with {then}, but it has {now}; put the complete file back and run the same command again, or "
            "segment it into another OUT."
        )


def _places_text(what: str, places: range) -> str:
    return f"{what}s {places[0]} to {places[-1]}" if len(places) > 1 else f"{what} {places[0]}"


def pixels_digest(pixels: NDArray[Any]) -> bytes:
    """The sha256 of pixels as they were read: what `records.Seen` notes of a plane that was read whole."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def windows_sha256(digests: Iterable[bytes]) -> str:
    """What it notes of a plane of which windows were read, from the digest of each, in order."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


def state_of(root: str | Path, info: ImageInfo, settings: SegmentSettings) -> State:
    """Size and time of last change, in nanoseconds, of an image as it is now, as `ImageInfo` has them.

    Of a zarr store they are those of its metadata. Raises ImageError where the image is gone or cannot be opened.
    """
    if info.group is not None:
        with contextlib.closing(open_source(root, info.key, settings, info.files, info.group)) as source:
            return source.header.size, source.header.mtime_ns
    try:
        states = [os.stat(os.path.join(root, name)) for name in info.files or (info.key,)]
    except OSError as error:
        raise ImageError(f"it cannot be read any more ({error.strerror}).") from error
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def open_source(
    root: str | Path,
    key: str,
    settings: SegmentSettings,
    files: Sequence[str] = (),
    group: str | None = None,
    channels: Sequence[ChannelInfo] = (),
) -> Source:
    """Opens an image below a root: a group of a zarr store, files that are its channels, or a file.

    Raises ImageError where that is not possible.
    """
    if group is not None:
        return open_zarr(root, group, axes=settings.axes)
    if files:
        return ChannelFiles([_open_channel(root, name, key, settings) for name in files], channels)
    path = os.path.join(root, key)  # a Path would take as long as the rest
    if os.path.splitext(key)[1].lower() in BIOIO_SUFFIXES:
        return open_bioio(Path(path))
    return open_file(path, max_pixels=settings.max_pixels, axes=settings.axes)


def _open_channel(root: str | Path, name: str, key: str, settings: SegmentSettings) -> Source:
    """Opens the file of a channel; an error names it where it is not the one that names the image."""
    try:
        return open_file(Path(root, name), max_pixels=settings.max_pixels, axes=settings.axes)
    except ImageError as error:
        raise error if name == key else ImageError(f"{name}: {error}") from error
