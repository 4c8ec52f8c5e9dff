"""Stacks of z-slices whose nuclei are joined into volumes, and what of them is done at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from nucseg_batch.errors import UsageError
from nucseg_batch.plan.images import ImageInfo
from nucseg_batch.plan.plan import Plan
from nucseg_batch.plan.units import LabelArray, LargePlane, Unit, file_stem


@dataclass(frozen=True)
class StackGroup:
    """Stacks whose masks lie in the same shards: they are joined, committed and repeated together.

    Units fill their shards along z first. So a group is either one unit, with one stack or several, or several units
    along z, y and x with one stack.
    """

    label_array: LabelArray
    """The label array they belong to, which has an axis z."""
    number: int
    """Which of its groups, in the order of the array."""

    @cached_property
    def units(self) -> list[Unit]:
        """The units that their masks are from, along z, then y, then x."""
        per_group = math.prod(self.label_array.grid.counts[-3:])
        return [Unit(self.label_array, self.number * per_group + i) for i in range(per_group)]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where each of the stacks lies along the array's axes before z."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.units[0].bounds[:-3])))

    @property
    def depth(self) -> int:
        """Slices of each stack."""
        return self.label_array.shape[-3]

    @property
    def regions(self) -> int:
        """Shards in which a slice lies: 1, or the regions of a large one."""
        return self.label_array.grid.per_plane

    def unit(self, z: int, region: int) -> Unit:
        """The unit of a region of a slice."""
        return self.units[z // self.label_array.grid.shard[-3] * self.regions + region]

    def large_plane(self, place: tuple[int, ...], z: int) -> LargePlane:
        """A slice of a stack whose planes are done by regions."""
        number = 0
        for at, length in zip((*place, z), self.label_array.shape[:-2], strict=True):
            number = number * length + at
        return LargePlane(self.label_array, number)

    def large_planes(self) -> list[LargePlane]:
        """All slices of stacks whose planes are done by regions."""
        if not self.label_array.regional:
            return []
        return [self.large_plane(place, z) for place in self.places for z in range(self.depth)]

    def image(self, place: tuple[int, ...]) -> ImageInfo:
        """The image of a stack."""
        return self.label_array.plane((*place, 0)).image

    def time(self, place: tuple[int, ...]) -> int | None:
        """The time point of a stack, as its image counts them; None without such an axis."""
        return self.label_array.plane((*place, 0)).t

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.label_array.name)}-stacks-{self.number:06d}"


def stack_groups(plan: Plan) -> Iterator[StackGroup]:
    """All stacks of a plan whose nuclei are joined."""
    for label_array in plan.label_arrays:
        if label_array.has_volumes:
            for number in range(math.prod(label_array.grid.counts[:-3])):
                yield StackGroup(label_array, number)


def check_stacks(plan: Plan, link: str | None) -> None:
    """Raises UsageError where nuclei are to be joined over z-slices and no image that can be used has any."""
    if link == "z" and plan.label_arrays and not any(one.has_volumes for one in plan.label_arrays):
        projected = any(image.projected for one in plan.label_arrays for image in one.images)
        raise UsageError(
            "--link z joins nuclei over z-slices, but --z max makes one plane of them; leave out one of the two."
            if projected
            else "--link z joins nuclei over z-slices, but no image has an axis z; leave it out, or say with --axes "
            "which axis is z."
        )
