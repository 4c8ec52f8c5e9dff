"""The pixels of images beside their masks: each stack's group becomes a valid OME-Zarr 0.5 image above its labels.

A grey stack is the array `<height>x<width>/0` with axes (i, y, x), a stack with any colour image (i, c, y, x), where
grey images are there three times. Its type is the smallest of uint8, uint16 and float32 that takes the pixels of all
its images as they are; whole numbers beyond 2**24 are rounded. Chunks and shards are those of the masks: one chunk an
image and one shard a unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from ome_zarr_models.common.coordinate_transformations import VectorScale
from ome_zarr_models.common.omero import Channel, Omero, Window
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.multiscales import Dataset, Multiscale
from zarr.codecs import ZstdCodec

from nucseg_batch.plan import Stack, Unit

COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
ZSTD_LEVEL = 1
"""As for masks; higher levels save a few percent of microscope images."""


def channels(stack: Stack) -> int:
    """1 for a stack of grey images, 3 where any is in colour."""
    return max(image.channels for image in stack.images)


def pixel_type(stack: Stack) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and float32 that holds the pixels of all images of a stack."""
    types = {image.dtype for image in stack.images}
    if types <= {"uint8", "uint16"}:
        return np.dtype(np.uint16 if "uint16" in types else np.uint8)
    return np.dtype(np.float32)


def create_pixels(root: zarr.Group, stack: Stack) -> None:
    """Makes a stack's image group and its array, still empty, where they are not there."""
    if f"{stack.name}/0" in root:
        return
    colour = channels(stack) == 3
    group = root.require_group(stack.name)
    group.update_attributes({"ome": _metadata(stack.name, pixel_type(stack), colour)})
    group.create_array(
        "0",
        shape=(len(stack.images), *_plane(stack)),
        chunks=(1, *_plane(stack)),
        shards=(stack.shard_length, *_plane(stack)),
        dtype=pixel_type(stack).name,
        fill_value=0,
        compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
        dimension_names=["i", "c", "y", "x"] if colour else ["i", "y", "x"],
    )


def empty_pixels(unit: Unit) -> NDArray[Any]:
    """Zeros for the pixels of a unit: (images, height, width), or (images, 3, height, width)."""
    return np.zeros((len(unit.images), *_plane(unit.stack)), pixel_type(unit.stack))


def as_stored(pixels: NDArray[Any], stack: Stack) -> NDArray[Any]:
    """Pixels of one image, (height, width) or (height, width, 3), with their axes in the order of its stack."""
    if channels(stack) == 1:
        return pixels
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.broadcast_to(pixels, _plane(stack))


def pixel_shard(store: Path, unit: Unit) -> Path:
    """File of a unit's pixels."""
    inner = ("0",) * len(_plane(unit.stack))
    return store.joinpath(unit.stack.name, "0", "c", str(unit.number), *inner)


def _plane(stack: Stack) -> tuple[int, ...]:
    plane = (stack.height, stack.width)
    return plane if channels(stack) == 1 else (3, *plane)


def _metadata(name: str, dtype: np.dtype[Any], colour: bool) -> dict[str, Any]:
    axes = [Axis(name="i", type="image"), Axis(name="y", type="space"), Axis(name="x", type="space")]
    if colour:
        axes.insert(1, Axis(name="c", type="channel"))
    scale = VectorScale(type="scale", scale=[1.0] * len(axes))
    dataset = Dataset(path="0", coordinateTransformations=(scale,))
    image = ImageAttrs(version="0.5", multiscales=[Multiscale(name=name, axes=axes, datasets=(dataset,))])
    metadata = image.model_dump(exclude_none=True, mode="json")
    if colour and dtype.kind == "u":  # of floats nobody can say what is bright
        highest = float(np.iinfo(dtype).max)
        window = Window(min=0.0, max=highest, start=0.0, end=highest)
        shown = [Channel.model_validate({"label": name, "color": c, "window": window}) for name, c in COLOURS.items()]
        metadata["omero"] = Omero(channels=shown).model_dump(mode="json")
    return metadata
