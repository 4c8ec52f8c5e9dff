"""Reads one image file: PNG, JPEG or TIFF in, one plane of pixels out, or one clear reason why not.

Headers are read first and alone, so that a file that claims a million pixels a side is refused before memory is taken
for it. Rules for what is not plainly grey or RGB: an alpha channel is dropped; palettes are looked up, except tables
that only tint intensities; one-bit images become 0 and 255 as stored; CMYK is refused; grey TIFFs where white is 0 are
inverted; a TIFF of more than one plane is refused rather than read in part; pixels that are not finite take the lowest
finite value; EXIF rotation is not applied, so that a mask lies over the pixels as they are stored.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.errors import ImageError

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

logging.getLogger("tifffile").setLevel(logging.CRITICAL)
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
    bytes: int
    """Size of the decoded pixels in bytes."""


def read_header(path: Path, *, max_pixels: int) -> ImageHeader:
    """Reads shape and size of an image; raises ImageError for what cannot or should not be decoded."""
    with _reasons(path):
        size = _regular_size(path)
        kind = _kind(path)
        if kind == "TIFF":
            with tifffile.TiffFile(path) as tiff:
                header = _tiff_header(tiff)
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
            with tifffile.TiffFile(path) as tiff:
                pixels = _tiff_pixels(tiff)
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
        depth = 2 if kind == "PNG" and _png_depth(path) == 16 else 1
        return ImageHeader(image.height, image.width, channels, image.height * image.width * channels * depth)


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(_PNG_DEPTH_AT + 1)[_PNG_DEPTH_AT]


def _tiff_header(tiff: tifffile.TiffFile) -> ImageHeader:
    if not tiff.series:
        raise ImageError("the TIFF holds no image.")
    series = tiff.series[0]
    if len(tiff.series) > 1:
        raise ImageError(f"the TIFF holds {len(tiff.series)} separate images; save the one that is meant by itself.")
    extra = [
        f"{axis}={length}"
        for axis, length in zip(series.axes, series.shape, strict=True)
        if axis not in "YXS" and length > 1
    ]
    if extra:
        raise ImageError(f"the TIFF is a stack ({', '.join(extra)}), not one plane; save its planes as single images.")
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise ImageError(f"the TIFF's axes are {series.axes}, without Y and X.")
    if series.dtype is None or series.dtype.kind not in "buif":
        raise ImageError(f"pixels of type {series.dtype} cannot be segmented.")
    page = series.keyframe
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise ImageError("CMYK colours have no defined grey value; convert it to RGB.")
    end = tiff.filehandle.size
    for piece in series.pages:
        if piece is None or any(
            offset + count > end for offset, count in zip(piece.dataoffsets, piece.databytecounts, strict=True)
        ):
            raise ImageError("the TIFF is truncated: pixel data lies beyond the end of the file.")
        if 0 in piece.dataoffsets:
            raise ImageError("the TIFF has missing tiles or strips (offset 0).")
    channels = 3 if sizes.get("S", 1) >= 3 or _palette(page) is not None else 1
    return ImageHeader(sizes["Y"], sizes["X"], channels, int(np.prod(series.shape)) * series.dtype.itemsize)


def _tiff_pixels(tiff: tifffile.TiffFile) -> NDArray[Any]:
    series = tiff.series[0]
    pixels = series.asarray()
    axes = series.axes
    for axis, letter in reversed(list(enumerate(axes))):
        if letter not in "YXS":
            pixels = pixels.take(0, axis=axis)
    kept = [letter for letter in axes if letter in "YXS"]
    pixels = pixels.transpose([kept.index(letter) for letter in "YXS" if letter in kept])
    page = series.keyframe
    palette = _palette(page)
    if palette is not None:
        return np.moveaxis(palette[:, pixels], 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        pixels = ~pixels
    return pixels


def _palette(page: Any) -> NDArray[Any] | None:
    """The colours that a TIFF's pixels stand for; None where they are intensities.

    Microscope software stores an intensity image with the look-up table it was displayed in; such a table rises in each
    colour, and the pixels themselves are what was measured.
    """
    if page.photometric != tifffile.PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    rising = (np.diff(page.colormap.astype(np.int64), axis=1) >= 0).all()
    return None if rising else page.colormap


def _grey_or_rgb(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if pixels.ndim == 3:
        if pixels.shape[2] in (1, 2):
            pixels = pixels[:, :, 0]
        elif pixels.shape[2] in (3, 4):
            pixels = pixels[:, :, :3]
        else:
            raise ImageError(f"it has {pixels.shape[2]} samples for each pixel; 1 to 4 can be read.")
    if pixels.ndim != 2 and pixels.ndim != 3:
        raise ImageError(f"it has {pixels.ndim} dimensions; 2 (or 3 with colour) can be read.")
    return np.ascontiguousarray(pixels)


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype.kind != "f":
        return pixels
    pixels = pixels.astype(np.float32)
    good = np.isfinite(pixels)
    if good.all():
        return pixels
    if not good.any():
        raise ImageError("none of its pixels is a finite number.")
    return np.where(good, pixels, pixels[good].min())


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
