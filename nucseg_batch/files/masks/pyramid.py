"""Pyramids of label images: each level takes the top-left pixel of every block of pixels of the level before.

A level's pixel j is the pixel j * factor of the level before, so no number is made up, and the place of the first
pixel is that of the first level at every level. Levels are made when the first one is complete, shard by shard. They
are listed in the metadata when all are on disk: until then, and from when a shard of the first level is written again,
the store is a valid one with a single level.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nucseg_batch.files.atomic_write import remove_leftovers
from nucseg_batch.files.masks.ngff import (
    Calibration,
    PyramidLevel,
    image_kind,
    label_path,
    label_paths,
    level_name,
    levels_listed,
    planned_levels,
    with_levels,
)
from nucseg_batch.files.masks.nodes import (
    ArrayLayout,
    put_array,
    read_attributes,
    replace_part,
    write_attributes,
)
from nucseg_batch.files.masks.pixels import pixel_grid
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import LabelArray, ShardGrid

SMALL = 1024
"""Large planes are halved until neither side is longer."""


def choose_levels(
    label_array: LabelArray,
    calibration: Calibration,
    shapes: Sequence[Mapping[str, int]] = (),
    *,
    as_image: bool = False,
) -> list[PyramidLevel]:
    """The levels that a label array's label image is to have after the first.

    As many as its image has, with that image's factors; where it has one, and for files, large planes are halved until
    neither side is longer than SMALL. `as_image` keeps to the image's, also where that is one. A side is as long as
    that of the image's level, where `shapes` has the lengths of all its levels, else rounded up.
    """
    wanted = label_array.images[0].levels - 1 if label_array.group is not None else 0
    if not wanted and label_array.regional and not as_image:
        wanted = (
            math.ceil(math.log2(max(label_array.height, label_array.width) / SMALL))
            if max(label_array.shape[-2:]) > SMALL
            else 0
        )
    levels: list[PyramidLevel] = []
    before = dict(zip(label_array.axes, label_array.shape, strict=True))
    for number in range(wanted):
        factors = calibration.factors[number] if number < len(calibration.factors) else {"y": 2, "x": 2}
        own = shapes[number + 1] if number + 1 < len(shapes) else {}
        after = {}
        for axis, length in before.items():
            factor = factors.get(axis, 1)
            after[axis] = -(-length // factor)
            if axis in own and (own[axis] - 1) * factor < length and own[axis] <= after[axis]:
                after[axis] = own[axis]
        levels.append(PyramidLevel(tuple(after.values()), tuple(factors.get(axis, 1) for axis in before)))
        before = after
    return levels


def build_levels(store: Path, label_array: LabelArray) -> None:
    """Makes all levels of a label array's label images, and of its pixels where the store has them, and lists them.

    Does nothing where they are listed already. Needs memory for a few shards.
    """
    levels = planned_levels(read_attributes(store / label_path(label_array)))
    if not levels or not levels_missing(store, label_array):
        return
    for label in label_paths(label_array):
        _build(store / label, label_array.grid, label_array.axes, levels)
    if image_kind(read_attributes(store / label_array.name)) == "pixels":
        _build(store / label_array.name, pixel_grid(label_array), label_array.axes, levels)
    for folder in _listing(store, label_array):
        attributes = read_attributes(folder)
        if levels_listed(attributes) != len(levels) + 1:
            write_attributes(folder, with_levels(attributes, levels, label_array.axes))


def levels_missing(store: Path, label_array: LabelArray) -> bool:
    """Whether a label array is to have levels after the first that are not made, or not listed yet."""
    levels = planned_levels(read_attributes(store / label_path(label_array)))
    counts = (levels_listed(read_attributes(folder)) for folder in _listing(store, label_array))
    return bool(levels) and any(count != len(levels) + 1 for count in counts)


def remove_leftovers_of_levels(store: Path, label_array: LabelArray) -> None:
    """Deletes what killed writers left of a label array's levels after the first; nobody else may be at them."""
    planned = planned_levels(read_attributes(store / label_path(label_array)))
    for group in _listing(store, label_array):
        for number in range(1, len(planned) + 1):
            for folder, _, _ in os.walk(group / level_name(number)):
                remove_leftovers(Path(folder))


def unlist_levels(store: Path, label_array: LabelArray) -> None:
    """Takes levels that no longer fit the first one out of the metadata; `build_levels` makes them again."""
    for folder in _listing(store, label_array):
        attributes = read_attributes(folder)
        if levels_listed(attributes) > 1:
            write_attributes(folder, with_levels(attributes, (), label_array.axes))


def _listing(store: Path, label_array: LabelArray) -> list[Path]:
    """The groups whose metadata list the levels: the label groups, and the image group above them where that is ours.

    An image of the input, in whose group labels are, has levels of its own.
    """
    image = store / label_array.name
    own = image_kind(read_attributes(image)) is not None
    return [*(store / label for label in label_paths(label_array)), *([image] if own else [])]


def _build(group: Path, grid: ShardGrid, axes: str, levels: Sequence[PyramidLevel]) -> None:
    """Makes the arrays of a group after its first, which has a grid; `axes` are those that levels have lengths of."""
    source = open_array(group / level_name(0), mode="r")
    for number, level in enumerate(levels, start=1):
        lengths, steps = (dict(zip(axes, values, strict=True)) for values in (level.shape, level.factors))
        own = grid.level(tuple(lengths.get(axis, length) for axis, length in zip(grid.axes, grid.shape, strict=True)))
        factors = tuple(steps.get(axis, 1) for axis in grid.axes)
        folder = group / level_name(number)
        put_array(folder, ArrayLayout(own, source.dtype.name), version=source.metadata.zarr_format)
        target = open_array(folder, mode="r+")
        for bounds in map(own.bounds, range(own.count)):
            sides = zip(bounds, factors, strict=True)
            seen = tuple(slice(part.start * step, (part.stop - 1) * step + 1, step) for part, step in sides)
            replace_part(folder, target, bounds, np.asarray(source[seen]))
        source = target
