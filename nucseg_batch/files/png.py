"""PNG written row by row, so that a picture larger than memory can be; with text that says where it is from."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_KINDS = {("u1", 1): (8, 0), ("u2", 1): (16, 0), ("u1", 3): (8, 2)}
"""Bit depth and colour type of what can be written, by dtype and channels."""
_UP = 2
"""The filter that subtracts the row above: most of a mask becomes zero."""
MOST_TEXT = 79
"""Longest keyword of a text that the format allows."""


def write_png(
    file: IO[bytes], shape: tuple[int, int], bands: Iterable[NDArray[Any]], text: Mapping[str, str], *, level: int = 6
) -> None:
    """Writes a picture of `shape` (height, width) from bands of whole rows, from the top.

    bands: (rows, width) of uint8 or uint16, or (rows, width, 3) of uint8, of one dtype. text: keywords, in Latin
    letters, and what they say. Raises ValueError for other pixels, and where the bands have not `shape` together.
    """
    height, width = shape
    file.write(b"\x89PNG\r\n\x1a\n")
    packer = zlib.compressobj(level)
    above: NDArray[np.uint8] | None = None
    rows = 0
    for band in bands:
        channels = 1 if band.ndim == 2 else band.shape[2]
        kind = band.dtype.str[1:], channels
        if kind not in _KINDS or band.shape[1] != width:
            raise ValueError(f"a PNG of width {width} cannot have a band of {band.dtype} and shape {band.shape}")
        if above is None:
            _begin(file, height, width, *_KINDS[kind], text)
            above = np.zeros((1, width * channels * band.itemsize), np.uint8)
        data = band.astype(band.dtype.newbyteorder(">")).reshape(len(band), -1).view(np.uint8)
        filtered = np.empty((len(band), data.shape[1] + 1), np.uint8)
        filtered[:, 0] = _UP
        np.subtract(data, np.concatenate([above, data[:-1]]), out=filtered[:, 1:])
        above, rows = data[-1:], rows + len(band)
        _chunk(file, b"IDAT", packer.compress(filtered.data))
    if rows != height:
        raise ValueError(f"a PNG of {height} rows was given {rows}")
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _begin(file: IO[bytes], height: int, width: int, depth: int, colour: int, text: Mapping[str, str]) -> None:
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    for key, value in text.items():
        name = key.encode("latin-1", "replace")[:MOST_TEXT]
        _chunk(file, b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8", "backslashreplace"))


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if not data and kind == b"IDAT":
        return
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
