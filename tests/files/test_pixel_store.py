from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image import Image

from nucseg_batch.files.mask_store import MaskWriter, create_store, shard_bytes
from nucseg_batch.files.pixel_store import as_stored, empty_pixels, pixel_type
from nucseg_batch.plan import ImageInfo, Plan, Stack, make_plan


def plan_of(*kinds: tuple[int, str], shape: tuple[int, int] = (31, 37)) -> Plan:
    """A plan of images of one shape, each with so many channels and such a type."""
    return make_plan(ImageInfo(f"{i:03d}.png", 1, 1, *shape, *kind) for i, kind in enumerate(kinds))


@pytest.mark.parametrize(("channels", "axes"), [(1, ["i", "y", "x"]), (3, ["i", "c", "y", "x"])])
def test_an_image_group_is_valid_ome_zarr_with_its_labels(tmp_path: Path, channels: int, axes: list[str]) -> None:
    """By the reference models; and ome-zarr-py, which viewers read with, finds image and labels together."""
    plan = plan_of((channels, "uint16"), (1, "uint8"))
    create_store(tmp_path / "out.zarr", plan, with_images=True)
    (unit,) = plan.units()
    pixels = empty_pixels(unit)
    pixels[...] = np.arange(pixels.size).reshape(pixels.shape)
    masks = np.full((2, 31, 37), 5, np.uint32)
    MaskWriter(tmp_path / "out.zarr").write(unit, masks, pixels)

    group = open_ome_zarr(tmp_path / "out.zarr" / "31x37", version="0.5")
    assert isinstance(group, Image)
    assert [axis.name for axis in group.attributes.ome.multiscales[0].axes] == axes
    assert group.labels is not None
    location = parse_url(tmp_path / "out.zarr" / "31x37")
    assert location is not None
    nodes = list(Reader(location)())
    np.testing.assert_array_equal(np.asarray(nodes[0].data[0]), pixels)
    assert any(node.data and np.array_equal(np.asarray(node.data[0]), masks) for node in nodes[1:])


def test_colour_channels_have_their_colours(tmp_path: Path) -> None:
    """Else a viewer shows histology in three shades of its own choice."""
    create_store(tmp_path / "out.zarr", plan_of((3, "uint8")), with_images=True)
    omero = zarr.open_group(tmp_path / "out.zarr" / "31x37", mode="r").attrs.asdict()["ome"]["omero"]
    assert [(c["label"], c["color"], c["window"]["max"]) for c in omero["channels"]] == [
        ("red", "FF0000", 255.0),
        ("green", "00FF00", 255.0),
        ("blue", "0000FF", 255.0),
    ]


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (["uint8"], "uint8"),
        (["uint8", "uint16"], "uint16"),
        (["uint16", "float32"], "float32"),
        (["int16", "uint8"], "float32"),
        (["uint32"], "float32"),
    ],
)
def test_the_type_of_a_stack_takes_all_its_images(types: list[str], expected: str) -> None:
    """Decided by the plan alone, so that every worker finds the same array."""
    (stack,) = plan_of(*((1, dtype) for dtype in types)).stacks
    assert pixel_type(stack) == expected


def test_grey_images_are_there_three_times_in_a_stack_with_colour() -> None:
    """One array has one shape."""
    stack = plan_of((1, "uint8"), (3, "uint8"), shape=(5, 7)).stacks[0]
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert (as_stored(grey, stack) == grey).all()
    assert as_stored(grey, stack).shape == (3, 5, 7)
    colour = np.arange(105, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(as_stored(colour, stack)[2], colour[..., 2])
    grey_stack = Stack(5, 7, stack.images[:1])
    assert as_stored(grey, grey_stack).shape == (5, 7)


def test_pixels_lie_in_the_shards_of_their_masks(tmp_path: Path) -> None:
    """One writer a file: 47 images of this size are two units, two shards of masks and two of pixels."""
    store = tmp_path / "out.zarr"
    plan = plan_of(*[(1, "uint8")] * 47, shape=(701, 709))
    create_store(store, plan, with_images=True)
    writer = MaskWriter(store)
    sizes = []
    for unit in plan.units():
        pixels = empty_pixels(unit)
        pixels[:, 3, 5] = unit.number + 1
        sizes.append(writer.write(unit, np.ones((len(unit.images), 701, 709), np.uint32), pixels))
    files = [p for p in store.rglob("c/*/*/*") if p.is_file()]
    assert len(files) == 4
    assert sum(sizes) == sum(p.stat().st_size for p in files)
    stored = zarr.open_array(store / "701x709" / "0", mode="r")
    assert [int(stored[i, 3, 5]) for i in (0, 32, 33, 46)] == [1, 1, 2, 2]

    (store / "701x709" / "0" / "c" / "1" / "0" / "0").unlink()
    first, second = plan.units()
    assert shard_bytes(store, first) == sizes[0]
    assert shard_bytes(store, second) < sizes[1], "a run that lost pixels makes them again"


def test_without_pixels_a_stack_is_no_image(tmp_path: Path) -> None:
    """Masks alone are what most runs want, and half an image would not be valid."""
    create_store(tmp_path / "out.zarr", plan_of((1, "uint8")))
    assert zarr.open_group(tmp_path / "out.zarr" / "31x37", mode="r").attrs.asdict() == {}
    assert not (tmp_path / "out.zarr" / "31x37" / "0").exists()
