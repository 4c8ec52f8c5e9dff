"""How images share label arrays, and how these are cut into units.

Images of one shape share a `LabelArray` with axes (t, i, z, y, x); axes before y are present only where needed. An
image of a store that keeps its structure has a label array of its own, without axis i. The shards of a label array are
the `Unit`s, which are read, committed, repeated and shared out whole: many planes, or a region of a large one. A unit
owns its shard, so that no two writers meet in one file.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.plan.images import ImageInfo, KnownImages, Plane
from nucseg_batch.plan.shards import ShardGrid
from nucseg_batch.settings import REGION

SHARD_BYTES = 64 * 2**20
"""Size of all label images together (uint32, before compression) that a unit aims for."""
LABEL_BYTES = 4
"""Bytes for a pixel of a label image."""
LONGEST_STEM = 120
"""Longer names of units are cut, and told apart by a hash."""
CHUNK = 512
"""Largest side in pixels of the chunks of a plane that is done by regions; a region is a whole number of them."""


@dataclass(frozen=True)
class LabelArray:
    """Images whose masks share one array, sorted by key: all of one shape, or one that keeps a place of its own."""

    height: int
    """Rows of each plane."""
    width: int
    """Columns of each plane."""
    images: Sequence[ImageInfo]
    """In the order of the array's axis i; never changed."""
    region: int = REGION
    """Side of the regions in which planes of more than so many pixels squared are done."""
    labels: tuple[str, ...] = (NUCLEI_LABEL,)
    """Names of the label images that units write, of one shape and cut alike: nuclei, and compartments around them."""
    linked: bool = False
    """Whether nuclei are joined over z-slices, where it has such an axis."""
    portion: int = 0
    """Which of the portions in which its images came to the run, 0 for those of its first plan."""
    planes_per_shard: int | None = None
    """Most whole planes in a shard; None for as many as SHARD_BYTES hold."""

    @property
    def label_images(self) -> tuple[str, ...]:
        """Names of all its label images: those that units write, and volumes, which are made of whole stacks."""
        return (*self.labels, VOLUMES) if self.has_volumes else self.labels

    @property
    def has_volumes(self) -> bool:
        """Whether nuclei are joined over its z-slices."""
        return self.linked and "z" in self.axes

    @property
    def group(self) -> str | None:
        """Path of the group that the store's structure gives it; None for images that are files."""
        return self.images[0].group

    @cached_property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the separate channels of its images, each once, in the order in which images have them."""
        if isinstance(self.images, KnownImages):
            return self.images.channel_names
        return tuple(dict.fromkeys(name for image in self.images for name in image.names))

    @cached_property
    def pixel_sizes(self) -> frozenset[float | None]:
        """Width of a pixel of its images in micrometres, each once; with None where one does not say it."""
        if isinstance(self.images, KnownImages):
            return self.images.pixel_sizes
        return frozenset(image.pixel_size for image in self.images)

    @cached_property
    def name(self) -> str:
        """Group of the label array in the mask store; empty for an image that is the root of a store."""
        if self.group is not None:
            return self.group
        first = self.images[0]
        lengths = {"t": len(first.times), "z": len(first.depths)}
        before = "".join(f"{lengths[axis]}{axis}" for axis in first.axes)
        after = f"-added{self.portion}" if self.portion else ""
        return f"{before}{'-' if before else ''}{self.height}x{self.width}{after}"

    @cached_property
    def axes(self) -> str:
        """Axes of the array of masks, such as `iyx`, `tizyx` or `zyx`."""
        axes = self.images[0].axes
        if self.group is None:
            axes = axes.replace("z", "iz") if "z" in axes else axes + "i"
        return axes + "yx"

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Lengths of `axes`."""
        first = self.images[0]
        lengths = {"t": len(first.times), "i": len(self.images), "z": len(first.depths)}
        return (*(lengths[axis] for axis in self.axes[:-2]), self.height, self.width)

    @cached_property
    def regional(self) -> bool:
        """Whether its planes are so large that each is done by regions."""
        return self.height * self.width > self.region**2

    @cached_property
    def grid(self) -> ShardGrid:
        """Its shards and chunks: whole planes, in shards of up to SHARD_BYTES; or squares, in shards of one region."""
        lengths = dict.fromkeys(self.axes[:-2], 1)
        planes = tuple(lengths.values())
        if self.regional:
            side = next(side for side in range(min(CHUNK, self.region), 0, -1) if self.region % side == 0)
            region = (min(self.region, -(-length // side) * side) for length in (self.height, self.width))
            return ShardGrid(self.axes, self.shape, (*planes, side, side), (*planes, *region))
        room = max(1, SHARD_BYTES // (LABEL_BYTES * len(self.labels) * self.height * self.width))
        room = min(room, self.planes_per_shard or room)
        for axis in "zit":
            if axis in lengths:
                lengths[axis] = min(self.shape[self.axes.index(axis)], room)
                room //= lengths[axis]
        sides = self.height, self.width
        return ShardGrid(self.axes, self.shape, (*planes, *sides), (*lengths.values(), *sides))

    def plane(self, place: tuple[int, ...]) -> Plane:
        """The plane at a place along the axes before y."""
        index = dict(zip(self.axes, place, strict=False))
        image = self.images[index.get("i", 0)]
        t = image.times[index["t"]] if "t" in index else None
        return Plane(image, t, image.depths[index["z"]] if "z" in index else None)

    @property
    def pixels(self) -> int:
        """Pixels of all planes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Unit:
    """The planes of one shard, or one region of a plane: the unit of work, of commit and of retry."""

    label_array: LabelArray
    """The label array whose shard it is."""
    number: int
    """Which shard of the label array's grid."""

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.label_array.name)}-{self.number:06d}"

    @property
    def block(self) -> tuple[int, ...]:
        """Its place in the grid of shards."""
        return self.label_array.grid.block(self.number)

    @cached_property
    def bounds(self) -> tuple[slice, ...]:
        """The part of the label array that it owns."""
        return self.label_array.grid.bounds(self.number)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Lengths of `bounds`."""
        return tuple(part.stop - part.start for part in self.bounds)

    @property
    def plane_count(self) -> int:
        """How many planes it has; counted without listing them."""
        return math.prod(self.shape[:-2])

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where each of its planes lies along the array's axes before y, the last axis fastest."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.bounds[:-2])))

    def place(self, index: int) -> tuple[int, ...]:
        """Where one of its planes lies, without listing the others."""
        place = []
        for part in reversed(self.bounds[:-2]):
            index, here = divmod(index, part.stop - part.start)
            place.append(part.start + here)
        return tuple(reversed(place))

    @property
    def planes(self) -> list[Plane]:
        """Its planes, in the order of `places`."""
        return [self.label_array.plane(place) for place in self.places]

    @property
    def keys(self) -> list[str]:
        """Key of the image of each of its planes, in the order of `places`."""
        axis = self.label_array.axes.find("i")
        if axis < 0:
            return [self.label_array.images[0].key] * self.plane_count
        shape, images = self.shape, self.label_array.images[self.bounds[axis]]
        times, depths = math.prod(shape[:axis]), math.prod(shape[axis + 1 : -2])
        return [image.key for image in images for _ in range(depths)] * times

    @property
    def pixels(self) -> int:
        """Pixels that it owns."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LargePlane:
    """A plane that is done by regions, whose nuclei get their numbers when all of these are done."""

    label_array: LabelArray
    """The label array it belongs to."""
    number: int
    """Which of the label array's planes, the last axis fastest."""

    @classmethod
    def of(cls, unit: Unit) -> LargePlane:
        """The plane that a region is of."""
        return cls(unit.label_array, unit.number // unit.label_array.grid.per_plane)

    @property
    def units(self) -> list[Unit]:
        """Its regions, in raster order."""
        count = self.label_array.grid.per_plane
        return [Unit(self.label_array, self.number * count + i) for i in range(count)]

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.label_array.name)}-plane-{self.number:06d}"

    @property
    def place(self) -> tuple[int, ...]:
        """Where it lies along the array's axes before y."""
        return self.label_array.grid.block(self.number * self.label_array.grid.per_plane)[:-2]

    @property
    def plane(self) -> Plane:
        """The plane."""
        return self.label_array.plane(self.place)


def file_stem(name: str) -> str:
    """A group's path as one name of a file, different for different paths, of ASCII letters, digits, `_.-` and %XX."""
    if not name:
        return "%"
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else _escaped(c) for c in name)
    if len(plain) <= LONGEST_STEM:
        return plain
    return f"{plain[: LONGEST_STEM - 17]}%{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
