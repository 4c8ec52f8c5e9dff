"""Single planes of OME-Zarr images and label images, of version 0.4 to 0.6, as annotated data holds them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.folders import is_array, is_store
from nucseg_batch.files.zarr.opening import configured
from nucseg_batch.files.zarr.systems import flattened

IMAGE_AXIS = "i"
"""Axis along which our own stores put images of one shape."""


@dataclass(frozen=True)
class ZarrPlane:
    """One plane of an OME-Zarr image or label group, at full resolution."""

    group: Path
    """The image or label group."""
    index: int | None = None
    """Place on axis i; None for a group that is one image."""

    def read(self, *, max_pixels: int) -> NDArray[Any]:
        """Reads the plane: (height, width), or (height, width, 3) where axis c has three channels; floats as float32.

        Other axes must be of length 1. Raises ImageError for anything else, for more than `max_pixels` pixels, and for
        pixels that are not finite.
        """
        array, axes = open_level(self.group)
        if axes[-2:] != ("y", "x"):
            raise ImageError(f"{self.group.name} has axes {', '.join(axes)}; the last two must be y and x.")
        if array.shape[-2] * array.shape[-1] > max_pixels:
            raise ImageError(f"{self.group.name} has {array.shape} pixels; at most {max_pixels} a plane are allowed.")
        where = tuple(self._place(axis, length) for axis, length in zip(axes[:-2], array.shape[:-2], strict=True))
        try:
            pixels = np.asarray(array[where] if where else array[:])
        except Exception as error:  # stores and codecs raise their own classes
            raise ImageError(f"{self.group.name} cannot be read ({type(error).__name__}: {error}).") from error
        if pixels.dtype.kind == "f":
            if not np.isfinite(pixels).all():
                raise ImageError(f"{self.group.name} has pixels that are not finite numbers.")
            pixels = pixels.astype(np.float32)
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)) if pixels.ndim == 3 else pixels

    def _place(self, axis: str, length: int) -> int | slice:
        if axis == IMAGE_AXIS and self.index is not None:
            return self.index
        if axis == "c" and length == 3:
            return slice(None)
        if length != 1:
            raise ImageError(f"{self.group.name} has {length} places on axis {axis}; expected one plane, grey or RGB.")
        return 0


def open_level(group: Path) -> tuple[zarr.Array[Any], tuple[str, ...]]:
    """The largest array of an image or label group, and the names of its axes; ImageError where there is none."""
    try:
        multiscale = flattened(attributes(group)["multiscales"][0])
        array = zarr.open_group(group, mode="r")[multiscale["datasets"][0]["path"]]
        axes = tuple(str(axis["name"]) for axis in multiscale["axes"])
    except ImageError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ImageError(f"{group.name} is no OME-Zarr image of version 0.4 to 0.6.") from error
    if not isinstance(array, zarr.Array) or array.ndim != len(axes):
        raise ImageError(f"{group.name} names axes {', '.join(axes)}, but its array has another number of axes.")
    return zarr.Array(configured(array, ours=False)), axes


def image_axis_length(group: Path) -> int | None:
    """Images of a group that has axis i; None for a group that is one image; ImageError for neither."""
    array, axes = open_level(group)
    return int(array.shape[axes.index(IMAGE_AXIS)]) if IMAGE_AXIS in axes else None


def attributes(group: Path) -> dict[str, Any]:
    """OME attributes of a group, wherever its version keeps them; empty where it has none or is no group."""
    try:
        own: dict[str, Any] = zarr.open_group(group, mode="r").attrs.asdict()
    except (OSError, ValueError, KeyError):
        return {}
    ome = own.get("ome", own)
    return ome if isinstance(ome, dict) else {}


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a zarr group or array, or is named like a store."""
    return folder.suffix == ".zarr" or is_store(folder)


def labelled_groups(store: Path) -> list[Path]:
    """Groups of a store, itself included, that have a `labels` group, sorted; arrays are not searched."""
    found = []
    for place, folders, _ in os.walk(store):
        here = Path(place)
        if is_array(here):
            folders.clear()
        elif "labels" in folders:
            found.append(here)
            folders.remove("labels")
    return sorted(found)


def label_names(group: Path) -> list[str]:
    """Names of the label images of an image group, as its `labels` group lists them."""
    names = attributes(group / "labels").get("labels", [])
    return [str(name) for name in names] if isinstance(names, list) else []
