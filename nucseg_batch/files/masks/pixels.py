"""The pixels of images beside their masks: the group above each label array becomes a valid OME-Zarr 0.5 image.

The pixel array has the axes of the masks, and axis c, after t and i and before z, where images are in colour or have
separate channels. Beside a colour image, greyscale ones are stored three times. Its type is the smallest of uint8,
uint16 and float32 that holds the pixels of all its images unchanged; integers beyond 2**24 are rounded. Chunks and
shards are those of the masks, a shard with all channels, so that one unit writes one file of each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ome_zarr_models.common.omero import Channel, Omero, Window

from nucseg_batch.errors import UsageError
from nucseg_batch.files.masks.ngff import Calibration, image_attributes
from nucseg_batch.files.zarr.ome import with_ome
from nucseg_batch.plan import Failure, ImageInfo, LabelArray, Plan, ShardGrid, Unit

COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
"""Channels of colour images, as viewers show them."""
SHADES = ("0000FF", "00FF00", "FF0000", "00FFFF", "FF00FF", "FFFF00", "FFFFFF")
"""Colours of separate channels in their order, over and over."""


def check_with_images(plan: Plan) -> None:
    """Raises UsageError where the pixels of a plan cannot be written beside the masks; see `storable`."""
    images = [image for label_array in plan.label_arrays for image in label_array.images]
    for failure in storable(images)[1]:
        raise UsageError(f"{failure.image}: {failure.message}")


def storable(images: Sequence[ImageInfo]) -> tuple[list[ImageInfo], list[Failure]]:
    """The images whose pixels can be written beside their masks, and why others cannot.

    Of images that share an array those are kept that have the channels that most of them have.
    """
    alike: dict[tuple[object, ...], list[ImageInfo]] = defaultdict(list)
    failures: list[Failure] = []
    for image in images:
        trouble = _not_storable(image)
        if trouble:
            failures.append(Failure(image.key, "plan", "ImageError", f"--with-images: {trouble}"))
        else:
            alike[image.height, image.width, image.axes, len(image.times), len(image.depths)].append(image)
    kept: list[ImageInfo] = []
    for members in alike.values():
        names, count = Counter(image.names for image in members).most_common(1)[0]
        kept += [image for image in members if image.names == names]
        failures += [
            Failure(image.key, "plan", "ImageError", _other_channels(image, names, count))
            for image in members
            if image.names != names
        ]
    return kept, failures


def _not_storable(image: ImageInfo) -> str | None:
    if image.group is not None:
        return "it is in a zarr store already; use --in-place to have its labels beside its pixels."
    if len(image.axes) == 2 and _channels(image) > 1:
        return (
            "it has time points, depths and channels, with the axis of images more axes than OME-Zarr allows; project "
            "its depths with --z max, or leave out --with-images."
        )
    return None


def _other_channels(image: ImageInfo, names: tuple[str, ...], count: int) -> str:
    own, theirs = (", ".join(some) or "no separate channels" for some in (image.names, names))
    return (
        f"--with-images: it and {count} images of its shape have different channels ({own}; {theirs}), which one array "
        "cannot hold; segment it apart, or leave out --with-images."
    )


def channels(label_array: LabelArray) -> int:
    """Separate channels of its images, or 3 where any is in colour, else 1."""
    return max(_channels(image) for image in label_array.images)


def pixel_axes(label_array: LabelArray) -> str:
    """Axes of the array of pixels: those of the masks, with c where there is more than one channel."""
    if channels(label_array) == 1:
        return label_array.axes
    return label_array.axes.replace("i", "ic")


def pixel_type(label_array: LabelArray) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and float32 that holds the pixels of all images of a label array."""
    types = {image.dtype for image in label_array.images}
    if types <= {"uint8", "uint16"}:
        return np.dtype(np.uint16 if "uint16" in types else np.uint8)
    return np.dtype(np.float32)


def pixel_grid(label_array: LabelArray) -> ShardGrid:
    """The shards of a label array's pixels, numbered as those of its masks; colours share a chunk, channels do not."""
    place, count = pixel_axes(label_array).find("c"), channels(label_array)
    if place < 0:
        return label_array.grid
    return label_array.grid.with_axis("c", place, count, 1 if label_array.images[0].names else count)


def pixel_attributes(label_array: LabelArray, calibration: Calibration) -> dict[str, Any]:
    """Attributes of a label array's image group."""
    attributes = image_attributes(label_array.name, pixel_axes(label_array), calibration, "pixels")
    highest = float(np.iinfo(pixel_type(label_array)).max) if pixel_type(label_array).kind == "u" else None
    names = label_array.images[0].names
    shown = dict(COLOURS)
    if names:
        shown = {name: SHADES[number % len(SHADES)] for number, name in enumerate(names)}
    if channels(label_array) == 1 or highest is None or (names and pixel_type(label_array) != np.uint8):
        return attributes  # of floats, and of the 12 bits that are in most uint16, nobody can say what is bright
    window = Window(min=0.0, max=highest, start=0.0, end=highest)
    listed = [
        Channel.model_validate({"label": name, "color": shade, "window": window}) for name, shade in shown.items()
    ]
    omero = Omero(channels=listed).model_dump(mode="json")
    return with_ome(attributes, {"omero": omero})


def empty_pixels(unit: Unit) -> NDArray[Any]:
    """Zeros for the pixels of a unit: shaped as its masks, with the channels in the place of axis c."""
    return np.zeros([part.stop - part.start for part in pixel_bounds(unit)], pixel_type(unit.label_array))


def pixel_bounds(unit: Unit) -> tuple[slice, ...]:
    """The part of the array of pixels that a unit owns."""
    return pixel_grid(unit.label_array).bounds(unit.number)


def plane_of(pixels: NDArray[Any], unit: Unit, number: int) -> NDArray[Any]:
    """The place for one of a unit's planes in what `empty_pixels` made: a view, (h, w) or (c, h, w)."""
    where: list[Any] = [*np.unravel_index(number, unit.shape[:-2])]
    if "c" in (axes := pixel_axes(unit.label_array)):
        where.insert(axes.index("c"), slice(None))
    return pixels[tuple(where)]


def as_stored(pixels: NDArray[Any], label_array: LabelArray) -> NDArray[Any]:
    """Pixels of a plane or a window of it with their axes in the order of its label array: (h, w) or (c, h, w).

    They come as (h, w) grey, (h, w, 3) colour, or (c, h, w) with separate channels.
    """
    count = channels(label_array)
    if label_array.images[0].names:
        return pixels.reshape(pixels.shape[-2:]) if count == 1 else pixels
    if count == 1:
        return pixels
    return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.broadcast_to(pixels, (count, *pixels.shape))


def _channels(image: ImageInfo) -> int:
    return len(image.names) or image.channels
