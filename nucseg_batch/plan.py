"""What will be done, decided before any pixel is read: pure records and functions, no files and no clock.

An image has one plane or several, along time t and depth z; each plane gets a mask. Images of one shape form a `Stack`,
whose masks share one array with axes (t, i, z, y, x), of which those before y are there only where they are needed. An
image of a store that keeps its structure is a stack by itself, without axis i. The shards of a stack are the `Unit`s,
the pieces of work that are read, committed, repeated and shared out whole: many planes, or a region of a large one. A
unit owns its shard, so no two writers meet in one file.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from nucseg_batch.settings import REGION

Adapt = Literal["no", "outliers", "each"]
"""Which images are given a scale of their own: none, those whose nuclei do not fit that of the others, or all."""
SHARD_BYTES = 64 * 2**20
"""Size of the masks (uint32, before compression) that a unit aims for."""
LABEL_BYTES = 4
"""Bytes for a pixel of a mask."""
TILE = 1536
"""Images with a longer padded side go through the network in tiles of this side."""
LONGEST_STEM = 120
"""Longer names of units are cut, and told apart by a hash."""
CHUNK = 512
"""Largest side in pixels of the chunks of a plane that is done by regions."""


@dataclass(frozen=True)
class ImageInfo:
    """One image that can be segmented, as its header describes it."""

    key: str
    """Path relative to the input folder, with `/` and suffix: the image's name everywhere."""
    size: int
    """Bytes of the file; of a zarr group, of its metadata."""
    mtime_ns: int
    """Time of its last change, in nanoseconds: with the size it tells whether the file is still the planned one."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int
    """1 for grey, 3 for colour (RGB in one picture; separate channels are `names`)."""
    dtype: str
    """Type of its pixels, such as `uint16`."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres, where the file says so."""
    names: tuple[str, ...] = ()
    """Names of its separate channels, in order; empty where it has no channel axis."""
    nuclei: int = 0
    """Which of the channels shows the nuclei."""
    t: tuple[int, int, int] | None = None
    """Time points that are segmented, as start, stop and step of a range; None without such an axis."""
    z: tuple[int, int, int] | None = None
    """Depths likewise; None without such an axis, or where depths are projected."""
    projected: bool = False
    """Whether the maximum over all depths is taken for its plane."""
    files: tuple[str, ...] = ()
    """Keys of the files that hold its channels, one each, where a microscope wrote them apart."""
    group: str | None = None
    """Path of its group in a store whose structure the output keeps; None for an image that is a file."""
    levels: int = 1
    """Levels of its pyramid."""

    @property
    def times(self) -> range:
        """Time points that are segmented; one where there is no such axis."""
        return range(*self.t) if self.t is not None else range(1)

    @property
    def depths(self) -> range:
        """Depths that are segmented; one where there is no such axis, or it is projected."""
        return range(*self.z) if self.z is not None else range(1)

    @property
    def axes(self) -> str:
        """The axes along which it has planes: some of `t` and `z`, in this order."""
        return ("t" if self.t is not None else "") + ("z" if self.z is not None else "")

    @property
    def plane_count(self) -> int:
        """Planes that are segmented."""
        return len(self.times) * len(self.depths)


@dataclass(frozen=True)
class Plane:
    """One plane of an image: what a mask and a row of images.csv are for."""

    image: ImageInfo
    """The image."""
    t: int | None = None
    """Its time point, as the image counts them; None without such an axis."""
    z: int | None = None
    """Its depth likewise."""

    @property
    def name(self) -> str:
        """What to call it in a line for the user."""
        places = [f"{axis}={place}" for axis, place in (("t", self.t), ("z", self.z)) if place is not None]
        return f"{self.image.key} ({', '.join(places)})" if places else self.image.key


@dataclass(frozen=True)
class Failure:
    """Why one image has no mask."""

    image: str
    """Key of the image."""
    stage: str
    """`plan`, `read`, `segment` or `measure`."""
    error: str
    """Class of the error."""
    message: str
    """One line for the user."""


@dataclass(frozen=True)
class Stack:
    """Images whose masks share one array, sorted by key: all of one shape, or one that keeps a place of its own."""

    height: int
    """Rows of each plane."""
    width: int
    """Columns of each plane."""
    images: tuple[ImageInfo, ...]
    """In the order of the array's axis i."""
    region: int = REGION
    """Side of the regions in which planes of more than so many pixels squared are done."""

    @property
    def group(self) -> str | None:
        """Path of the group that the store's structure gives it; None for images that are files."""
        return self.images[0].group

    @property
    def name(self) -> str:
        """Group of the stack in the mask store; empty for an image that is the root of a store."""
        if self.group is not None:
            return self.group
        first = self.images[0]
        lengths = {"t": len(first.times), "z": len(first.depths)}
        before = "".join(f"{lengths[axis]}{axis}" for axis in first.axes)
        return f"{before}{'-' if before else ''}{self.height}x{self.width}"

    @property
    def axes(self) -> str:
        """Axes of the array of masks, such as `iyx`, `tizyx` or `zyx`."""
        axes = self.images[0].axes
        if self.group is None:
            axes = axes.replace("z", "iz") if "z" in axes else axes + "i"
        return axes + "yx"

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of `axes`."""
        first = self.images[0]
        lengths = {"t": len(first.times), "i": len(self.images), "z": len(first.depths)}
        return (*(lengths[axis] for axis in self.axes[:-2]), self.height, self.width)

    @property
    def regional(self) -> bool:
        """Whether its planes are so large that each is done by regions."""
        return self.height * self.width > self.region**2

    @property
    def chunk(self) -> int:
        """Side of the chunks of a plane that is done by regions: the largest part of a region's that CHUNK allows."""
        return next(side for side in range(min(CHUNK, self.region), 0, -1) if self.region % side == 0)

    @property
    def shard(self) -> tuple[int, ...]:
        """Lengths of a shard along `axes`: whole planes up to SHARD_BYTES, or one region of one plane."""
        lengths = dict.fromkeys(self.axes[:-2], 1)
        if self.regional:
            sides = (min(self.region, -(-side // self.chunk) * self.chunk) for side in (self.height, self.width))
            return (*lengths.values(), *sides)
        room = max(1, SHARD_BYTES // (LABEL_BYTES * self.height * self.width))
        for axis in "zit":
            if axis in lengths:
                lengths[axis] = min(self.shape[self.axes.index(axis)], room)
                room //= lengths[axis]
        return (*lengths.values(), self.height, self.width)

    @property
    def grid(self) -> tuple[int, ...]:
        """Shards along `axes`."""
        return tuple(-(-length // step) for length, step in zip(self.shape, self.shard, strict=True))

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

    stack: Stack
    """The stack whose shard it is."""
    number: int
    """Which shard of the stack's grid, counted with the last axis fastest."""

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.stack.name)}-{self.number:06d}"

    @property
    def block(self) -> tuple[int, ...]:
        """Its place in the grid of shards."""
        place, rest = [], self.number
        for length in reversed(self.stack.grid):
            rest, here = divmod(rest, length)
            place.append(here)
        return tuple(reversed(place))

    @property
    def bounds(self) -> tuple[slice, ...]:
        """The part of the stack's array that it owns."""
        sides = zip(self.block, self.stack.shard, self.stack.shape, strict=True)
        return tuple(slice(i * step, min((i + 1) * step, length)) for i, step, length in sides)

    @property
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

    @property
    def planes(self) -> list[Plane]:
        """Its planes, in the order of `places`."""
        return [self.stack.plane(place) for place in self.places]

    @property
    def pixels(self) -> int:
        """Pixels that it owns."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LargePlane:
    """A plane that is done by regions, whose nuclei get their numbers when all of these are done."""

    stack: Stack
    """The stack it belongs to."""
    number: int
    """Which of the stack's planes, the last axis fastest."""

    @property
    def units(self) -> list[Unit]:
        """Its regions, in raster order."""
        count = math.prod(self.stack.grid[-2:])
        return [Unit(self.stack, self.number * count + i) for i in range(count)]

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.stack.name)}-plane-{self.number:06d}"

    @property
    def place(self) -> tuple[int, ...]:
        """Where it lies along the array's axes before y."""
        return Unit(self.stack, self.number * math.prod(self.stack.grid[-2:])).block[:-2]

    @property
    def plane(self) -> Plane:
        """The plane."""
        return self.stack.plane(self.place)


@dataclass(frozen=True)
class Scales:
    """By how much images are enlarged for the network, so that nuclei come out as large as it knows them."""

    grey: float = 1.0
    """Factor for images of one channel."""
    colour: float = 1.0
    """Factor for images of three channels."""
    adapt: Adapt = "no"
    """Which images get a factor of their own."""
    reason: str = "none given"
    """Where the factors come from, for the log."""

    def of(self, channels: int) -> float:
        """The factor for images of so many channels."""
        return self.grey if channels == 1 else self.colour


@dataclass(frozen=True)
class Plan:
    """Everything a run will do."""

    stacks: tuple[Stack, ...]
    """Ordered so that images that share a padded shape follow each other."""
    failures: tuple[Failure, ...]
    """Images whose header already shows that they cannot be used, sorted by key."""

    def units(self) -> Iterator[Unit]:
        """All units, in the order in which one process does them."""
        for stack in self.stacks:
            for number in range(math.prod(stack.grid)):
                yield Unit(stack, number)

    def large_planes(self) -> Iterator[LargePlane]:
        """All planes that are done by regions."""
        for stack in self.stacks:
            if stack.regional:
                for number in range(math.prod(stack.shape[:-2])):
                    yield LargePlane(stack, number)

    @property
    def image_count(self) -> int:
        """Images that will be segmented."""
        return sum(len(stack.images) for stack in self.stacks)

    @property
    def plane_count(self) -> int:
        """Planes that will be segmented."""
        return sum(math.prod(stack.shape[:-2]) for stack in self.stacks)

    @property
    def pixel_count(self) -> int:
        """Pixels that will be segmented."""
        return sum(stack.pixels for stack in self.stacks)

    @property
    def mask_bytes(self) -> int:
        """Size of all masks before compression."""
        return self.pixel_count * LABEL_BYTES

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the separate channels of all images, each once, in the order in which images have them."""
        return tuple(dict.fromkeys(name for stack in self.stacks for image in stack.images for name in image.names))


def make_plan(images: Iterable[ImageInfo], failures: Iterable[Failure] = (), *, region: int = REGION) -> Plan:
    """Groups images into stacks. The plan depends on the images and the size of regions alone, not on their order."""
    groups: dict[tuple[object, ...], list[ImageInfo]] = defaultdict(list)
    for image in images:
        planes = (image.axes, len(image.times), len(image.depths))
        groups[image.height, image.width, planes, image.group].append(image)
    stacks = [
        Stack(members[0].height, members[0].width, tuple(sorted(members, key=lambda image: image.key)), region)
        for members in groups.values()
    ]
    stacks.sort(key=lambda stack: (bucket_shape(stack.height, stack.width), stack.height, stack.width, stack.name))
    return Plan(tuple(stacks), tuple(sorted(failures, key=lambda failure: failure.image)))


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


def bucket_shape(height: int, width: int) -> tuple[int, int]:
    """Shape that an image is padded to: multiples of 32 up to 512 pixels a side, of 64 up to 1024, of 128 beyond."""
    return _padded(height), _padded(width)


def _padded(length: int) -> int:
    step = 32 if length <= 512 else 64 if length <= 1024 else 128
    return -(-length // step) * step
