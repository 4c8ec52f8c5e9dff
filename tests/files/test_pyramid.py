from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from nucseg_batch.files.masks.ngff import Calibration, levels_listed
from nucseg_batch.files.masks.nodes import read_attributes, write_attributes
from nucseg_batch.files.masks.pixels import empty_pixels
from nucseg_batch.files.masks.pyramid import build_levels, choose_levels, levels_missing
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.plan import ImageInfo, LabelArray, Plan, make_plan


def info(key: str, height: int, width: int, **more: Any) -> ImageInfo:
    return ImageInfo(key, 1, 1, height, width, 1, "uint8", **more)


def random(shape: tuple[int, ...]) -> NDArray[np.uint32]:
    return np.random.default_rng(5).integers(0, 2**32, shape, np.uint32)


def written(store: Path, plan: Plan, **how: Any) -> NDArray[np.uint32]:
    """Random masks in the one stack of a plan, unit by unit, as they were written."""
    (stack,) = plan.label_arrays
    create_store(store, plan, **how)
    whole = random(stack.shape)
    for unit in plan.units():
        MaskWriter(store).write(unit, whole[unit.bounds])
    return whole


def level(store: Path, group: str, number: int) -> NDArray[np.uint32]:
    return np.asarray(zarr.open_array(store / group / "labels" / "nuclei" / str(number), mode="r")[:])


def scales(store: Path, group: str) -> list[list[float]]:
    model = open_ome_zarr(store / group / "labels" / "nuclei", version="0.5")
    assert isinstance(model, ImageLabel)
    datasets = model.attributes.ome.multiscales[0].datasets
    return [one.coordinateTransformations[0].scale for one in datasets]  # type: ignore[union-attr]


def contents(store: Path) -> dict[Path, bytes]:
    return {path.relative_to(store): path.read_bytes() for path in store.rglob("*") if path.is_file()}


IMAGE_OF_FOUR_LEVELS = {
    "multiscales": [
        {
            "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"],
            "datasets": [
                {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
                for k, scale in enumerate([[3.0, 0.5, 0.5], [3.0, 1.0, 1.0], [6.0, 2.0, 2.0], [6.0, 8.0, 8.0]])
            ],
        }
    ]
}
"""Depths are halved once; the last level is four times smaller than the one before."""


def test_levels_take_the_first_pixel_of_each_block(tmp_path: Path) -> None:
    """Levels are those of the image, with its factors along each axis, also where sides are odd."""
    plan = make_plan([info("A/1/0", 131, 97, group="A/1/0", z=(0, 5, 1), levels=4)])
    store = tmp_path / "out.zarr"
    whole = written(store, plan, mirror={"A/1/0": IMAGE_OF_FOUR_LEVELS})
    build_levels(store, plan.label_arrays[0])
    np.testing.assert_array_equal(level(store, "A/1/0", 1), whole[:, ::2, ::2])
    np.testing.assert_array_equal(level(store, "A/1/0", 2), whole[::2, ::4, ::4])
    np.testing.assert_array_equal(level(store, "A/1/0", 3), whole[::2, ::16, ::16])
    assert scales(store, "A/1/0") == [[3.0, 0.5, 0.5], [3.0, 1.0, 1.0], [6.0, 2.0, 2.0], [6.0, 8.0, 8.0]]
    image = open_ome_zarr(store / "A/1/0", version="0.5")
    assert isinstance(image, Image)
    paths = [one.path for one in image.attributes.ome.multiscales[0].datasets]
    assert paths == [f"labels/nuclei/{k}" for k in range(4)]


def test_levels_of_a_large_plane_are_built_shard_by_shard(tmp_path: Path) -> None:
    """Regions of a level need parts of several regions of the level before; seams must not show."""
    plan = make_plan([info("A/1/0", 331, 463, group="A/1/0", levels=3)], region=64)
    store = tmp_path / "out.zarr"
    whole = written(store, plan)
    build_levels(store, plan.label_arrays[0])
    np.testing.assert_array_equal(level(store, "A/1/0", 1), whole[::2, ::2])
    np.testing.assert_array_equal(level(store, "A/1/0", 2), whole[::4, ::4])
    files = [path for path in (store / "A/1/0/labels/nuclei/1/c").rglob("*") if path.is_file()]
    assert len(files) == 3 * 4


def sizes(height: int, width: int, **more: Any) -> list[tuple[int, ...]]:
    (stack,) = make_plan([info("a.tif", height, width, **more)], region=1024).label_arrays
    return [one.shape for one in choose_levels(stack, Calibration({}, {}, {}))]


def test_large_files_are_halved_until_a_side_of_1024() -> None:
    """So that any viewer can show the whole; sides are rounded up, and what is small enough has one level."""
    assert sizes(1024, 1024) == []
    assert sizes(600, 1747) == []
    assert sizes(1025, 1024) == [(1, 513, 512)]
    assert sizes(4097, 3000) == [(1, 2049, 1500), (1, 1025, 750), (1, 513, 375)]
    assert sizes(30_000, 30_000)[-1] == (1, 938, 938)
    assert sizes(4097, 3000, group="p", levels=1)[-1] == (513, 375)
    assert sizes(4097, 3000, group="p", levels=2) == [(2049, 1500)]
    assert sizes(31, 37, group="p", levels=3) == [(16, 19), (8, 10)]


def test_levels_in_place_are_as_long_as_those_of_the_image() -> None:
    """Some tools round sides down; a level that does not fit at all is rounded up."""
    (stack,) = make_plan([info("A/1/0", 31, 37, group="A/1/0", z=(0, 3, 1), levels=3)]).label_arrays
    shapes = [{"z": 7, "y": 31, "x": 37}, {"z": 7, "y": 15, "x": 18}, {"z": 7, "y": 7, "x": 99}]
    levels = choose_levels(stack, Calibration({}, {}, {}), shapes, as_image=True)
    assert [one.shape for one in levels] == [(3, 15, 18), (3, 7, 9)]
    assert [one.factors for one in levels] == [(1, 2, 2), (1, 2, 2)]


@pytest.fixture
def pyramid(tmp_path: Path) -> tuple[Path, LabelArray, Plan, NDArray[np.uint32]]:
    plan = make_plan([info("A/1/0", 131, 97, group="A/1/0", t=(0, 2, 1), levels=3)], region=64)
    whole = written(tmp_path / "out.zarr", plan)
    return tmp_path / "out.zarr", plan.label_arrays[0], plan, whole


def test_levels_are_listed_only_when_all_are_there(pyramid: tuple[Path, LabelArray, Plan, Any]) -> None:
    """A viewer would show a level without pixels as an image without nuclei."""
    store, stack, _, _ = pyramid
    groups = [store / "A/1/0", store / "A/1/0/labels/nuclei"]
    assert levels_missing(store, stack)
    assert [levels_listed(read_attributes(group)) for group in groups] == [1, 1]
    assert isinstance(open_ome_zarr(groups[0], version="0.5"), Image)
    build_levels(store, stack)
    assert [levels_listed(read_attributes(group)) for group in groups] == [3, 3]
    before = contents(store)
    build_levels(store, stack)
    assert contents(store) == before


def test_writing_a_shard_again_unlists_levels_until_they_are_made_again(
    pyramid: tuple[Path, LabelArray, Plan, Any],
) -> None:
    """Levels that no longer fit the first would show nuclei that are not there."""
    store, stack, plan, whole = pyramid
    build_levels(store, stack)
    unit = next(plan.units())
    MaskWriter(store).write(unit, np.zeros(unit.shape, np.uint32))
    assert levels_missing(store, stack)
    assert levels_listed(read_attributes(store / "A/1/0")) == 1
    assert isinstance(open_ome_zarr(store / "A/1/0", version="0.5"), Image)
    build_levels(store, stack)
    whole[unit.bounds] = 0
    np.testing.assert_array_equal(level(store, "A/1/0", 1), whole[:, ::2, ::2])


@pytest.mark.parametrize(("damaged", "left"), [("2/zarr.json", 0), ("1/c/0/0/0", 9), ("1/c/1/1/0", 9)])
@pytest.mark.parametrize("group", ["A/1/0", "A/1/0/labels/nuclei"])
def test_a_half_built_level_is_built_again(
    pyramid: tuple[Path, LabelArray, Plan, Any], damaged: str, left: int, group: str
) -> None:
    """Whatever a kill left: half a file, or levels that only one of two groups lists."""
    store, stack, _, _ = pyramid
    build_levels(store, stack)
    reference = contents(store)
    file = store / "A/1/0/labels/nuclei" / damaged
    file.write_bytes(file.read_bytes()[:left])
    attributes = read_attributes(store / group)
    del attributes["ome"]["multiscales"][0]["datasets"][1:]
    write_attributes(store / group, attributes)
    assert levels_missing(store, stack)
    build_levels(store, stack)
    assert contents(store) == reference


def test_stacks_without_levels_are_left_alone(tmp_path: Path) -> None:
    """Most runs: small images that are files."""
    plan = make_plan([info("a.png", 31, 37), info("b.png", 31, 37)])
    written(tmp_path / "out.zarr", plan)
    before = contents(tmp_path / "out.zarr")
    assert not levels_missing(tmp_path / "out.zarr", plan.label_arrays[0])
    build_levels(tmp_path / "out.zarr", plan.label_arrays[0])
    assert contents(tmp_path / "out.zarr") == before


def test_pixels_have_the_levels_of_their_labels(tmp_path: Path) -> None:
    """Else the image is not valid, and a viewer could not lay one over the other."""
    images = [ImageInfo("a.tif", 1, 1, 1301, 1103, 3, "uint8"), ImageInfo("b.tif", 1, 1, 1301, 1103, 1, "uint8")]
    plan = make_plan(images, region=1024)
    (stack,) = plan.label_arrays
    store = tmp_path / "out.zarr"
    create_store(store, plan, with_images=True)
    whole = np.random.default_rng(3).integers(0, 256, (2, 3, 1301, 1103)).astype(np.uint8)
    for unit in plan.units():
        pixels = empty_pixels(unit)
        bounds = (unit.bounds[0], slice(None), *unit.bounds[1:])
        pixels[...] = whole[bounds]
        MaskWriter(store).write(unit, np.ones(unit.shape, np.uint32), pixels)
    build_levels(store, stack)
    image = open_ome_zarr(store / "1301x1103", version="0.5")
    assert isinstance(image, Image)
    assert [one.path for one in image.attributes.ome.multiscales[0].datasets] == ["0", "1"]
    np.testing.assert_array_equal(zarr.open_array(store / "1301x1103/0", mode="r")[:], whole)
    np.testing.assert_array_equal(zarr.open_array(store / "1301x1103/1", mode="r")[:], whole[:, :, ::2, ::2])
    assert (level(store, "1301x1103", 1) == 1).all()
