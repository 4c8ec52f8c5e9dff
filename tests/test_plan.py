from __future__ import annotations

import random

from nucseg_batch.plan import ImageInfo, bucket_shape, make_plan


def image(key: str, height: int = 1021, width: int = 1031) -> ImageInfo:
    return ImageInfo(key, size=10, mtime_ns=7, height=height, width=width, channels=1, dtype="uint8")


def test_a_plan_does_not_depend_on_the_order_in_which_images_are_found() -> None:
    """File systems list in any order; tasks of an array job must still agree on who does what."""
    images = [image(f"{i}.png", *shape) for i, shape in enumerate([(97, 89), (89, 97)] * 20)]
    shuffled = images[:]
    random.Random(3).shuffle(shuffled)
    assert make_plan(images) == make_plan(shuffled)


def test_units_cover_every_image_once_and_own_whole_shards() -> None:
    """A shard with two writers loses data, an image in no unit loses its mask."""
    plan = make_plan([image(f"{i:03d}.png") for i in range(37)])
    (stack,) = plan.stacks
    assert stack.shard_length == 64 * 2**20 // (4 * 1021 * 1031) == 15
    units = list(plan.units())
    assert [len(unit.images) for unit in units] == [15, 15, 7]
    assert [unit.start for unit in units] == [0, 15, 30]
    assert [i.key for unit in units for i in unit.images] == [i.key for i in stack.images]
    assert len({unit.name for unit in units}) == 3


def test_an_image_larger_than_a_shard_is_a_unit_of_its_own() -> None:
    """The aim of 64 MiB is given up before an image is."""
    plan = make_plan([image("a.tif", 5003, 5009), image("b.tif", 5003, 5009)])
    assert [len(unit.images) for unit in plan.units()] == [1, 1]


def test_counts_are_those_of_the_images() -> None:
    """They decide what is refused before the first pixel is read."""
    plan = make_plan([image("a", 3, 5), image("b", 7, 11)])
    assert (plan.image_count, plan.pixel_count, plan.mask_bytes) == (2, 15 + 77, 4 * 92)


def test_shapes_that_share_a_padded_shape_follow_each_other() -> None:
    """So that the stream can fill its batches across stacks."""
    plan = make_plan([image("a", 250, 250), image("b", 100, 100), image("c", 256, 256), image("d", 255, 249)])
    buckets = [bucket_shape(s.height, s.width) for s in plan.stacks]
    assert buckets == sorted(buckets)


def test_a_padded_shape_is_a_multiple_of_32_and_wastes_little() -> None:
    """The deepest network halves five times; padding costs time."""
    for length in range(1, 3000, 7):
        padded, _ = bucket_shape(length, 1)
        assert padded % 32 == 0
        assert length <= padded < length + 128
