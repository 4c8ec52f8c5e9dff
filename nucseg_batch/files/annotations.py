"""Reads annotation: label images and pictures of single nuclei from files, label planes from OME-Zarr.

Whatever numbers the nuclei have where they are stored, they come back as 1..n in the order of those numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import read_image
from nucseg_batch.files.zarr.planes import ZarrPlane

MAX_PIXELS = 2**31
"""Label images with more pixels are refused."""


def read_labels(paths: tuple[Path, ...]) -> NDArray[np.int32]:
    """Reads files as one label image (height, width): a label image, or a binary picture for each nucleus.

    Pictures are numbered in the order given; pixels claimed by two belong to the later one. Raises ImageError where
    files cannot be read, are colour, hold other than whole numbers, or differ in shape.
    """
    if not paths:
        raise ImageError("there are no masks.")
    layers: list[NDArray[Any]] = []
    for path in paths:
        layer = _plane(path, several=len(paths) > 1)
        if layers and layer.shape != layers[0].shape:
            raise ImageError(f"{path.name} is {layer.shape} pixels, but {paths[0].name} is {layers[0].shape}.")
        layers.append(layer)
    if len(layers) == 1:
        return _numbered(layers[0], paths[0].name)
    labels = np.zeros(layers[0].shape, np.int32)
    for number, layer in enumerate(layers, start=1):
        labels[layer > 0] = number
    return labels


def read_label_zarr(path: Path) -> NDArray[np.int32]:
    """Reads the full-resolution plane (height, width) of an OME-Zarr label group, of version 0.4 or 0.5.

    Leading axes of length 1 are dropped. Raises ImageError where there is no such group, where it holds more than one
    plane, and where its pixels are not whole numbers.
    """
    return read_label_plane(ZarrPlane(path))


def read_label_plane(plane: ZarrPlane) -> NDArray[np.int32]:
    """Reads a plane (height, width) of an OME-Zarr label group; raises ImageError as `read_label_zarr` does."""
    labels = plane.read(max_pixels=MAX_PIXELS)
    if labels.ndim != 2:
        raise ImageError(f"{plane.group.name} has three channels; annotation is one plane (y, x) for an image.")
    return _numbered(labels, plane.group.name)


def number_pieces(labels: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """Numbers the connected pieces of a binary mask, (height, width); None where `labels` is no such mask.

    A mask is taken for binary where it has one number only, and that in several pieces.
    """
    if labels.max(initial=0) != 1:
        return None
    pieces = label(labels, connectivity=2)
    return pieces.astype(np.int32) if pieces.max() > 1 else None


def _plane(path: Path, *, several: bool) -> NDArray[Any]:
    try:
        layer = read_image(path, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"{path.name}: {error}") from error
    if layer.ndim == 2:
        return layer
    if several:
        return layer.max(axis=2)
    if (layer == layer[..., :1]).all():
        return layer[..., 0]
    raise ImageError(f"{path.name} is a colour picture; annotation is one plane of numbers, 0 for background.")


def _numbered(labels: NDArray[Any], name: str) -> NDArray[np.int32]:
    """Labels as 1..n in the order of the numbers they have; ImageError where these are not whole or are negative."""
    if labels.dtype.kind not in "ui" or labels.min(initial=0) < 0:
        raise ImageError(f"{name} is {labels.dtype} from {labels.min()}; labels are whole numbers, 0 for background.")
    _, numbers = np.unique(np.append(labels, labels.dtype.type(0)), return_inverse=True)
    return numbers[:-1].reshape(labels.shape).astype(np.int32)
