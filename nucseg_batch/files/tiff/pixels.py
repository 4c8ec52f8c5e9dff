"""Pixels of one page of a TIFF: the tiles or strips that a window touches are decoded, and no others.

Compressed pieces are decoded by tifffile, one at a time; rows that lie uncompressed in the file are read directly. All
reads give their position, so that threads can share an open file.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION

from nucseg_batch.errors import ImageError

_JPEG = frozenset({COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY})
"""Compressions whose decoder takes the tables that tiles share."""
_WHOLE_JPEG = frozenset({COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY})
"""Compressions whose tiles are JPEG files but for these tables."""
_JPEG_END = b"\xff\xd9"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers of a frame header, which holds the size: SOF0 to SOF15 but for DHT, JPG and DAC between them."""
_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xDA)})
"""JPEG markers without a length behind them."""
_JPEG_2000_START = b"\xff\x4f\xff\x51"
_PNG_START = b"\x89PNG"
_PLAIN_BITS = frozenset({8, 16, 32, 64})
_WIDE_ROW = 2**16
"""Bytes of a row of uncompressed pixels above which a narrow window is read row by row."""
_BAND_BYTES = 2**24
"""Bytes of uncompressed rows that are read together."""
_LARGEST_READ = 2**30
"""Bytes asked for at once; the system gives less than 2**31."""


@dataclass(frozen=True, eq=False)
class TiffFrame:
    """Where the pixels of one page are."""

    path: Path
    """The file."""
    key: Any
    """A tifffile.TiffPage of the same kind, which knows how to decode them."""
    offsets: tuple[int, ...]
    """Where each tile or strip begins."""
    counts: tuple[int, ...]
    """Bytes of each tile or strip."""
    tables: bytes | None = None
    """What its JPEG tiles share."""

    @property
    def stored(self) -> int:
        """Bytes of all its pixels in the file."""
        return sum(self.counts)


def calibration_of(page: Any, path: Path, size: int) -> TiffFrame:
    """The pixels of a tifffile page in a file of `size` bytes.

    Raises ImageError where pieces are missing or lie beyond the end of the file.
    """
    key = page.keyframe
    offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
    grid = _Grid.of(key)
    needed = grid.pieces
    if len(offsets) < needed or len(counts) < needed:
        raise ImageError(f"the TIFF lists {min(len(offsets), len(counts))} of its {needed} tiles or strips.")
    listed = key.tags.get(324) or key.tags.get(273)
    if listed is not None and listed.count >= 2 * needed and not key.is_lsm:
        raise ImageError(f"the TIFF lists {listed.count} tiles or strips, but has {needed}: the file is damaged.")
    offsets, counts = offsets[:needed], counts[:needed]
    if needed == 1 and is_plain(key) and counts[0] > size - offsets[0]:
        counts = (min(counts[0], key.nbytes),)  # software has written any number here, and libtiff reads it
    if key.compression == COMPRESSION.NONE and max(counts) >= 2 * (most := _bytes_of_piece(key, grid)):
        raise ImageError(f"the TIFF is damaged: {max(counts)} bytes for pixels that take {most}.")
    if not is_plain(key):
        _ = key.decode  # made now, while the file is open for the tags that it asks for
    if min(offsets) <= 0 or min(counts) <= 0:
        raise ImageError("the TIFF has missing tiles or strips (offset 0).")
    ends = [offset + count for offset, count in zip(offsets, counts, strict=True)]
    if max(ends) > size:
        raise ImageError("the TIFF is truncated: pixel data lies beyond the end of the file.")
    if needed > 1 and is_plain(key) and ends[:-1] == list(offsets[1:]) and sum(counts) == key.nbytes:
        offsets, counts = offsets[:1], (key.nbytes,)
    return TiffFrame(path, key, offsets, counts, page.jpegtables)


def _bytes_of_piece(key: Any, grid: _Grid) -> int:
    """Bytes of an uncompressed tile or strip, rounded up."""
    pixels = math.prod(grid.piece) * key.shaped[4]
    bits = key.bitspersample if isinstance(key.bitspersample, int) else max(key.bitspersample)
    return -(-pixels * bits // 8)


def run_of(page: Any, path: Path, size: int, number: int) -> TiffFrame:
    """Plane `number` of those that lie uncompressed one after another where a page's pixels begin."""
    start, length = page.dataoffsets[0] + number * page.nbytes, page.nbytes
    if start + length > size:
        raise ImageError("the TIFF is truncated: pixel data lies beyond the end of the file.")
    return TiffFrame(path, page, (start,), (length,))


def is_plain(key: Any) -> bool:
    """Whether a page's pixels lie in the file as they are, so that single rows can be read."""
    return (
        key.compression == COMPRESSION.NONE
        and key.predictor == 1
        and key.fillorder == 1
        and not key.is_tiled
        and key.bitspersample in _PLAIN_BITS
        and key.imagedepth * key.imagelength * key.imagewidth > 0
    )


def decoded_at_once(key: Any) -> tuple[int, int]:
    """Height and width in pixels of what has to be decoded for one pixel; it may reach beyond the plane."""
    if is_plain(key):
        return 1, key.imagewidth
    if key.is_tiled:
        return key.tilelength * key.tiledepth, key.tilewidth
    return key.rowsperstrip, key.imagewidth


@dataclass(frozen=True)
class _Grid:
    """How a page is cut into tiles or strips."""

    planes: int
    depth: int
    down: int
    across: int
    piece: tuple[int, int, int]

    @classmethod
    def of(cls, key: Any) -> _Grid:
        if key.is_tiled:
            piece = (max(1, key.tiledepth), max(1, key.tilelength), key.tilewidth)
        else:
            piece = (1, max(1, key.rowsperstrip), key.imagewidth)
        deep, tall, wide = piece
        return cls(
            key.shaped[0], -(-key.imagedepth // deep), -(-key.imagelength // tall), -(-key.imagewidth // wide), piece
        )

    @property
    def pieces(self) -> int:
        return self.planes * self.depth * self.down * self.across

    def number(self, plane: int, depth: int, row: int, column: int) -> int:
        return ((plane * self.depth + depth) * self.down + row) * self.across + column


def read_window(fd: int, frame: TiffFrame, *, depth: int, samples: int, rows: slice, columns: slice) -> NDArray[Any]:
    """The first `samples` samples of a window: (samples, h, w), in the page's type, native byte order.

    depth: which of the planes that lie in the page together. Raises ImageError, or what a decoder raises.
    """
    key = frame.key
    height, width = rows.stop - rows.start, columns.stop - columns.start
    result = np.empty((samples, height, width), key.dtype)
    together = key.shaped[4] > 1
    read = _read_plain if is_plain(key) else _read_pieces
    for plane in range(1 if together else samples):
        into = result if together else result[plane : plane + 1]
        read(fd, frame, plane, depth, rows, columns, into)
    return result


def _read_plain(
    fd: int, frame: TiffFrame, plane: int, depth: int, rows: slice, columns: slice, into: NDArray[Any]
) -> None:
    key, samples = frame.key, frame.key.shaped[4]
    stored = np.dtype(key.parent.byteorder + key.dtype.char)
    pixel = samples * stored.itemsize
    row_bytes = key.imagewidth * pixel
    narrow = row_bytes > _WIDE_ROW and 2 * (columns.stop - columns.start) < key.imagewidth
    step = 1 if narrow else max(1, _BAND_BYTES // row_bytes)
    for start, above, below in _runs(frame, plane, depth, rows, row_bytes):
        for first in range(above, below, step):
            last = min(first + step, below)
            place = start + (first - above) * row_bytes
            part = into[:, first - rows.start : last - rows.start]
            if narrow:
                data = pread(fd, (columns.stop - columns.start) * pixel, place + columns.start * pixel)
                block = np.frombuffer(data, stored).reshape(1, -1, samples)
            else:
                data = pread(fd, (last - first) * row_bytes, place)
                block = np.frombuffer(data, stored).reshape(last - first, key.imagewidth, samples)[:, columns]
            part[...] = np.moveaxis(block[..., : into.shape[0]], 2, 0)


def _runs(frame: TiffFrame, plane: int, depth: int, rows: slice, row_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Offset, first and last row of the stretches in which the rows of a plane lie."""
    key = frame.key
    if len(frame.offsets) == 1:  # one strip, or many without a gap
        above = (plane * key.imagedepth + depth) * key.imagelength
        if frame.counts[0] < (above + rows.stop) * row_bytes:
            raise ImageError("the TIFF is damaged: a strip is shorter than its rows.")
        yield frame.offsets[0] + (above + rows.start) * row_bytes, rows.start, rows.stop
        return
    grid = _Grid.of(key)
    step = grid.piece[1]
    for strip in range(rows.start // step, math.ceil(rows.stop / step)):
        number = grid.number(plane, depth, strip, 0)
        first, last = max(rows.start, strip * step), min(rows.stop, (strip + 1) * step)
        if frame.counts[number] < (min((strip + 1) * step, key.imagelength) - strip * step) * row_bytes:
            raise ImageError("the TIFF is damaged: a strip is shorter than its rows.")
        yield frame.offsets[number] + (first - strip * step) * row_bytes, first, last


def _read_pieces(
    fd: int, frame: TiffFrame, plane: int, depth: int, rows: slice, columns: slice, into: NDArray[Any]
) -> None:
    grid = _Grid.of(frame.key)
    deep, tall, wide = grid.piece
    for down in range(rows.start // tall, math.ceil(rows.stop / tall)):
        for across in range(columns.start // wide, math.ceil(columns.stop / wide)):
            number = grid.number(plane, depth // deep, down, across)
            piece = _decoded(fd, frame, number)[depth % deep]
            top, left = down * tall, across * wide
            y0, y1 = max(rows.start, top), min(rows.stop, top + tall)
            x0, x1 = max(columns.start, left), min(columns.stop, left + wide)
            part = piece[y0 - top : y1 - top, x0 - left : x1 - left, : into.shape[0]]
            if part.shape != (y1 - y0, x1 - x0, into.shape[0]):
                raise ImageError(f"the TIFF is damaged: tile or strip {number} decodes to {piece.shape}.")
            into[:, y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = np.moveaxis(
                part, 2, 0
            )


def _decoded(fd: int, frame: TiffFrame, number: int) -> NDArray[Any]:
    """One tile or strip: (depth, rows, columns, samples)."""
    key = frame.key
    data = pread(fd, frame.counts[number], frame.offsets[number])
    options: dict[str, Any] = {}
    if key.compression in _JPEG:
        options = {"jpegtables": frame.tables, "jpegheader": key.jpegheader}
    if key.jpegheader is None:
        _check_claim(data, key)
    piece, _, _ = key.decode(data, number, **options)
    if piece is None or not (piece.dtype == key.dtype or key.dtype == bool or np.can_cast(piece.dtype, key.dtype)):
        raise ImageError(f"the TIFF is damaged: tile or strip {number} holds {getattr(piece, 'dtype', 'nothing')}.")
    return piece


def _check_claim(data: bytes, key: Any) -> None:
    """Refuses pictures in a tile that a lenient decoder would fill up, or take any amount of memory for."""
    if key.compression in _WHOLE_JPEG and _JPEG_END not in data[-1024:]:
        raise ImageError("the TIFF is damaged: a JPEG tile or strip has no end.")
    try:
        if key.compression in _WHOLE_JPEG:
            height, width = _jpeg_sides(data)
        elif data[:4] == _PNG_START:
            width, height = struct.unpack_from(">II", data, 16)
        elif (start := data.find(_JPEG_2000_START, 0, 256)) >= 0:
            right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
            width, height = right - left, bottom - top
        else:
            return
    except (ValueError, IndexError, struct.error):
        return  # the decoder says it in its own words
    rows, columns = decoded_at_once(key)
    if height > max(rows, 8) or width > max(columns, 8):
        raise ImageError(f"the TIFF is damaged: a picture of {height} x {width} is in a tile of {rows} x {columns}.")


def _jpeg_sides(data: bytes) -> tuple[int, int]:
    """Height and width of a JPEG as its frame header says (ITU-T T.81, B.2.2); raises ValueError without one."""
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte of padding before the marker
            at += 1
        elif marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        elif marker in _LONE_MARKERS:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ValueError("no frame header")


def pread(fd: int, count: int, offset: int) -> bytes:
    """`count` bytes from a place of an open file; raises ImageError where the file is shorter."""
    parts = []
    while count > 0:
        part = os.pread(fd, min(count, _LARGEST_READ), offset)
        if not part:
            raise ImageError("the file ended while it was read.")
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
