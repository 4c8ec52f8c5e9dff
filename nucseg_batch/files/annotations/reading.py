"""Reads annotation: label images and pictures of single nuclei from files, label planes from OME-Zarr.

Values count as they are stored: palette indices of indexed images, and uninverted values of TIFFs in which 0 is white.
Lossy JPEG and WebP are refused. `encoding` interprets the values.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations.encoding import Annotation, border_number, decode
from nucseg_batch.files.images import read_header, read_image
from nucseg_batch.files.kinds import kind_of
from nucseg_batch.files.zarr.planes import ZarrPlane
from nucseg_batch.plan import Assumption

MAX_PIXELS = 2**31
"""Label images with more pixels are refused."""
_INDEXED = frozenset({"PNG", "BMP", "GIF"})
"""Kinds of files that may have a palette."""
_LOSSY = frozenset({COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY})
_PALETTE = Assumption(
    kind="labels",
    what="palette indices are read as labels",
    evidence="indexed image",
    option="save the labels as a greyscale image",
)


def read_label_files(
    paths: tuple[Path, ...], *, pictures: bool = False, semantic: bool = False, prediction: bool = False
) -> Annotation:
    """Reads files as the nuclei of one image: a label image, or a binary picture for each nucleus.

    Several files are always pictures of single nuclei; `pictures` says that one file is such a picture, too. Pictures
    are numbered in the order given; pixels claimed by two belong to the later one. semantic, prediction: see `decode`.
    Raises ImageError where files cannot be read, are no annotation, or differ in shape.
    """
    if not paths:
        raise ImageError("there are no masks.")
    if len(paths) == 1 and not pictures:
        numbers, assumed = _stored(paths[0])
        found = decode(numbers, paths[0].name, semantic=semantic, prediction=prediction)
        return Annotation(found.labels, (*assumed, *found.assumptions))
    labels: NDArray[np.int32] | None = None
    for number, path in enumerate(paths, start=1):
        nucleus = _nucleus(path)
        if labels is None:
            labels = np.zeros(nucleus.shape, np.int32)
        if nucleus.shape != labels.shape:
            raise ImageError(f"{path.name} is {nucleus.shape} pixels, but {paths[0].name} is {labels.shape}.")
        labels[nucleus] = number
    assert labels is not None
    return Annotation(labels)


def read_label_plane(plane: ZarrPlane, *, semantic: bool = False, prediction: bool = False) -> Annotation:
    """Reads the full-resolution plane (height, width) of an OME-Zarr label group.

    Leading axes of length 1 are dropped. Raises ImageError where there is no such group, where it holds more than one
    plane, and where its pixels are no labels.
    """
    labels = plane.read(max_pixels=MAX_PIXELS)
    if labels.ndim != 2:
        raise ImageError("it has three channels; annotation is one plane (y, x) for an image.")
    return decode(labels, plane.group.name, semantic=semantic, prediction=prediction)


def read_empty(image: Path | ZarrPlane) -> Annotation:
    """The annotation of an image in which nobody found a nucleus: its shape is that of the image."""
    if isinstance(image, ZarrPlane):
        shape = image.read(max_pixels=MAX_PIXELS).shape[:2]
    else:
        header = read_header(image, max_pixels=MAX_PIXELS)
        shape = (header.height, header.width)
    return Annotation(np.zeros(shape, np.int32))


def read_masks(paths: tuple[Path, ...]) -> NDArray[np.bool_]:
    """Where any of several mask files of one image is not 0, (height, width).

    Raises ImageError where a file cannot be read or is lossy, and where files differ in shape.
    """
    masks = [mask.max(axis=2) if mask.ndim == 3 else mask for mask, _ in map(_stored, paths)]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise ImageError(f"{path.name} is {mask.shape} pixels, but {paths[0].name} is {masks[0].shape}.")
    return np.logical_or.reduce([mask != 0 for mask in masks])


def _nucleus(path: Path) -> NDArray[np.bool_]:
    """Where the one nucleus of a picture is."""
    picture, _ = _stored(path)
    if picture.ndim == 3:
        picture = picture.max(axis=2)
    values = np.unique(picture)
    if values.size > 2 or (values.size == 2 and values[0] != 0):
        raise ImageError(
            f"{path.name} has values from {values[0]} to {values[-1]}; the mask of a single nucleus has one non-zero "
            "value. For label images, give their folder itself or name each after its image."
        )
    if border_number(picture):
        raise ImageError(f"{path.name}: {values[-1]} covers most of its border, like a background; invert it.")
    return np.asarray(picture != 0)


def _stored(path: Path) -> tuple[NDArray[Any], tuple[Assumption, ...]]:
    """The values that a file stores, (height, width) or (height, width, 3), and the assumptions about them."""
    try:
        shown = read_image(path, max_pixels=MAX_PIXELS)
        with open(path, "rb") as file:
            kind = kind_of(file.read(32))
        if kind == "JPEG" or (kind == "WebP" and not _is_lossless_webp(path)):
            raise ImageError(f"{kind} is lossy and changes labels; save them as PNG or TIFF.")
        if kind in _INDEXED:
            return _indexed(path, shown, kind)
        return _stored_tiff(path, shown) if kind == "TIFF" else (shown, ())
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from error


def _indexed(path: Path, shown: NDArray[Any], kind: str) -> tuple[NDArray[Any], tuple[Assumption, ...]]:
    """The palette indices of an indexed image, and other images as they are."""
    try:
        with Image.open(path, formats=(kind,)) as picture:
            if picture.mode != "P":
                return shown, ()
            return _background_first(np.asarray(picture), shown), (_PALETTE,)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"its palette indices cannot be read ({error}); save the labels as greyscale.") from error


def _is_lossless_webp(path: Path) -> bool:
    """Whether the pixels of a WebP are in a lossless chunk (RFC 9649)."""
    with open(path, "rb") as file:
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            if chunk[:4] in (b"VP8L", b"VP8 "):
                return chunk[:4] == b"VP8L"
            size = int.from_bytes(chunk[4:], "little")
            file.seek(size + size % 2, os.SEEK_CUR)
    return False


def _stored_tiff(path: Path, shown: NDArray[Any]) -> tuple[NDArray[Any], tuple[Assumption, ...]]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.compression in _LOSSY:
            raise ImageError("its JPEG compression is lossy and changes labels; save them losslessly.")
        if page.photometric == PHOTOMETRIC.PALETTE and shown.ndim == 3:
            return _background_first(page.asarray(), shown), (_PALETTE,)
        if page.photometric == PHOTOMETRIC.MINISWHITE and "PhotometricInterpretation" in page.tags:
            stored = page.asarray()
            if stored.shape == shown.shape and not border_number(stored):
                return stored, ()
    return shown, ()


def _background_first(entries: NDArray[Any], shown: NDArray[Any]) -> NDArray[Any]:
    """Palette numbers with 0 for background, which may be another entry where that is black and around the image."""
    around = border_number(entries)
    if around and not shown[entries == around].any():
        numbers = entries.astype(np.int32) + 1
        numbers[entries == around] = 0
        return numbers
    return entries
