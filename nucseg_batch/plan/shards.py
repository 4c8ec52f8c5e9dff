"""How an array is cut: into shards, each a file written whole, and these into chunks, each packed separately."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ShardGrid:
    """The shards of an array of masks or of pixels. Shards are numbered with the last axis fastest."""

    axes: str
    """Letters of the axes; the last two are y and x."""
    shape: tuple[int, ...]
    """Lengths of the axes."""
    chunk: tuple[int, ...]
    """Lengths of a chunk."""
    shard: tuple[int, ...]
    """Lengths of a shard, multiples of those of a chunk; in zarr format 2, which has none, of what is written at once.
    """

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Shards along each axis."""
        return tuple(-(-length // step) for length, step in zip(self.shape, self.shard, strict=True))

    @property
    def count(self) -> int:
        """All shards."""
        return math.prod(self.counts)

    @property
    def per_plane(self) -> int:
        """Shards that a plane lies in."""
        return math.prod(self.counts[-2:])

    def block(self, number: int) -> tuple[int, ...]:
        """The place of a shard among the others, along each axis."""
        place = []
        for length in reversed(self.counts):
            number, here = divmod(number, length)
            place.append(here)
        return tuple(reversed(place))

    def bounds(self, number: int) -> tuple[slice, ...]:
        """The part of the array that is in a shard."""
        sides = zip(self.block(number), self.shard, self.shape, strict=True)
        return tuple(slice(i * step, min((i + 1) * step, length)) for i, step, length in sides)

    def with_axis(self, axis: str, place: int, length: int, chunk: int) -> ShardGrid:
        """The grid with one more axis, at a place among the others; shards hold all of it and keep their numbers."""

        def added(lengths: tuple[int, ...], own: int) -> tuple[int, ...]:
            return (*lengths[:place], own, *lengths[place:])

        axes = f"{self.axes[:place]}{axis}{self.axes[place:]}"
        return ShardGrid(axes, added(self.shape, length), added(self.chunk, chunk), added(self.shard, length))

    def level(self, shape: tuple[int, ...]) -> ShardGrid:
        """The grid of a smaller level: chunks are whole planes or squares, as they are here, and shards no longer."""
        planes = self.chunk[-2:] == self.shape[-2:]
        chunk = (*self.chunk[:-2], *(shape if planes else self.chunk)[-2:])
        sides = zip(self.shard, shape, chunk, strict=True)
        return ShardGrid(self.axes, shape, chunk, tuple(min(step, -(-long // one) * one) for step, long, one in sides))
