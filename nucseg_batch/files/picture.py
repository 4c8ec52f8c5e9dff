"""PNG and JPEG: pictures that can only be decoded whole.

PNG headers are read here, which takes a fifth of the time of a general reader; folders hold them by the ten thousand.
Most of them lie in the bytes that were read to tell the kind of the file, so that it is opened once.
So are their checksums: at each damaged PNG imagecodecs (2026.3.6) gives back one reference too many to None, of which
Python 3.11 has some thousands, and with the last of them it ends. So what is damaged must not get there.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.palettes import is_ramp, tinted
from nucseg_batch.plan import Assumption

logging.getLogger("imagecodecs").setLevel(logging.ERROR)  # it warns of damaged comments, on the screen, for every image
_INDEXED = 3
"""Colour type of a PNG with a palette."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type."""
_STORED = 2**16 - 1
"""Bytes in a stored block of DEFLATE, at most."""
_UINT8, _UINT16 = np.dtype(np.uint8), np.dtype(np.uint16)
Image.MAX_IMAGE_PIXELS = None  # our own limit, which the user can raise, is checked before anything is decoded


class RasterPicture:
    """A PNG or JPEG, which can only be decoded whole."""

    def __init__(self, path: str | Path, kind: str, start: bytes = b"") -> None:
        """Reads the header of a `PNG` or `JPEG`; raises ImageError, or what PIL raises, for what cannot be used.

        start: first bytes of the file, as many as were read of it.
        """
        self._path, self._png, self._numbers = path, kind == "PNG", False
        self.assumptions: tuple[Assumption, ...] = ()
        if self._png:
            height, width, colours, self.dtype, table = _png_header(path, start)
            self._numbers = table is not None
            self.assumptions = () if table is None else tinted(table)
        else:
            with Image.open(path, formats=("JPEG",)) as image:
                if image.mode not in ("L", "RGB"):
                    raise ImageError(f"{image.mode} colours have no defined grey value; convert it to RGB.")
                height, width, colours, self.dtype = image.height, image.width, len(image.mode), np.dtype(np.uint8)
        self.piece = (height, width)
        self.lengths = {"Y": height, "X": width} | ({"S": 3} if colours == 3 else {})

    def window(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Pixels of a part of the picture, without alpha."""
        if self._png:
            with open(self._path, "rb", buffering=0) as file:
                content = file.read()
            _check_png(content)
            pixels = _numbers(content) if self._numbers else imagecodecs.png_decode(_uncompressed(content))
        else:
            with Image.open(self._path, formats=("JPEG",)) as image:  # unlike bare libjpeg, it refuses a truncated file
                pixels = np.asarray(image)
        if pixels.ndim == 3:
            pixels = pixels[:, :, 0] if pixels.shape[2] in (1, 2) else pixels[:, :, :3]
        if pixels.shape[:2] != self.piece:
            raise ImageError(f"its header promised {self.piece} pixels, but it is {pixels.shape[:2]}.")
        return pixels[rows, columns]


def _numbers(content: bytes) -> NDArray[Any]:
    """The pixels of a PNG with a palette, not looked up; of a checked one, whose other parts may be damaged."""
    with Image.open(io.BytesIO(_critical(content)), formats=("PNG",)) as image:
        return np.asarray(image)


def _critical(content: bytes) -> bytes:
    """A PNG without the parts that its pixels do not need, of which Pillow also wants the right checksum."""
    parts, at = [content[:8]], 8
    while at < len(content):
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        if kind[:1].isupper():
            parts.append(content[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(parts)


def _uncompressed(content: bytes) -> bytes | bytearray:
    """The same PNG, with pixels that are not compressed; as it is where that cannot be had.

    For the decoder, whose zlib takes twice as long as libdeflate (of 256x256 pixels, 6.9 ms a megapixel in place of 5.0
    with this; measured). content: of a checked one.
    """
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    interlaced = content[28]
    view, at, start, end = memoryview(content), 8, 0, 0
    packed: list[bytes] = []
    while (kind := content[at + 4 : at + 8]) != b"IEND":
        after = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if kind == b"IDAT":
            if packed and end != at:
                return content  # pixels in pieces that do not follow each other, which the decoder may judge
            packed.append(content[at + 8 : after - 4])
            start, end = start or at, after
        at = after
    size = height * (1 + -(-width * depth * _SAMPLES[colour] // 8))
    if interlaced or not packed:
        return content
    blocks = -(-size // _STORED)
    pixels = slice(start + 10 + 5 * blocks, start + 10 + 5 * blocks + size)  # where they end up, if in one block
    result = bytearray(pixels.stop + 8 + len(content) - end)
    into: Any = memoryview(result)  # Any: the stubs of checksums do not know that they take it
    try:
        found = imagecodecs.deflate_decode(packed[0] if len(packed) == 1 else b"".join(packed), out=into[pixels])
    except Exception:  # of the codec's own class: the decoder says what is wrong
        return content
    if len(found) != size:
        return content
    checksum = imagecodecs.deflate_adler32(into[pixels])
    struct.pack_into(">I4s2s", into, start, pixels.stop - start - 4, b"IDAT", b"\x78\x01")  # RFC 1950
    for block in range(blocks):  # RFC 1951: blocks that are stored as they are, in front of where the pixels are now
        length, at = min(_STORED, size - block * _STORED), start + 10 + block * (_STORED + 5)
        struct.pack_into("<BHH", into, at, block == blocks - 1, length, length ^ 0xFFFF)
        if block < blocks - 1:
            place = pixels.start + block * _STORED
            into[at + 5 : at + 5 + length] = into[place : place + length]
    struct.pack_into(">I", into, pixels.stop, checksum)
    struct.pack_into(">I", into, pixels.stop + 4, imagecodecs.deflate_crc32(into[start + 4 : pixels.stop + 4]))
    into[:start], into[pixels.stop + 8 :] = view[:start], view[end:]
    return result


_PngHeader = tuple[int, int, int, np.dtype[Any], NDArray[Any] | None]
"""Height, width, colours (1 or 3), type, and the palette, (3, entries), of one whose palette is a ramp."""


def _png_header(path: str | Path, start: bytes) -> _PngHeader:
    """What the header of a PNG says; raises ImageError for one that is animated or damaged."""
    header = _parsed_png(io.BytesIO(start), whole=False)
    if header is None:  # more stands before its pixels than was read of it
        with open(path, "rb") as file:
            header = _parsed_png(file, whole=True)
    assert header is not None
    return header


def _parsed_png(file: BinaryIO, *, whole: bool) -> _PngHeader | None:
    """The same of an open file, or of the beginning of one; None where that ends before all is known."""
    start = file.read(33)
    if len(start) < 33 and not whole:
        return None
    if len(start) < 33 or start[12:16] != b"IHDR":
        raise ImageError("the PNG ends within its header.")
    width, height, depth, colour = struct.unpack(">IIBB", start[16:26])
    if depth not in (1, 2, 4, 8, 16) or colour not in (0, 2, 3, 4, 6):
        raise ImageError(f"the PNG's header is damaged (depth {depth}, colour {colour}).")
    table = None
    while len(chunk := file.read(8)) == 8 and chunk[4:] not in (b"IDAT", b"IEND"):
        if chunk[4:] == b"PLTE" and colour == _INDEXED:
            length = int.from_bytes(chunk[:4], "big")
            entries = file.read(length) if length <= 3 * 256 else b""
            if len(entries) < length and not whole:
                return None
            table = np.frombuffer(entries[: length // 3 * 3], np.uint8).reshape(-1, 3).T
            file.seek(-len(entries), os.SEEK_CUR)
        if chunk[4:] == b"acTL":
            count = file.read(4)
            if len(count) < 4 and not whole:
                return None
            (frames,) = struct.unpack(">I", count)
            if frames > 1:
                raise ImageError(f"it is an animation of {frames} pictures; save one of them as a separate file.")
            file.seek(-4, os.SEEK_CUR)
        file.seek(int.from_bytes(chunk[:4], "big") + 4, os.SEEK_CUR)
    if len(chunk) < 8 and not whole:
        return None
    ramp = table if table is not None and is_ramp(table, depth) else None
    grey = colour in (0, 4) or ramp is not None
    return height, width, 1 if grey else 3, _UINT16 if depth == 16 else _UINT8, ramp


def _check_png(content: bytes) -> None:
    """Raises ImageError for a PNG that is cut, or of which a part that pixels need is not as its checksum says."""
    view, at = memoryview(content), 8
    while True:
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4], "big")
        if len(kind) < 4 or end > len(content):
            raise ImageError("the PNG is truncated: it ends within its pixels.")
        if kind[:1].isupper() and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise ImageError("the PNG is damaged: a checksum in it is not that of its content.")
        if kind == b"IEND":
            return
        at = end
