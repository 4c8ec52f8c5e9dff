"""Opens image files of the kinds that `kinds` lists, each as a `Source` with axes, or says in one line why not.

Headers are read first and alone, so that a file that claims a million pixels a side is refused before memory is taken
for it. Rules for what is not plainly grey or RGB: an alpha channel is dropped; palettes are looked up, except tables
that only tint intensities (see `palettes`); one-bit images become 0 and 255 as stored; CMYK is refused; grey TIFFs
where white is 0 are inverted; pixels that are not finite take the lowest finite value of their plane; EXIF rotation is
not applied, so that a mask lies over the pixels as they are stored.

A TIFF's pages are put in order by what it says of itself: OME-XML, ImageJ's, tifffile's or a microscope's description.
Of pages of which nothing is said `tiff.axes` decides. Thumbnails, masks, labels and smaller copies are passed over; of
a file that holds several images none is read. `max_pixels` bounds what must be decoded at once: a plane, or a tile or
strip where these can be decoded alone; planes of more than MAX_PLANE pixels are refused in any case.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import threading
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.kinds import kind_of
from nucseg_batch.files.missing import PlaneMinimum, suspicious
from nucseg_batch.files.picture import RasterPicture
from nucseg_batch.files.raster import RASTERS, Raster
from nucseg_batch.files.source import Header
from nucseg_batch.files.tiff.axes import UnknownAxesError
from nucseg_batch.files.tiff.image import TiffImage
from nucseg_batch.files.tiff.ome import first_file

MAX_EXPANSION = 1000
"""Decoded bytes for each byte of the file above which a file of more than SMALL decoded bytes is a bomb."""
SMALL = 64 * 2**20
"""Decoded bytes below which no expansion is suspicious."""
MAX_SPARSE_EXPANSION = 20_000
"""The same for planes of which windows are decoded alone: empty glass compresses better than anything else."""
LARGE = 2**32
"""Decoded bytes of such a plane below which no expansion is suspicious."""
MAX_PLANE = 2**40
"""Pixels of the largest plane of which windows can be read."""
KEPT_BYTES = 512 * 2**20
"""Decoded planes that are kept, of files that can only be decoded whole, while windows of them are read."""
_START = 1024
"""Bytes of a file that are read to tell its kind."""
_BAND_PIXELS = 2**24
"""Pixels of a plane that are looked at together where the lowest of all is needed."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file of one plane says of its pixels before they are decoded."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int
    """1 for grey, 3 for colour (after palettes are looked up and alpha is dropped)."""
    dtype: str
    """Of the pixels as `read_image` returns them, such as `uint16`."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres, where the file says so."""

    @property
    def bytes(self) -> int:
        """Size of the decoded pixels in bytes."""
        return self.height * self.width * self.channels * np.dtype(self.dtype).itemsize


class _Decoder(Protocol):
    """A file's pixels before the rules that all files share."""

    @property
    def lengths(self) -> dict[str, int]:
        """Of those of the axes T, Z, C, Y, X and S that it has, in this order."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels as `window` gives them."""
        ...

    @property
    def piece(self) -> tuple[int, int]:
        """Height and width of what must be decoded for one pixel."""
        ...

    def window(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Pixels of a part of a plane, as `Source.read` lays them out."""
        ...


class FileSource:
    """An image in a file, or in the files of one set; see `Source`. Files are open only while they are read."""

    parts: tuple[Path, ...]
    """All files of the set that holds the image, sorted; empty where one file is the whole image. Any of them opens the
    whole set, so that a folder's files that share this are one image."""
    part_channels: Mapping[Path, frozenset[int]]
    """The places along axis C of which each of these files holds planes."""

    def __init__(
        self,
        path: str | Path,
        kind: str,
        status: os.stat_result,
        *,
        max_pixels: int,
        start: bytes = b"",
        axes: str | None = None,
    ) -> None:
        """Reads the header of a picture or TIFF; raises ImageError for what cannot or should not be decoded.

        start: first bytes of the file, as many as were read of it. axes: of a TIFF that does not say them.
        """
        self._path = path
        with _reasons(path):
            self._decoder: _Decoder
            if kind == "TIFF":
                self._decoder = TiffImage(Path(path), axes)
            else:
                self._decoder = Raster(path, kind) if kind in RASTERS else RasterPicture(path, kind, start)
            self._header = _header(self._decoder, status)
            _guard(self._header, self._decoder.piece, max_pixels)
        self.parts = getattr(self._decoder, "parts", ())
        self.part_channels = getattr(self._decoder, "part_channels", {})
        self._lock = threading.Lock()
        self._lowest: dict[tuple[int, int], PlaneMinimum] = {}
        self._plane: tuple[tuple[int, int], NDArray[Any]] | None = None

    @property
    def header(self) -> Header:
        """What the file says of itself."""
        return self._header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane; see `Source.read`."""
        with _reasons(self._path):
            height, width = self._header.length("Y"), self._header.length("X")
            if not (0 <= t < self._header.length("T") and 0 <= z < self._header.length("Z")):
                raise ImageError(f"it has no plane t={t}, z={z}.")
            rows, columns = (slice(*part.indices(side)) for part, side in ((rows, height), (columns, width)))
            if rows.step != 1 or columns.step != 1 or rows.stop <= rows.start or columns.stop <= columns.start:
                raise ImageError(f"rows {rows} and columns {columns} are no window of {height} x {width} pixels.")
            whole = (rows, columns) == (slice(0, height, 1), slice(0, width, 1))
            if whole or self._header.chunk is not None:
                return self._plain(t, z, rows, columns)
            with self._lock:
                kept = self._plane
                if kept is None or kept[0] != (t, z):
                    kept = self._plane = ((t, z), self._plain(t, z, slice(0, height), slice(0, width)))
                    _KEPT.note(self, kept[1].nbytes)
            end = 4 if "S" in self._header.axes else 3
            return np.ascontiguousarray(kept[1][(..., rows, columns, slice(None))[:end]])

    def close(self) -> None:
        """Lets go of decoded pixels."""
        self.forget()

    def forget(self) -> None:
        """Lets go of the plane that is kept while windows of it are read."""
        self._plane = None

    def _plain(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window by the rules that all files share."""
        pixels = self._decoder.window(t, z, rows, columns)
        lengths = [rows.stop - rows.start, columns.stop - columns.start]
        colour = [3] if "S" in self._header.axes else []
        expected = (*([self._header.length("C")] if "C" in self._header.axes else []), *lengths, *colour)
        if pixels.shape != expected or _result_type(pixels.dtype) != self._header.dtype:
            raise ImageError(
                f"its header promised {expected} of {self._header.dtype}, but it is {pixels.shape} of {pixels.dtype}."
            )
        if pixels.dtype == bool:
            return np.ascontiguousarray(pixels.astype(np.uint8) * np.uint8(255))
        if pixels.dtype.kind == "f":
            return self._finite(pixels, t, z, rows, columns)
        return np.ascontiguousarray(pixels.astype(self._header.dtype, copy=False))

    def _finite(self, pixels: NDArray[Any], t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Floats as float32, where what is missing takes the lowest value of its plane and channel; see `missing`."""
        if suspicious(pixels):
            height, width = self._header.length("Y"), self._header.length("X")
            whole = (rows.stop - rows.start, columns.stop - columns.start) == (height, width)
            channels = "C" in self._header.axes
            lowest = PlaneMinimum.of(pixels, channels=channels) if whole else self._lowest_of_plane(t, z)
            if not np.isfinite(lowest.finite).all():
                raise ImageError("none of its pixels is a finite number.")
            pixels = lowest.fill(pixels)
        low, high = float(pixels.min()), float(pixels.max())
        if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
            raise ImageError(f"its pixels reach from {low:g} to {high:g}, beyond what single precision can hold.")
        return np.ascontiguousarray(pixels.astype(np.float32, copy=False))

    def _lowest_of_plane(self, t: int, z: int) -> PlaneMinimum:
        """The lowest values of a plane; read once, band by band."""
        with self._lock:
            if (t, z) not in self._lowest:
                height, width = self._header.length("Y"), self._header.length("X")
                step = max(1, _BAND_PIXELS // width)
                bands = (slice(row, min(row + step, height)) for row in range(0, height, step))
                found = [
                    PlaneMinimum.of(
                        self._decoder.window(t, z, band, slice(0, width)), channels="C" in self._header.axes
                    )
                    for band in bands
                ]
                self._lowest[t, z] = functools.reduce(PlaneMinimum.joined, found)
            return self._lowest[t, z]


def open_file(path: str | Path, *, max_pixels: int, axes: str | None = None) -> FileSource:
    """Opens an image file, or the companion file of an OME-TIFF set; its first bytes tell which kind it is.

    axes: letters of T, Z, C, Y, X and S for the axes of a TIFF that does not say them, such as `YXC`.
    Raises ImageError, whose text says what is wrong with the file, for what cannot or should not be decoded.
    """
    with _reasons(path):
        status, start = _regular(path), _start(path)
        kind = kind_of(start)
        if kind == "XML":
            path = first = first_file(Path(path))
            if not first.is_file():
                raise ImageError(f"it describes {first.name}, which is not beside it.")
            status, start = _regular(path), _start(path)
            kind = kind_of(start)
    return FileSource(path, kind, status, max_pixels=max_pixels, start=start, axes=axes)


def read_header(path: Path, *, max_pixels: int) -> ImageHeader:
    """Reads shape and size of an image of one plane; raises ImageError for what cannot or should not be decoded."""
    return _single(_open_plane(path, max_pixels), max_pixels)


def read_image(path: Path, *, max_pixels: int) -> NDArray[Any]:
    """Reads an image of one plane: (height, width), or (height, width, 3); any real dtype, all values finite.

    Raises ImageError, whose text says what is wrong with the file.
    """
    source = _open_plane(path, max_pixels)
    header = _single(source, max_pixels)
    return source.read(0, 0, slice(0, header.height), slice(0, header.width))


def _open_plane(path: Path, max_pixels: int) -> FileSource:
    """Opens a file that should be one plane, for commands in which axes cannot be given."""
    try:
        return open_file(path, max_pixels=max_pixels)
    except UnknownAxesError as error:
        raise ImageError(f"{error.problem}; save the plane that is meant as an image of its own.") from error


def _single(source: FileSource, max_pixels: int) -> ImageHeader:
    header = source.header
    stacked = [f"{axis}={header.length(axis)}" for axis in "TZC" if axis in header.axes]
    if stacked == [f"C={header.length('C')}"]:
        raise ImageError(
            f"it has {header.length('C')} channels that are not RGB; save the one of the nuclei as a separate file."
        )
    if stacked:
        raise ImageError(
            f"it is a stack ({', '.join(stacked)}), not one plane; save its planes as single images, or score volumes "
            "with `evaluate --volumes`."
        )
    whole = (header.length("Y"), header.length("X"))
    _guard(replace(header, chunk=None), whole, max_pixels)
    return ImageHeader(*whole, header.length("S"), header.dtype, header.pixel_size)


class _Kept:
    """Which sources keep a decoded plane: those that did so last, up to KEPT_BYTES, or one with a larger plane."""

    def __init__(self) -> None:
        self._sources: list[tuple[weakref.ref[FileSource], int]] = []
        self._lock = threading.Lock()

    def note(self, source: FileSource, size: int) -> None:
        """Notes that a source has begun to keep a plane; the sources that began first forget theirs."""
        with self._lock:
            others = [(other, kept) for other, kept in self._sources if other() not in (None, source)]
            self._sources = [*others, (weakref.ref(source), size)]
            while len(self._sources) > 1 and sum(kept for _, kept in self._sources) > KEPT_BYTES:
                oldest = self._sources.pop(0)[0]()
                if oldest is not None:
                    oldest.forget()


_KEPT = _Kept()


def _regular(path: str | Path) -> os.stat_result:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file.")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes).")
    return status


def _start(path: str | Path) -> bytes:
    """The first bytes of a file: enough for its kind, and for the header of most PNGs."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a file object costs more than reading this
    try:
        return os.read(handle, _START)
    finally:
        os.close(handle)


def _header(decoder: _Decoder, status: os.stat_result) -> Header:
    lengths = decoder.lengths
    piece, plane = decoder.piece, (lengths["Y"], lengths["X"])
    chunk = (min(piece[0], plane[0]), min(piece[1], plane[1]))
    return Header(
        axes="".join(lengths),
        shape=tuple(lengths.values()),
        dtype=_result_name(decoder.dtype),
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        channels=getattr(decoder, "channels", ()),
        pixel_size=getattr(decoder, "pixel_size", None),
        z_step=getattr(decoder, "z_step", None),
        levels=getattr(decoder, "levels", 1),
        chunk=None if chunk == plane else chunk,
        stored_bytes=getattr(decoder, "stored_bytes", status.st_size),
        assumptions=getattr(decoder, "assumptions", ()),
        unused_axes=getattr(decoder, "unused_axes", False),
    )


def _guard(header: Header, piece: tuple[int, int], max_pixels: int) -> None:
    """Raises ImageError where too much would have to be decoded at once, or more than the file can hold."""
    height, width = header.length("Y"), header.length("X")
    if 0 in header.shape:
        raise ImageError(f"it has no pixels ({height} x {width}).")
    pixels = piece[0] * piece[1]
    if pixels > max_pixels:
        what = "it has" if header.chunk is None else "a tile or strip of it has"
        raise ImageError(
            f"{what} {piece[0]} x {piece[1]} = {pixels} pixels, more than the {max_pixels} allowed; "
            "raise --max-pixels if that is meant."
        )
    if height * width > MAX_PLANE:
        raise ImageError(f"it has {height} x {width} pixels, more than the {MAX_PLANE} that a plane can have.")
    pixel = header.length("S") * np.dtype(header.dtype).itemsize
    for decoded, small, most in (
        (pixels * pixel, SMALL, MAX_EXPANSION),
        (height * width * pixel, LARGE, MAX_SPARSE_EXPANSION),
    ):
        if decoded > small and decoded > most * header.size:
            raise ImageError(f"{header.size} bytes would decode to {decoded}: refused as a decompression bomb.")


def _result_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What pixels of a type are returned as."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")


@functools.lru_cache(maxsize=256)  # numpy makes the name up anew each time
def _result_name(dtype: np.dtype[Any]) -> str:
    return _result_type(dtype).name


@contextlib.contextmanager
def _reasons(path: str | Path) -> Iterator[None]:
    """Turns whatever a decoder raises into an ImageError of one line that keeps the decoder's own words."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("the file is no longer there.") from error
    except Exception as error:  # decoders raise their own classes, MemoryError and plain Exception among them
        text = " ".join(str(error).replace(str(path), os.path.basename(path)).split())
        raise ImageError(
            f"it cannot be decoded ({type(error).__name__}: {text[:200] or 'no further words'})."
        ) from error
