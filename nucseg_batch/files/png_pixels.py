"""The pixels of PNG files: grey ones decoded here, in half the time of a general decoder, others by imagecodecs.

Checksums are compared here, too: at each damaged PNG imagecodecs (2026.3.6) gives back one reference too many to None,
of which Python 3.11 has some thousands, and with the last of them it ends. So what is damaged must not get there.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError

logging.getLogger("imagecodecs").setLevel(logging.ERROR)  # it warns of damaged comments, on the screen, for every image
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY = 0
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type."""
_STORED = 2**16 - 1
"""Bytes in a stored block of DEFLATE, at most."""


def png_pixels(content: bytes) -> NDArray[Any]:
    """The pixels of a PNG file, (height, width) or (height, width, 2, 3 or 4), uint8 or uint16; palettes are looked up.

    Raises ImageError for one that is cut or damaged, or what imagecodecs raises for one that it cannot decode.
    """
    _check(content)
    packed = _Packed.of(content)
    if packed is None:
        return imagecodecs.png_decode(content)
    grey = packed.grey_pixels()
    return imagecodecs.png_decode(packed.uncompressed(content)) if grey is None else grey


def png_numbers(content: bytes) -> NDArray[Any]:
    """The pixels of a PNG file with a palette, not looked up; raises as `png_pixels`, or what Pillow raises."""
    _check(content)
    with Image.open(io.BytesIO(_critical(content)), formats=("PNG",)) as image:
        return np.asarray(image)


def _parts(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each part up to the end marker; raises ImageError for a PNG that is cut before it."""
    end = 8
    kind = b""
    while kind != b"IEND":
        start = end
        kind, end = content[start + 4 : start + 8], start + 12 + int.from_bytes(content[start : start + 4], "big")
        if len(kind) < 4 or end > len(content):
            raise ImageError("the PNG is truncated: it ends before its end marker (IEND).")
        yield kind, start, end


def _check(content: bytes) -> None:
    """Raises ImageError for a PNG that is cut, or of which a part that pixels need is not as its checksum says."""
    if content[:8] != _SIGNATURE:
        raise ImageError("the PNG is damaged: its first bytes changed, as in a transfer as text.")
    view = memoryview(content)
    for kind, start, end in _parts(content):
        checksum = int.from_bytes(content[end - 4 : end], "big")
        if kind[:1].isupper() and zlib.crc32(view[start + 4 : end - 4]) != checksum:
            raise ImageError("the PNG is damaged: a checksum in it is not that of its content.")


def _critical(content: bytes) -> bytes:
    """A PNG without the parts that its pixels do not need, of which Pillow also wants the right checksum."""
    needed = [content[start:end] for kind, start, end in _parts(content) if kind[:1].isupper()]
    return b"".join((content[:8], *needed))


@dataclass(frozen=True)
class _Packed:
    """The compressed pixels of a checked PNG that is not interlaced."""

    height: int
    width: int
    depth: int
    """Bits of a sample."""
    colour: int
    content: bytes
    """What is compressed, as one stream."""
    start: int
    """Where in the file the parts that hold it begin, which follow each other."""
    end: int

    @classmethod
    def of(cls, content: bytes) -> _Packed | None:
        """Those of a file; None where its parts are laid out in another way, which a general decoder may judge."""
        width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
        compression, filtering, interlaced = content[26:29]
        first, last = 0, 0
        parts: list[bytes] = []
        for kind, start, end in _parts(content):
            if kind == b"IHDR" and start != 8:
                return None
            if kind == b"IDAT":
                if parts and last != start:
                    return None
                parts.append(content[start + 8 : end - 4])
                first, last = first or start, end
        if compression or filtering or interlaced or not parts:
            return None
        return cls(height, width, depth, colour, parts[0] if len(parts) == 1 else b"".join(parts), first, last)

    @property
    def _row(self) -> int:
        """Bytes of a row, with that of its filter."""
        return 1 + -(-self.width * self.depth * _SAMPLES[self.colour] // 8)

    def grey_pixels(self) -> NDArray[Any] | None:
        """Grey pixels of 8 or 16 bits; None where there are others, or a general decoder must say what is wrong."""
        from nucseg_batch.arrays.kernels.png_rows import unfiltered

        if self.colour != _GREY or self.depth < 8:
            return None
        stored = np.empty((self.height, self._row), np.uint8)
        pixels = np.empty((self.height, self._row - 1), np.uint8)
        if not self._inflated(stored.reshape(-1).data) or not unfiltered(stored, self.depth // 8, pixels):
            return None
        return pixels if self.depth == 8 else pixels.view(">u2").astype(np.uint16)

    def uncompressed(self, content: bytes) -> bytes | bytearray:
        """The same PNG, with pixels that are not compressed; as it is where that cannot be had.

        For the decoder, whose zlib takes twice as long as libdeflate.
        """
        size = self.height * self._row
        blocks = -(-size // _STORED)
        first = self.start + 10 + 5 * blocks  # where the pixels would be in one block
        result = bytearray(first + size + 8 + len(content) - self.end)
        into: Any = memoryview(result)  # Any: the stubs of checksums do not know that they take it
        pixels = into[first : first + size]
        if not self._inflated(pixels):
            return content
        checksum = imagecodecs.deflate_adler32(pixels)
        struct.pack_into(">I4s2s", into, self.start, first + size - self.start - 4, b"IDAT", b"\x78\x01")  # RFC 1950
        for block in range(blocks):  # RFC 1951: blocks that are stored as they are, in front of where the pixels are
            length, at = min(_STORED, size - block * _STORED), self.start + 10 + block * (_STORED + 5)
            struct.pack_into("<BHH", into, at, block == blocks - 1, length, length ^ 0xFFFF)
            if block < blocks - 1:
                into[at + 5 : at + 5 + length] = pixels[block * _STORED : block * _STORED + length]
        last = first + size
        struct.pack_into(">I", into, last, checksum)
        struct.pack_into(">I", into, last + 4, imagecodecs.deflate_crc32(into[self.start + 4 : last + 4]))
        into[: self.start], into[last + 8 :] = content[: self.start], content[self.end :]
        return result

    def _inflated(self, out: Any) -> bool:
        """Fills memory of the size of all rows with them; False where they are not as long, or damaged."""
        try:
            return len(imagecodecs.deflate_decode(self.content, out=out)) == len(out)
        except Exception:  # of the codec's own class: the decoder says what is wrong
            return False
