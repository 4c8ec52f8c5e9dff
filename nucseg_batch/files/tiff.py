"""Single planes from TIFF files: what a header promises, and the pixels, by the rules that images.py lists.

A TIFF can hold nearly anything. What is one plane of grey or RGB is read; what is more than that, or means something
else than light, is refused in words, because a part of it read in silence would look like success.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from nucseg_batch.errors import ImageError
from nucseg_batch.files.pixel_size import tiff_pixel_size

ALPHA = frozenset({EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA})
DECODED_TO_RGB = frozenset(
    {tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.APERIO_JP2000_YCBC}
)
"""Compressions whose decoder turns YCbCr into RGB."""

logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class TiffPlane:
    """What the header of a TIFF of one plane says."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int
    """1 for grey, 3 for colour, once palettes are looked up and alpha is dropped."""
    dtype: np.dtype[Any]
    """Of the stored samples, or of the palette."""
    pixel_size: float | None
    """Width of a pixel in micrometres, where the file says so."""


def read_plane_header(path: Path) -> TiffPlane:
    """Reads the header; raises ImageError for what is not one plane of grey or RGB, or reaches beyond the file."""
    with tifffile.TiffFile(path) as tiff:
        return _header(tiff)


def read_plane(path: Path) -> NDArray[Any]:
    """Reads the pixels: (height, width) or (height, width, 3), as stored but for palettes and inverted grey."""
    with tifffile.TiffFile(path) as tiff:
        plane = _header(tiff)
        series = tiff.series[0]
        pixels = series.asarray()
        kept = [letter for letter in series.axes if letter in "YXS"]
        pixels = pixels.reshape([series.shape[series.axes.index(letter)] for letter in kept])
        pixels = pixels.transpose([kept.index(letter) for letter in "YXS" if letter in kept])
        page = series.keyframe
        palette = _palette(page)
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] if plane.channels == 1 or palette is not None else pixels[:, :, :3]
    if palette is not None:
        return np.moveaxis(palette[:, pixels.astype(np.intp)], 0, -1)
    if page.photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        pixels = pixels.dtype.type(2 ** int(page.bitspersample) - 1) - pixels
    return pixels


def _header(tiff: tifffile.TiffFile) -> TiffPlane:
    if not tiff.series:
        raise ImageError("the TIFF holds no image.")
    if len(tiff.series) > 1:
        raise ImageError(f"the TIFF holds {len(tiff.series)} separate images; save the one that is meant by itself.")
    series = tiff.series[0]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    stacked = [f"{axis}={length}" for axis, length in sizes.items() if axis not in "YXS" and length > 1]
    if stacked:
        raise ImageError(
            f"the TIFF is a stack ({', '.join(stacked)}), not one plane; save its planes as single images."
        )
    if "Y" not in sizes or "X" not in sizes:
        raise ImageError(f"the TIFF's axes are {series.axes}, without Y and X.")
    if series.dtype is None or series.dtype.kind not in "buif":
        raise ImageError(f"pixels of type {series.dtype} cannot be segmented.")
    _check_data_is_there(tiff, series)
    page = series.keyframe
    palette = _palette(page)
    channels = 3 if palette is not None else _channels(page, sizes.get("S", 1))
    dtype = series.dtype if palette is None else palette.dtype
    return TiffPlane(sizes["Y"], sizes["X"], channels, np.dtype(dtype), tiff_pixel_size(tiff))


def _channels(page: Any, samples: int) -> int:
    """1 or 3: how many samples are light; the others must be alpha, or the image is refused."""
    photometric = PHOTOMETRIC(page.photometric)
    if photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.PALETTE):
        light = 1
    elif photometric == PHOTOMETRIC.RGB or (photometric == PHOTOMETRIC.YCBCR and page.compression in DECODED_TO_RGB):
        light = 3
    else:
        raise ImageError(f"colours of kind {photometric.name} have no defined grey value; convert it to RGB.")
    others = samples - light
    if others and not (others == 1 and set(page.extrasamples) <= ALPHA and page.extrasamples):
        raise ImageError(f"it has {samples} channels that are not RGB; save the one that shows the nuclei by itself.")
    return light


def _check_data_is_there(tiff: tifffile.TiffFile, series: Any) -> None:
    end = tiff.filehandle.size
    for page in series.pages:
        pieces = [] if page is None else list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if page is None or any(offset + count > end for offset, count in pieces):
            raise ImageError("the TIFF is truncated: pixel data lies beyond the end of the file.")
        if any(offset == 0 for offset, _ in pieces):
            raise ImageError("the TIFF has missing tiles or strips (offset 0).")


def _palette(page: Any) -> NDArray[Any] | None:
    """The colours that a TIFF's pixels stand for, (3, entries); None where they are intensities.

    Microscope software stores an intensity image with the look-up table it was displayed in; such a table rises in each
    colour, and the pixels themselves are what was measured.
    """
    if page.photometric != PHOTOMETRIC.PALETTE or page.colormap is None:
        return None
    rising = (np.diff(page.colormap.astype(np.int64), axis=1) >= 0).all()
    return None if rising else page.colormap
