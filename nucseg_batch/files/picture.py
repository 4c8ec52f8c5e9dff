"""PNG and JPEG: pictures that can only be decoded whole.

PNG headers are read here, which takes a fifth of the time of a general reader; folders hold them by the ten thousand.
Most of them lie in the bytes that were read to tell the kind of the file, so that it is opened once.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.palettes import is_ramp, tinted
from nucseg_batch.files.png_pixels import png_numbers, png_pixels
from nucseg_batch.plan import Assumption

_INDEXED = 3
"""Colour type of a PNG with a palette."""
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
            pixels = png_numbers(content) if self._numbers else png_pixels(content)
        else:
            with Image.open(self._path, formats=("JPEG",)) as image:  # unlike bare libjpeg, it refuses a truncated file
                pixels = np.asarray(image)
        if pixels.ndim == 3:
            pixels = pixels[:, :, 0] if pixels.shape[2] in (1, 2) else pixels[:, :, :3]
        if pixels.shape[:2] != self.piece:
            raise ImageError(f"its header promised {self.piece} pixels, but it is {pixels.shape[:2]}.")
        return pixels[rows, columns]


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
