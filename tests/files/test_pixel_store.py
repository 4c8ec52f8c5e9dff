from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image import Image

from nucseg_batch.errors import UsageError
from nucseg_batch.files.masks.pixels import (
    as_stored,
    check_with_images,
    empty_pixels,
    pixel_bounds,
    pixel_type,
    plane_of,
    storable,
)
from nucseg_batch.files.masks.store import MaskWriter, create_store, shard_bytes
from nucseg_batch.plan import ImageInfo, LabelArray, Plan, make_plan


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
    (stack,) = plan_of(*((1, dtype) for dtype in types)).label_arrays
    assert pixel_type(stack) == expected


def test_grey_images_are_there_three_times_in_a_stack_with_colour() -> None:
    """One array has one shape."""
    stack = plan_of((1, "uint8"), (3, "uint8"), shape=(5, 7)).label_arrays[0]
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert (as_stored(grey, stack) == grey).all()
    assert as_stored(grey, stack).shape == (3, 5, 7)
    colour = np.arange(105, dtype=np.uint8).reshape(5, 7, 3)
    np.testing.assert_array_equal(as_stored(colour, stack)[2], colour[..., 2])
    grey_stack = LabelArray(5, 7, stack.images[:1])
    assert as_stored(grey, grey_stack).shape == (5, 7)


@pytest.mark.parametrize(
    ("more", "axes", "shape"),
    [
        ({"t": (0, 3, 1)}, "tiyx", (3, 2, 31, 37)),
        ({"z": (0, 3, 1), "names": ("DAPI", "GFP")}, "iczyx", (2, 2, 3, 31, 37)),
        ({"t": (1, 4, 2), "names": ("DAPI", "GFP")}, "ticyx", (2, 2, 2, 31, 37)),
        ({"names": ("DAPI",)}, "iyx", (2, 31, 37)),
        ({"t": (0, 3, 1), "z": (0, 2, 1)}, "tizyx", (3, 2, 2, 31, 37)),
    ],
)
def test_time_points_depths_and_channels_are_kept(
    tmp_path: Path, more: dict[str, Any], axes: str, shape: tuple[int, ...]
) -> None:
    """Plane by plane, each with all its channels, in an image that the reference models accept."""
    plan = make_plan(ImageInfo(f"{i}.tif", 1, 1, 31, 37, 1, "uint8", **more) for i in range(2))
    check_with_images(plan)
    store = tmp_path / "out.zarr"
    create_store(store, plan, with_images=True)
    (unit,) = plan.units()
    pixels = empty_pixels(unit)
    assert pixels.shape == shape
    count = len(more.get("names", ())) or 1
    for number in range(len(unit.planes)):
        read = np.stack([np.full((31, 37), 10 * number + channel + 1, np.uint8) for channel in range(count)])
        plane_of(pixels, unit, number)[...] = as_stored(read if "names" in more else read[0], unit.label_array)
    MaskWriter(store).write(unit, np.ones(unit.shape, np.uint32), pixels)
    model = open_ome_zarr(store / unit.label_array.name, version="0.5")
    assert isinstance(model, Image)
    assert "".join(str(axis.name) for axis in model.attributes.ome.multiscales[0].axes) == axes
    stored = np.asarray(zarr.open_array(store / unit.label_array.name / "0", mode="r")[:])
    last = np.moveaxis(stored, axes.index("c"), 0) if "c" in axes else stored[None]
    planes = last.reshape(count, -1, 31, 37)
    assert (planes[:, :, 5, 7] == [[10 * n + c + 1 for n in range(len(unit.planes))] for c in range(count)]).all()


def test_separate_channels_have_their_names(tmp_path: Path) -> None:
    """Where a viewer can be told how bright they are without guessing: in 8 bits."""
    names = {"names": ("DAPI", "GFP")}
    for shape, dtype in ((31, "uint8"), (41, "uint16")):
        plan = make_plan([ImageInfo("a.tif", 1, 1, shape, 37, 1, dtype, **names)])
        create_store(tmp_path / "out.zarr", plan, with_images=True)
    omero = zarr.open_group(tmp_path / "out.zarr" / "31x37", mode="r").attrs.asdict()["ome"]["omero"]
    assert [(c["label"], c["window"]["max"]) for c in omero["channels"]] == [("DAPI", 255.0), ("GFP", 255.0)]
    assert "omero" not in zarr.open_group(tmp_path / "out.zarr" / "41x37", mode="r").attrs.asdict()["ome"]


def test_regions_of_a_large_colour_image_are_written_one_by_one(tmp_path: Path) -> None:
    """A whole slide does not fit into memory."""
    plan = make_plan([ImageInfo("slide.svs", 1, 1, 167, 211, 3, "uint8")], region=64)
    store = tmp_path / "out.zarr"
    create_store(store, plan, with_images=True)
    whole = np.random.default_rng(7).integers(0, 256, (167, 211, 3)).astype(np.uint8)
    for unit in plan.units():
        rows, columns = unit.bounds[-2:]
        pixels = empty_pixels(unit)
        plane_of(pixels, unit, 0)[...] = as_stored(whole[rows, columns], unit.label_array)
        written = MaskWriter(store).write(unit, np.ones(unit.shape, np.uint32), pixels)
        assert written.bytes == shard_bytes(store, unit) > pixels.size // 2
        assert pixel_bounds(unit) == (slice(0, 1), slice(0, 3), rows, columns)
    stored = zarr.open_array(store / "167x211" / "0", mode="r")
    np.testing.assert_array_equal(np.moveaxis(np.asarray(stored[0]), 0, -1), whole)
    assert len([path for path in (store / "167x211/0/c").rglob("*") if path.is_file()]) == 12


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([{"group": "A/1/0"}], "--in-place"),
        ([{"names": ("DAPI", "GFP")}, {"names": ("DAPI",)}], "different channels"),
        ([{"names": ("DAPI", "GFP"), "t": (0, 2, 1), "z": (0, 2, 1)}], "more axes"),
    ],
)
def test_what_one_array_cannot_hold_is_refused_at_once(images: list[dict[str, Any]], said: str) -> None:
    """Before anything is read, with a way out."""
    plan = make_plan(ImageInfo(f"{i}.tif", 1, 1, 31, 37, 1, "uint8", **more) for i, more in enumerate(images))
    with pytest.raises(UsageError, match=said):
        check_with_images(plan)


def test_only_images_whose_pixels_cannot_be_stored_are_refused() -> None:
    """One that lost a channel, or has five axes, costs itself; most decide which channels an array has."""
    two, one = {"names": ("DAPI", "GFP")}, {"names": ("DAPI",)}
    both = {"t": (0, 2, 1), "z": (0, 2, 1)}
    images = [
        ImageInfo(f"{i}.tif", 1, 1, 31, 37, 1, "uint8", **more)
        for i, more in enumerate([one, two, two, {**two, **both}, both, {"group": "A/1/0"}])
    ]
    kept, failures = storable(images)
    assert [image.key for image in kept] == ["1.tif", "2.tif", "4.tif"]
    assert {failure.image: failure.stage for failure in failures} == dict.fromkeys(("0.tif", "3.tif", "5.tif"), "plan")
    check_with_images(make_plan(kept))


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
        sizes.append(writer.write(unit, np.ones(unit.shape, np.uint32), pixels).bytes)
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
