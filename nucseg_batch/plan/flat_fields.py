"""Which images a flat field fits, before any of their pixels is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg_batch.plan.images import Failure, ImageInfo

LEAST_PLANES = 8
"""Planes of one height and width from which a flat field is estimated."""
MOST_PIXELS = 2**25
"""Pixels of the largest plane that is taken for one field of view of a camera."""
COLOURS = ("red", "green", "blue")
"""What the channels of colour pictures are called."""


@dataclass(frozen=True)
class FieldShape:
    """A flat field that was given."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int | None = None
    """Its planes, one for each channel of an image; None where one is for all."""


def channel_names(image: ImageInfo) -> tuple[str, ...]:
    """What each channel is called of which an image has a flat field; grey images have the channel ``""``."""
    return image.names or (COLOURS if image.channels == len(COLOURS) else ("",))


def fitting_images(images: Sequence[ImageInfo], given: FieldShape | None) -> tuple[list[ImageInfo], list[Failure]]:
    """The images that a flat field fits, and failures of stage `plan` of the others.

    given: what was given; None where fields are estimated from the images, for each height and width.
    """
    planes: Counter[tuple[int, int]] = Counter()
    for image in images:
        planes[image.height, image.width] += image.plane_count
    kept, failures = [], []
    for image in images:
        reason = _misfit(image, given) if given else _too_few(image, planes[image.height, image.width])
        if reason is None:
            kept.append(image)
        else:
            failures.append(Failure(image.key, "plan", "ImageError", reason))
    return kept, failures


def _misfit(image: ImageInfo, given: FieldShape) -> str | None:
    """Why a field that was given does not fit an image."""
    if (image.height, image.width) != (given.height, given.width):
        return (
            f"it has {image.height} x {image.width} pixels, but the flat field has {given.height} x {given.width}; "
            "give one of the same size, or segment this image into another OUT."
        )
    count = len(channel_names(image))
    if given.channels not in (None, count):
        return (
            f"it has {count} channel{'s' * (count > 1)}, but the flat field has {given.channels}; give one plane for "
            "each channel, or one for all."
        )
    return None


def _too_few(image: ImageInfo, planes: int) -> str | None:
    """Why no field can be estimated for an image."""
    size = f"{image.height} x {image.width}"
    if image.height * image.width > MOST_PIXELS:
        return (
            f"it has {size} pixels, too many for one field of view, so no flat field is estimated; correct the fields "
            "before they are stitched, or give --flatfield FILE."
        )
    if planes < LEAST_PLANES:
        return (
            f"a flat field is estimated from at least {LEAST_PLANES} planes of one size, but {planes} "
            f"{'has' if planes == 1 else 'have'} {size} pixels; give --flatfield FILE, or segment it without."
        )
    return None
