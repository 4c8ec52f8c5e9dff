"""The plan of a run: all label arrays, in the order in which they are done, and what share of them a process gets."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.plan.images import Failure, ImageInfo
from nucseg_batch.plan.scales import bucket_shape
from nucseg_batch.plan.units import LABEL_BYTES, LabelArray, LargePlane, Unit
from nucseg_batch.settings import REGION


@dataclass(frozen=True)
class Plan:
    """Everything a run will do."""

    label_arrays: tuple[LabelArray, ...]
    """Ordered so that images that share a padded shape follow each other."""
    failures: tuple[Failure, ...]
    """Images whose header already shows that they cannot be used, sorted by key."""

    def units(self) -> Iterator[Unit]:
        """All units, in the order in which one process does them."""
        for label_array in self.label_arrays:
            for number in range(label_array.grid.count):
                yield Unit(label_array, number)

    def large_planes(self) -> Iterator[LargePlane]:
        """All planes that are done by regions."""
        for label_array in self.label_arrays:
            if label_array.regional:
                for number in range(math.prod(label_array.shape[:-2])):
                    yield LargePlane(label_array, number)

    def share(self, number: int, count: int) -> Iterator[Unit]:
        """The units of one of `count` shares, counted from 0; every unit is in exactly one share.

        Shares are runs of units in order that have about equally many pixels: none has more than its part of all pixels
        and one unit besides. They depend on nothing but the plan, so that processes need not talk to agree on them.
        Each portion of a run is shared out by itself, so that no unit changes its share when images are added.
        """
        return (unit for share, unit in self.shared_out(count) if share == number)

    def shared_out(self, count: int) -> Iterator[tuple[int, Unit]]:
        """Every unit with the number of its share, of so many, in order."""
        for _, group in itertools.groupby(self.label_arrays, key=lambda label_array: label_array.portion):
            portion = Plan(tuple(group), ())
            before, total = 0, portion.pixel_count
            for unit in portion.units():
                middle = 2 * before + unit.pixels
                before += unit.pixels
                yield middle * count // (2 * total), unit

    @property
    def image_count(self) -> int:
        """Images that will be segmented."""
        return sum(len(label_array.images) for label_array in self.label_arrays)

    @property
    def plane_count(self) -> int:
        """Planes that will be segmented."""
        return sum(math.prod(label_array.shape[:-2]) for label_array in self.label_arrays)

    @property
    def pixel_count(self) -> int:
        """Pixels that will be segmented."""
        return sum(label_array.pixels for label_array in self.label_arrays)

    @property
    def mask_bytes(self) -> int:
        """Size of all masks before compression."""
        return (
            sum(label_array.pixels * len(label_array.label_images) for label_array in self.label_arrays) * LABEL_BYTES
        )

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the separate channels of all images, each once, in the order in which images have them."""
        return tuple(dict.fromkeys(name for label_array in self.label_arrays for name in label_array.channel_names))


def make_plan(
    images: Iterable[ImageInfo],
    failures: Iterable[Failure] = (),
    *,
    region: int = REGION,
    labels: tuple[str, ...] = (NUCLEI_LABEL,),
    linked: bool = False,
    portion: int = 0,
) -> Plan:
    """Groups images into label arrays, each with such label images; linked: whether nuclei are joined over z-slices.

    portion: 0 for the first plan of a run; images that are added later share no array with earlier ones.
    The plan depends only on the images, the region size and the label images, not on their order.
    """
    groups: dict[tuple[object, ...], list[ImageInfo]] = defaultdict(list)
    for image in images:
        planes = (image.axes, len(image.times), len(image.depths))
        groups[image.height, image.width, planes, image.group].append(image)
    label_arrays = [
        LabelArray(
            one[0].height,
            one[0].width,
            tuple(sorted(one, key=lambda image: image.key)),
            region,
            labels,
            linked,
            portion,
        )
        for one in groups.values()
    ]
    label_arrays.sort(
        key=lambda label_array: (
            bucket_shape(label_array.height, label_array.width),
            label_array.height,
            label_array.width,
            label_array.name,
        )
    )
    return Plan(tuple(label_arrays), tuple(sorted(failures, key=lambda failure: failure.image)))


def with_links(plan: Plan, *, joined: bool) -> Plan:
    """A plan of the same images whose nuclei are joined over z-slices, or not; its other arrays are the same."""
    if all(label_array.linked == joined for label_array in plan.label_arrays):
        return plan
    return replace(plan, label_arrays=tuple(replace(one, linked=joined) for one in plan.label_arrays))


def earlier_names(image: ImageInfo) -> tuple[str, ...]:
    """The keys under which an image may have failed before it could be used.

    While a channel is missing that is the file of another channel; of an image in a store, a well or a store that was
    not there.
    """
    if image.group is None:
        return image.key, *image.files
    parts = image.group.split("/")
    return image.key, *("/".join(parts[:depth]) for depth in range(1, len(parts)))


def joined(portions: Sequence[Plan]) -> Plan:
    """The plan of a run whose images came in portions, in the order in which these came.

    What a later portion says of an image that could not be used counts.
    """
    failures = {failure.image: failure for failure in portions[0].failures}
    for portion in portions[1:]:
        for label_array in portion.label_arrays if failures else ():
            for image in label_array.images:
                for key in earlier_names(image):
                    failures.pop(key, None)
        failures |= {failure.image: failure for failure in portion.failures}
    label_arrays = tuple(label_array for portion in portions for label_array in portion.label_arrays)
    return Plan(label_arrays, tuple(sorted(failures.values(), key=lambda failure: failure.image)))
