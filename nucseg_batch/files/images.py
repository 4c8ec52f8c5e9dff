"""Reads one image file: PNG, JPEG or TIFF in, one plane of pixels out, or one clear reason why not.

Headers are read first and alone, so that a file that claims a million pixels a side is refused before memory is taken
for it. Rules for what is not plainly grey or RGB: an alpha channel is dropped; palettes are looked up, except tables
that only tint intensities; one-bit images become 0 and 255 as stored; CMYK is refused; grey TIFFs where white is 0 are
inverted; a TIFF of more than one plane is refused rather than read in part; pixels that are not finite take the lowest
finite value; EXIF rotation is not applied, so that a mask lies over the pixels as they are stored.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.tiff import read_plane, read_plane_header

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
"""Files with these suffixes are taken for images; which kind they are is told by their first bytes."""
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
_PNG_DEPTH_AT = 24
"""Where a PNG's header says how many bits a sample has."""
MAX_EXPANSION = 1000
"""Decoded bytes for each byte of the file above which a file of more than SMALL decoded bytes is a bomb."""
SMALL = 64 * 2**20
"""Decoded bytes below which no expansion is suspicious."""

Image.MAX_IMAGE_PIXELS = None  # our own limit, which the user can raise, is checked before anything is decoded


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its pixels before they are decoded."""

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


def read_header(path: Path, *, max_pixels: int) -> ImageHeader:
    """Reads shape and size of an image; raises ImageError for what cannot or should not be decoded."""
    with _reasons(path):
        size = _regular_size(path)
        kind = _kind(path)
        if kind == "TIFF":
            plane = read_plane_header(path)
            dtype = _result_type(plane.dtype).name
            header = ImageHeader(plane.height, plane.width, plane.channels, dtype, plane.pixel_size)
        else:
            header = _pil_header(path, kind)
        _guard(header, size, max_pixels)
        return header


def read_image(path: Path, *, max_pixels: int) -> NDArray[Any]:
    """Reads an image: (height, width), or (height, width, 3) for colour; any real dtype, all values finite.

    Raises ImageError, whose text says what is wrong with the file.
    """
    read_header(path, max_pixels=max_pixels)
    with _reasons(path):
        kind = _kind(path)
        if kind == "TIFF":
            pixels = read_plane(path)
        elif kind == "PNG":
            pixels = imagecodecs.png_decode(path.read_bytes())
        else:
            with Image.open(path, formats=("JPEG",)) as image:  # unlike bare libjpeg, it refuses a truncated file
                pixels = np.asarray(image)
        return _finite(_grey_or_rgb(pixels))


def _regular_size(path: Path) -> int:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file.")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes).")
    return status.st_size


def _guard(header: ImageHeader, file_size: int, max_pixels: int) -> None:
    pixels = header.height * header.width
    if pixels == 0:
        raise ImageError(f"it has no pixels ({header.height} x {header.width}).")
    if pixels > max_pixels:
        raise ImageError(
            f"it has {header.height} x {header.width} = {pixels} pixels, more than the {max_pixels} allowed; "
            "raise --max-pixels if that is meant."
        )
    if header.bytes > SMALL and header.bytes > MAX_EXPANSION * file_size:
        raise ImageError(f"{file_size} bytes would decode to {header.bytes}: refused as a decompression bomb.")


def _kind(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    raise ImageError("it is no PNG, JPEG or TIFF, whatever its name says.")


def _pil_header(path: Path, kind: str) -> ImageHeader:
    with Image.open(path, formats=(kind,)) as image:
        if image.mode in ("CMYK", "YCCK"):
            raise ImageError("CMYK colours have no defined grey value; convert it to RGB.")
        channels = 3 if image.mode in ("RGB", "RGBA", "P", "PA") else 1
        dtype = "uint16" if kind == "PNG" and _png_depth(path) == 16 else "uint8"
        return ImageHeader(image.height, image.width, channels, dtype)


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(_PNG_DEPTH_AT + 1)[_PNG_DEPTH_AT]


def _grey_or_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    """(height, width) or (height, width, 3), without alpha; one bit becomes 0 and 255."""
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] if pixels.shape[2] in (1, 2) else pixels[:, :, :3]
    return np.ascontiguousarray(pixels)


def _result_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What pixels of a type are returned as."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    """Floats as float32, where what is not finite takes the lowest finite value; integers as they are."""
    if pixels.dtype.kind != "f":
        return pixels.astype(_result_type(pixels.dtype), copy=False)
    good = np.isfinite(pixels)
    if not good.any():
        raise ImageError("none of its pixels is a finite number.")
    lowest, highest = pixels[good].min(), pixels[good].max()
    if max(abs(float(lowest)), abs(float(highest))) > float(np.finfo(np.float32).max):
        raise ImageError(f"its pixels reach from {lowest:g} to {highest:g}, beyond what single precision can hold.")
    return np.where(good, pixels, lowest).astype(np.float32)


@contextlib.contextmanager
def _reasons(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises into an ImageError of one line that keeps the decoder's own words."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("the file is no longer there.") from error
    except Exception as error:  # decoders raise their own classes, MemoryError and plain Exception among them
        text = " ".join(str(error).replace(str(path), path.name).split())
        raise ImageError(
            f"it cannot be decoded ({type(error).__name__}: {text[:200] or 'no further words'})."
        ) from error
