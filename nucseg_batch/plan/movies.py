"""Movies whose nuclei are linked over time points, and what of them is done at once."""

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
class MovieGroup:
    """Movies whose masks lie in the same shards: they are linked, committed and repeated together.

    A movie is one image at one z-slice, over all of its time points.
    """

    label_array: LabelArray
    """The label array they belong to, whose first axis is t."""
    number: int
    """Which of its groups, in the order of the array."""

    @cached_property
    def units(self) -> list[Unit]:
        """The units that their masks are from, along t, then y, then x."""
        counts, per_plane = self.label_array.grid.counts, self.label_array.grid.per_plane
        step = math.prod(counts[1:])
        return [
            Unit(self.label_array, t * step + self.number * per_plane + region)
            for t in range(counts[0])
            for region in range(per_plane)
        ]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Where each of the movies lies along the array's axes between t and y."""
        return list(itertools.product(*(range(part.start, part.stop) for part in self.units[0].bounds[1:-2])))

    @property
    def frames(self) -> int:
        """Time points of each movie."""
        return self.label_array.shape[0]

    def unit(self, t: int, region: int) -> Unit:
        """The unit of a region of a frame."""
        return self.units[t // self.label_array.grid.shard[0] * self.label_array.grid.per_plane + region]

    def large_planes(self) -> list[LargePlane]:
        """All frames of movies whose planes are done by regions."""
        if not self.label_array.regional:
            return []
        shape = self.label_array.shape[:-2]
        frames = (((t, *place) for place in self.places) for t in range(self.frames))
        numbers = (sum(at * math.prod(shape[k + 1 :]) for k, at in enumerate(one)) for each in frames for one in each)
        return [LargePlane(self.label_array, number) for number in numbers]

    def image(self, place: tuple[int, ...]) -> ImageInfo:
        """The image of a movie."""
        return self.label_array.plane((0, *place)).image

    def depth(self, place: tuple[int, ...]) -> int | None:
        """The z-slice of a movie, as its image counts them; None without such an axis."""
        return self.label_array.plane((0, *place)).z

    @property
    def name(self) -> str:
        """Name of its files in the run folder."""
        return f"{file_stem(self.label_array.name)}-movies-{self.number:06d}"


def movie_groups(plan: Plan) -> Iterator[MovieGroup]:
    """All movies of a plan."""
    for label_array in plan.label_arrays:
        if "t" in label_array.axes:
            for number in range(math.prod(label_array.grid.counts[1:-2])):
                yield MovieGroup(label_array, number)


def check_movies(plan: Plan, link: str | None) -> None:
    """Raises UsageError where nuclei are to be linked over time points and no image that can be used has any."""
    if link == "t" and plan.label_arrays and not any("t" in one.axes for one in plan.label_arrays):
        raise UsageError(
            "--link t links nuclei over time points, but no image has an axis t; leave it out, or say with --axes "
            "which axis is t. Time points in files of their own cannot be linked: join them into one image first."
        )
