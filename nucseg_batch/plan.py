"""What will be done, decided before any pixel is read: pure records and functions, no files and no clock.

Images of one shape form a `Stack`, whose masks share one array (i, y, x); its shards are the `Unit`s, the pieces of
work that are read, committed, repeated and shared out whole. A unit owns its shard, so no two writers meet in one file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Adapt = Literal["no", "outliers", "each"]
"""Which images are given a scale of their own: none, those whose nuclei do not fit that of the others, or all."""
SHARD_BYTES = 64 * 2**20
"""Size of the masks (uint32, before compression) that a unit aims for."""
LABEL_BYTES = 4
"""Bytes for a pixel of a mask."""
TILE = 1536
"""Images with a longer padded side go through the network in tiles of this side."""


@dataclass(frozen=True)
class ImageInfo:
    """One image that can be segmented, as its header describes it."""

    key: str
    """Path relative to the input folder, with `/` and suffix: the image's name everywhere."""
    size: int
    """Bytes of the file."""
    mtime_ns: int
    """Time of its last change, in nanoseconds: with the size it tells whether the file is still the planned one."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int
    """1 for grey, 3 for colour."""
    dtype: str
    """Type of its pixels, such as `uint16`."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres, where the file says so."""


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
    """All images of one shape, sorted by key; their masks share one array."""

    height: int
    """Rows of each image."""
    width: int
    """Columns of each image."""
    images: tuple[ImageInfo, ...]
    """In the order of the array's axis i."""

    @property
    def name(self) -> str:
        """Group of the stack in the mask store."""
        return f"{self.height}x{self.width}"

    @property
    def shard_length(self) -> int:
        """Images in a shard, and so in each unit but the last."""
        return min(len(self.images), max(1, SHARD_BYTES // (LABEL_BYTES * self.height * self.width)))


@dataclass(frozen=True)
class Unit:
    """The images of one shard: the unit of work, of commit and of retry."""

    stack: Stack
    """The stack whose shard it is."""
    number: int
    """Which shard along axis i, from 0."""

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{self.stack.name}-{self.number:06d}"

    @property
    def start(self) -> int:
        """Index on axis i of its first image."""
        return self.number * self.stack.shard_length

    @property
    def images(self) -> tuple[ImageInfo, ...]:
        """Its images, in the order of axis i."""
        return self.stack.images[self.start : self.start + self.stack.shard_length]


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
            for number in range(-(-len(stack.images) // stack.shard_length)):
                yield Unit(stack, number)

    @property
    def image_count(self) -> int:
        """Images that will be segmented."""
        return sum(len(stack.images) for stack in self.stacks)

    @property
    def pixel_count(self) -> int:
        """Pixels that will be segmented."""
        return sum(len(stack.images) * stack.height * stack.width for stack in self.stacks)

    @property
    def mask_bytes(self) -> int:
        """Size of all masks before compression."""
        return self.pixel_count * LABEL_BYTES


def make_plan(images: Iterable[ImageInfo], failures: Iterable[Failure] = ()) -> Plan:
    """Groups images into stacks. The plan depends on the images alone, not on their order."""
    groups: dict[tuple[int, int], list[ImageInfo]] = defaultdict(list)
    for image in images:
        groups[image.height, image.width].append(image)
    shapes = sorted(groups, key=lambda shape: (bucket_shape(*shape), shape))
    stacks = tuple(Stack(*shape, tuple(sorted(groups[shape], key=lambda image: image.key))) for shape in shapes)
    return Plan(stacks, tuple(sorted(failures, key=lambda failure: failure.image)))


def bucket_shape(height: int, width: int) -> tuple[int, int]:
    """Shape that an image is padded to: multiples of 32 up to 512 pixels a side, of 64 up to 1024, of 128 beyond."""
    return _padded(height), _padded(width)


def _padded(length: int) -> int:
    step = 32 if length <= 512 else 64 if length <= 1024 else 128
    return -(-length // step) * step
