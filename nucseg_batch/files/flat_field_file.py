"""A flat field that the user gives: an image, or an array of numpy."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError, InputMissingError, UsageError
from nucseg_batch.files.images import open_file
from nucseg_batch.plan import FieldShape

NUMPY = ".npy"
"""Suffix of an array of numpy."""


def check_flat_field_file(path: Path) -> None:
    """Raises InputMissingError where a flat field is no file."""
    if path.is_dir():
        raise InputMissingError(f"--flatfield {path}: it is a folder; give an image, a {NUMPY} file, or `estimate`.")
    if not path.is_file():
        raise InputMissingError(f"--flatfield {path}: there is no such file; give an image, or `estimate`.")


def read_flat_field(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """The flat field of a file: (height, width), or (channels, height, width); each plane with mean 1.

    Pages of a TIFF and samples of a colour are channels. Raises InputMissingError without the file, and UsageError
    where it cannot be read, has other axes, or a value that is not finite or not above 0.
    """
    check_flat_field_file(path)
    try:
        values = _numbers(path) if path.suffix.lower() == NUMPY else _pixels(path, max_pixels)
    except (ImageError, OSError, ValueError) as error:
        raise UsageError(f"--flatfield {path}: {error}") from error
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3) or 0 in values.shape or values.dtype.kind not in "uif":
        raise UsageError(
            f"--flatfield {path}: it must be numbers with the axes yx or cyx, but is {values.dtype} of shape "
            f"{' x '.join(map(str, values.shape))}."
        )
    field = values.astype(np.float64)
    if unknown := field.size - np.count_nonzero(np.isfinite(field)):
        raise UsageError(
            f"--flatfield {path}: {unknown} of its {field.size} values are NaN or infinite; replace these."
        )
    if field.min() <= 0:
        raise UsageError(
            f"--flatfield {path}: all values must be above 0, but the lowest is {field.min():g}; subtract less of "
            "the camera's offset, or smooth it."
        )
    return np.asarray(field / field.mean(axis=(-2, -1), keepdims=True), np.float32)


def field_shape(field: NDArray[Any]) -> FieldShape:
    """Size and channels of what `read_flat_field` returned."""
    height, width = field.shape[-2:]
    return FieldShape(height, width, field.shape[0] if field.ndim == 3 else None)


def _numbers(path: Path) -> NDArray[Any]:
    if path.stat().st_size == 0:
        raise ImageError("the file is empty.")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:  # objects, too: they are never unpickled
        raise ImageError("it is damaged, or no array of numbers; write it again with numpy.save.") from error
    if not isinstance(values, np.ndarray):
        raise ImageError("it is an archive of arrays; save one array with numpy.save.")
    return values


def _pixels(path: Path, max_pixels: int) -> NDArray[Any]:
    """The pixels of an image; pages or z-slices are taken for channels."""
    with contextlib.closing(open_file(path, max_pixels=max_pixels, axes="cyx")) as source:
        header = source.header
        rows, columns = slice(0, header.length("Y")), slice(0, header.length("X"))
        places = itertools.product(range(header.length("T")), range(header.length("Z")))
        planes = [source.read(t, z, rows, columns) for t, z in places]
    if len(planes) > 1:
        if planes[0].ndim != 2:
            raise ImageError("it has channels and z-slices or time points; save one plane for each channel.")
        return np.stack(planes)
    (plane,) = planes
    return np.moveaxis(plane, -1, 0) if "S" in header.axes else plane
