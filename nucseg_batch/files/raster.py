"""BMP, GIF, WebP and JPEG 2000: pictures that are rarer than PNG and JPEG, and can only be decoded whole, too.

Headers are read first. Those of WebP and JPEG 2000 are read here: Pillow takes memory for a WebP before its size can be
checked, and believes the outer header of a JPEG 2000, not that of its pixels.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.palettes import is_ramp, tinted
from nucseg_batch.plan import Assumption

_CODESTREAM = b"\xff\x4f\xff\x51"
_SYCC, _CMYK = 18, 12
"""Colour spaces of JPEG 2000 that are not read."""
_UINT8, _UINT16 = np.dtype(np.uint8), np.dtype(np.uint16)


@dataclass(frozen=True)
class _RasterHeader:
    """What a header says."""

    height: int
    width: int
    colours: int
    """1 or 3."""
    dtype: np.dtype[Any] = _UINT8
    assumptions: tuple[Assumption, ...] = ()


class Raster:
    """A BMP, GIF, WebP or JPEG 2000."""

    def __init__(self, path: str | Path, kind: str) -> None:
        """Reads the header; raises ImageError, or what PIL raises, for what cannot be used."""
        self._path = path
        read_header, self._decode = _KINDS[kind]
        facts = read_header(path)
        self.dtype, self.assumptions = facts.dtype, facts.assumptions
        self.piece = (facts.height, facts.width)
        self._colours = facts.colours
        self.lengths = {"Y": facts.height, "X": facts.width} | ({"S": 3} if facts.colours == 3 else {})

    def window(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Pixels of a part of the picture, without alpha."""
        pixels = self._decode(self._path)
        if pixels.ndim == 3:
            pixels = pixels[:, :, 0] if self._colours == 1 else pixels[:, :, :3]
        if pixels.shape[:2] != self.piece:
            raise ImageError(f"its header promised {self.piece} pixels, but it is {pixels.shape[:2]}.")
        return pixels[rows, columns]


def _pillow_facts(path: str | Path, kind: str) -> _RasterHeader:
    try:
        image = Image.open(path, formats=(kind,))
    except (OSError, SyntaxError, ValueError) as error:  # UnidentifiedImageError is an OSError without a number
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ImageError(f"it begins like a {kind}, but its header is damaged.") from error
    with image:
        if getattr(image, "is_animated", False):
            raise ImageError(
                f"it is an animation of {getattr(image, 'n_frames', 'several')} pictures; save the one that is meant "
                "as a picture of its own."
            )
        height, width = image.height, image.width
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise ImageError(f"{image.mode} colours have no defined grey value; convert it to RGB.")
        if image.mode == "P":
            table = np.array(image.getpalette(), np.int64).reshape(-1, 3).T
            if is_ramp(table, _bits(image)):
                return _RasterHeader(height, width, 1, assumptions=tinted(table))
            return _RasterHeader(height, width, 3)
        return _RasterHeader(
            height, width, 3 if image.mode.startswith("RGB") else 1, np.dtype(bool if image.mode == "1" else np.uint8)
        )


def _bits(image: Image.Image) -> int:
    """Bits of a pixel of a BMP or GIF with a palette: the fewest that number its entries."""
    entries = len(image.getpalette() or ()) // 3
    if image.format == "BMP":
        return next(bits for bits in (1, 4, 8) if entries <= 2**bits)
    return max(1, (entries - 1).bit_length())


def _pillow_pixels(path: str | Path, kind: str) -> NDArray[Any]:
    with Image.open(path, formats=(kind,)) as image:  # refuses a truncated file
        if image.mode == "P":
            table = np.array(image.getpalette(), np.int64).reshape(-1, 3).T
            if not is_ramp(table, _bits(image)):
                return np.asarray(image.convert("RGB"))
        return np.asarray(image)


def _webp_facts(path: str | Path) -> _RasterHeader:
    """Of the container and of the first chunk of its pixels (RFC 9649)."""
    with open(path, "rb") as file:
        start, size = file.read(64), os.fstat(file.fileno()).st_size
    cut = ImageError("the WebP is cut: it ends within its header.")
    if len(start) < 30:
        raise cut
    if int.from_bytes(start[4:8], "little") + 8 > size:
        raise ImageError("the WebP is truncated: it is shorter than its header says.")
    kind = start[12:16]
    if kind == b"VP8X":
        if start[20] & 0x02:
            raise ImageError("it is an animation; save one picture as a separate file.")
        return _RasterHeader(1 + int.from_bytes(start[27:30], "little"), 1 + int.from_bytes(start[24:27], "little"), 3)
    if kind == b"VP8L" and start[20] == 0x2F:
        bits = int.from_bytes(start[21:25], "little")
        return _RasterHeader(1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF), 3)
    if kind == b"VP8 " and start[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", start[26:30])
        return _RasterHeader(height & 0x3FFF, width & 0x3FFF, 3)
    raise ImageError("the WebP's header is damaged.")


def _webp_pixels(path: str | Path) -> NDArray[Any]:
    return np.asarray(imagecodecs.webp_decode(Path(path).read_bytes()))


def _jpeg2000_facts(path: str | Path) -> _RasterHeader:
    with open(path, "rb") as file:
        start = _codestream(file)
        file.seek(start)
        head = file.read(40 + 3 * 5)
    if len(head) < 43 or not head.startswith(_CODESTREAM):
        raise ImageError("the JPEG 2000 is cut or damaged: it has no header of pixels.")
    right, bottom, left, top = struct.unpack_from(">IIII", head, 8)
    (count,) = struct.unpack_from(">H", head, 40)
    parts = [head[42 + 3 * i : 45 + 3 * i] for i in range(count if count <= 4 else 0)]
    if not parts or len(parts[-1]) < 3:
        raise ImageError(f"it has {count} channels; save the one that shows the nuclei as a picture of its own.")
    if len(set(parts)) > 1 or parts[0][1:] != b"\1\1":
        raise ImageError("its channels differ in size or type; convert it to RGB or grey.")
    depth, signed = (parts[0][0] & 0x7F) + 1, bool(parts[0][0] & 0x80)
    if signed or depth > 16:
        raise ImageError(f"its pixels are {'signed ' if signed else ''}numbers of {depth} bits; save it as TIFF.")
    dtype = _UINT8 if depth <= 8 else _UINT16
    return _RasterHeader(max(0, bottom - top), max(0, right - left), 1 if count <= 2 else 3, dtype)


def _codestream(file: BinaryIO) -> int:
    """Where the pixels of a JPEG 2000 begin, whose boxes (ISO 15444-1, I.4) are looked through."""
    size = os.fstat(file.fileno()).st_size
    if file.read(4) == _CODESTREAM:
        return 0
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            header, length = 16, int.from_bytes(file.read(8), "big")
        length = length or size - at
        if length < header or at + length > size:
            raise ImageError("the JPEG 2000 is cut or damaged: a part of it is longer than the file.")
        if kind == b"jp2c":
            return at + header
        if kind == b"jp2h":
            _check_boxes(file.read(min(length - header, 2**16)))
        at += length
    raise ImageError("the JPEG 2000 is cut or damaged: it has no pixels.")


def _check_boxes(inner: bytes) -> None:
    """Refuses palettes and colours of which the decoder makes something else."""
    at = 0
    while at + 8 <= len(inner):
        length, kind = struct.unpack_from(">I4s", inner, at)
        if kind == b"pclr":
            raise ImageError("it has a palette; convert it to RGB or grey.")
        if kind == b"colr" and inner[at + 8 : at + 9] == b"\1":
            space = int.from_bytes(inner[at + 11 : at + 15], "big")
            if space in (_SYCC, _CMYK):
                raise ImageError(f"its colours are {'YCC' if space == _SYCC else 'CMYK'}; convert it to RGB.")
        if length < 8:
            return
        at += length


def _jpeg2000_pixels(path: str | Path) -> NDArray[Any]:
    return np.asarray(imagecodecs.jpeg2k_decode(Path(path).read_bytes()))


_KINDS: dict[str, tuple[Callable[[str | Path], _RasterHeader], Callable[[str | Path], NDArray[Any]]]] = {
    "BMP": (lambda path: _pillow_facts(path, "BMP"), lambda path: _pillow_pixels(path, "BMP")),
    "GIF": (lambda path: _pillow_facts(path, "GIF"), lambda path: _pillow_pixels(path, "GIF")),
    "WebP": (_webp_facts, _webp_pixels),
    "JPEG 2000": (_jpeg2000_facts, _jpeg2000_pixels),
}
RASTERS = frozenset(_KINDS)
"""Kinds of files that `Raster` reads."""
