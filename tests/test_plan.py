from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from nucseg_batch.plan import ImageInfo, LargePlane, Plan, Plane, bucket_shape, file_stem, make_plan


def image(key: str, height: int = 1021, width: int = 1031, **more: Any) -> ImageInfo:
    return ImageInfo(key, size=10, mtime_ns=7, height=height, width=width, channels=1, dtype="uint8", **more)


def test_a_plan_does_not_depend_on_the_order_in_which_images_are_found() -> None:
    """File systems list in any order; tasks of an array job must still agree on who does what."""
    images = [image(f"{i}.png", *shape) for i, shape in enumerate([(97, 89), (89, 97)] * 20)]
    shuffled = images[:]
    random.Random(3).shuffle(shuffled)
    assert make_plan(images) == make_plan(shuffled)


def test_units_cover_every_image_once_and_own_whole_shards() -> None:
    """A shard with two writers loses data, an image in no unit loses its mask."""
    plan = make_plan([image(f"{i:03d}.png") for i in range(37)])
    (stack,) = plan.label_arrays
    assert stack.grid.shard == (64 * 2**20 // (4 * 1021 * 1031), 1021, 1031) == (15, 1021, 1031)
    units = list(plan.units())
    assert [len(unit.planes) for unit in units] == [15, 15, 7]
    assert [unit.bounds[0].start for unit in units] == [0, 15, 30]
    assert [plane.image.key for unit in units for plane in unit.planes] == [i.key for i in stack.images]
    assert len({unit.name for unit in units}) == 3


def test_planes_of_time_and_depth_are_units_together_as_far_as_a_shard_holds() -> None:
    """One file for each depth of each time point would be what quotas die of."""
    moving = [image(f"{i}.tif", 211, 223, t=(0, 5, 1), z=(2, 9, 3)) for i in range(7)]
    (stack,) = make_plan(moving).label_arrays
    assert (stack.name, stack.axes, stack.shape) == ("5t3z-211x223", "tizyx", (5, 7, 3, 211, 223))
    assert stack.grid.shard == (5, 7, 3, 211, 223)
    (unit,) = make_plan(moving).units()
    assert unit.planes[4] == Plane(stack.images[1], t=0, z=5), "z runs fastest, then images, then time"
    large = [image(f"{i}.tif", 2011, 2017, t=(0, 5, 1), z=(0, 7, 1)) for i in range(2)]
    (stack,) = make_plan(large).label_arrays
    assert stack.grid.shard == (1, 1, 4, 2011, 2017)
    assert len(list(make_plan(large).units())) == 5 * 2 * 2


def test_units_cover_every_pixel_of_every_plane_once() -> None:
    """Whatever the axes, and whether planes are done whole or by regions."""
    kinds = [
        image("a", 61, 67, t=(0, 3, 1)),
        image("b", 61, 67, z=(0, 4, 2)),
        image("c", 61, 67),
        image("d", 301, 211),
        image("s/0", 211, 301, group="s/0", t=(0, 2, 1)),
    ]
    plan = make_plan(kinds, region=96)
    for stack in plan.label_arrays:
        seen = np.zeros(stack.shape, int)
        for unit in (unit for unit in plan.units() if unit.label_array == stack):
            seen[unit.bounds] += 1
            assert unit.shape == seen[unit.bounds].shape
        assert (seen == 1).all()
    assert plan.plane_count == 3 + 2 + 1 + 1 + 2


def test_a_plane_larger_than_a_region_is_done_by_regions_on_a_grid_of_its_own() -> None:
    """The grid depends on the plane only; shards are whole numbers of chunks."""
    plan = make_plan([image("a.tif", 5003, 7001)], region=1000)
    (stack,) = plan.label_arrays
    assert stack.regional
    assert (stack.grid.chunk, stack.grid.shard, stack.grid.counts) == ((1, 500, 500), (1, 1000, 1000), (1, 6, 8))
    units = list(plan.units())
    assert units[8].bounds == (slice(0, 1), slice(1000, 2000), slice(0, 1000))
    assert units[-1].shape == (1, 3, 1)
    (small,) = make_plan([image("a.tif", 97, 7001)], region=512).label_arrays
    assert small.grid.shard == (1, 512, 512)


@pytest.mark.parametrize("region", [128, 4096], ids=["squares", "planes"])
def test_pixels_and_smaller_levels_are_cut_as_the_masks_are(region: int) -> None:
    """A unit then owns one shard of each, and no two units write to one file."""
    (stack,) = make_plan([image(f"{i}.tif", 300, 500) for i in range(3)], region=region).label_arrays
    pixels, level = stack.grid.with_axis("c", 1, 3, 1), stack.grid.level((3, 75, 125))
    assert pixels.count == stack.grid.count
    for number in range(stack.grid.count):
        images, *sides = stack.grid.bounds(number)
        assert pixels.bounds(number) == (images, slice(0, 3), *sides)
    seen = np.zeros(level.shape, int)
    for number in range(level.count):
        seen[level.bounds(number)] += 1
    assert (seen == 1).all()
    assert level.chunk == ((1, 128, 128) if region == 128 else (1, 75, 125))
    assert level.shard == ((1, 128, 128) if region == 128 else (3, 75, 125))


def test_an_image_of_a_store_keeps_its_place() -> None:
    """Plates and collections are mirrored; no image is moved into a stack with others."""
    plan = make_plan([image("p/A/1/0", group="p/A/1/0"), image("p/A/2/0", group="p/A/2/0"), image("x.tif")])
    assert sorted((stack.name, stack.axes) for stack in plan.label_arrays) == [
        ("1021x1031", "iyx"),
        ("p/A/1/0", "yx"),
        ("p/A/2/0", "yx"),
    ]
    assert len({unit.name for unit in plan.units()}) == 3


@pytest.mark.parametrize("name", ["", "A/1/0", "A_1_0", "a b/ü", "..", "x" * 300 + "a", "x" * 300 + "b", "%2F", "/"])
def test_names_of_units_are_files_and_differ_where_groups_do(name: str) -> None:
    """A group's path can hold anything; the run folder's files are named after it."""
    stem = file_stem(name)
    assert stem.isascii()
    assert "/" not in stem
    assert 0 < len(stem) <= 120
    others = {"", "A/1/0", "A_1_0", "x" * 300 + "a", "x" * 300 + "b", "%2F", "/"} - {name}
    assert stem not in {file_stem(other) for other in others}


def test_channels_of_a_run_are_named_once_in_their_order() -> None:
    """They become columns."""
    plan = make_plan([image("a", names=("DAPI", "GFP")), image("b", names=("DAPI", "Cy5"))])
    assert plan.channel_names == ("DAPI", "GFP", "Cy5")


def test_counts_are_those_of_the_images() -> None:
    """They decide what is refused before the first pixel is read."""
    plan = make_plan([image("a", 3, 5), image("b", 7, 11)])
    assert (plan.image_count, plan.pixel_count, plan.mask_bytes) == (2, 15 + 77, 4 * 92)


def test_shapes_that_share_a_padded_shape_follow_each_other() -> None:
    """So that the stream can fill its batches across stacks."""
    plan = make_plan([image("a", 250, 250), image("b", 100, 100), image("c", 256, 256), image("d", 255, 249)])
    buckets = [bucket_shape(s.height, s.width) for s in plan.label_arrays]
    assert buckets == sorted(buckets)


def test_a_padded_shape_is_a_multiple_of_32_and_wastes_little() -> None:
    """The deepest network halves five times; padding costs time."""
    for length in range(1, 3000, 7):
        padded, _ = bucket_shape(length, 1)
        assert padded % 32 == 0
        assert length <= padded < length + 32


def mixed(count: int) -> Plan:
    """Images of several shapes, some of them done by regions."""
    shapes = [(401, 409), (1021, 1031), (907, 911), (3300, 3400)]
    return make_plan([image(f"{i:03d}.tif", *shapes[i % 4]) for i in range(count)], region=1024)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 61])
@pytest.mark.parametrize("images", [1, 4, 37])
def test_every_unit_is_in_exactly_one_share(images: int, count: int) -> None:
    """A unit in two shares would have two writers, a unit in none would never be done."""
    plan = mixed(images)
    shares = [[unit.name for unit in plan.share(number, count)] for number in range(count)]
    assert [name for share in shares for name in share] == [unit.name for unit in plan.units()]


@pytest.mark.parametrize("count", [2, 3, 7, 16])
def test_shares_are_of_one_size_but_for_a_unit(count: int) -> None:
    """The slowest task decides when an array is done."""
    plan = mixed(60)
    sizes = [sum(unit.pixels for unit in plan.share(number, count)) for number in range(count)]
    largest = max(unit.pixels for unit in plan.units())
    assert sum(sizes) == plan.pixel_count
    assert all(abs(size - plan.pixel_count / count) <= largest for size in sizes)


def test_more_shares_than_units_leave_some_without() -> None:
    """That is no mistake: a script may divide every run alike."""
    plan = make_plan([image("a.png"), image("b.png", 97, 89)])
    shares = [list(plan.share(number, 1000)) for number in range(1000)]
    assert sum(map(bool, shares)) == 2
    assert [unit for share in shares for unit in share] == list(plan.units())


def test_shares_depend_on_the_images_alone() -> None:
    """Tasks on different machines work them out for themselves, and must agree."""
    plan = mixed(37)
    images = [one for stack in plan.label_arrays for one in stack.images]
    random.Random(5).shuffle(images)
    other = make_plan(images, region=1024)
    for number in range(5):
        assert list(other.share(number, 5)) == list(plan.share(number, 5))


def test_a_region_knows_its_plane() -> None:
    """Whoever does a region again must have its plane joined again."""
    plan = make_plan([image("a.tif", 167, 211, t=(0, 3, 1)), image("b.tif", 167, 211, t=(0, 3, 1))], region=64)
    planes = list(plan.large_planes())
    assert len(planes) == 6
    assert [LargePlane.of(unit) for unit in plan.units()] == [plane for plane in planes for _ in plane.units]
