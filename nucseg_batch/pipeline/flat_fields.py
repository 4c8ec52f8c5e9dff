"""The flat fields of a run, estimated from a sample of its own images before any of them is segmented."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.flat_field import cell_values, estimate_flat_field
from nucseg_batch.errors import ImageError
from nucseg_batch.files.flat_fields import GivenFields
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.plan import ImageInfo, LabelArray, Plan, Plane, channel_names

SAMPLE = 96
"""Planes of each height and width that are read."""


def estimated_fields(plan: Plan, images: ImageReader, tell: Callable[[str], None]) -> Iterator[GivenFields]:
    """The flat field of each channel, for each height and width of images: as `write_flat_fields` takes them.

    They depend on the plan and the pixels of a sample of its planes, spread evenly over those of one height and width.
    Planes that cannot be read are left out; they fail when they are segmented. A channel without any light in the
    background gets no field.
    """
    shapes: dict[tuple[int, int], list[LabelArray]] = defaultdict(list)
    for label_array in plan.label_arrays:
        shapes[label_array.height, label_array.width].append(label_array)
    for shape, label_arrays in shapes.items():
        planes = _sampled(label_arrays)
        tell(f"estimating the flat field from {len(planes)} planes of {shape[0]} x {shape[1]} pixels")
        cells: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
        for plane in planes:
            for name, values in _cells(images, plane):
                cells[name].append(values)
        for name, found in cells.items():
            field = estimate_flat_field(found, shape)
            called = f"channel {name}" if name else "the images"
            if field is None:
                tell(f"{called} of {shape[0]} x {shape[1]} pixels: too dark to estimate a flat field, so not corrected")
                continue
            tell(f"flat field of {called}: {field.min():.2f} to {field.max():.2f} times the mean")
            yield shape, name, len(found), field


def _sampled(label_arrays: list[LabelArray]) -> list[Plane]:
    """Planes spread evenly over those of label arrays, the images of which are sorted by key in each."""
    counts = [len(one.images) * one.images[0].plane_count for one in label_arrays]
    chosen = np.unique(np.linspace(0, sum(counts) - 1, SAMPLE).round().astype(int))
    found = []
    for first, count, one in zip(itertools.accumulate([0, *counts]), counts, label_arrays, strict=False):
        for number in chosen[(chosen >= first) & (chosen < first + count)] - first:
            image, place = divmod(int(number), one.images[0].plane_count)
            found.append(_plane(one.images[image], place))
    return found


def _plane(info: ImageInfo, place: int) -> Plane:
    """The plane of an image of this number."""
    t, z = divmod(place, len(info.depths))
    return Plane(info, info.times[t] if info.t is not None else None, info.depths[z] if info.z is not None else None)


def _cells(images: ImageReader, plane: Plane) -> list[tuple[str, NDArray[np.float64]]]:
    """The cells of each channel of a plane; none where it cannot be read."""
    info = plane.image
    try:
        pixels = STORAGE_RETRY.run(lambda: images.read(plane))
    except ImageError:
        return []
    planes = pixels if info.names else np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    return [(name, cell_values(one)) for name, one in zip(channel_names(info), planes, strict=True)]
