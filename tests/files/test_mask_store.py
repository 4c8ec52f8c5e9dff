from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.hcs import HCS
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from nucseg_batch.errors import InputMissingError, OutputError
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.masks.store import (
    MaskWriter,
    create_store,
    is_ours,
    masks_changed_ns,
    remove_leftovers_of,
    shard_bytes,
    shards_written,
)
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import ImageInfo, Plan, Unit, make_plan


def info(key: str, height: int = 31, width: int = 37, **more: Any) -> ImageInfo:
    return ImageInfo(key, 1, 1, height, width, 1, "uint8", **more)


def plan_of(count: int, height: int, width: int) -> Plan:
    return make_plan([info(f"{i:03d}.png", height, width) for i in range(count)])


def numbered(unit: Unit) -> NDArray[np.uint32]:
    """Masks of which every pixel has a number of its own in the unit."""
    return np.arange(1, 1 + np.prod(unit.shape), dtype=np.uint32).reshape(unit.shape)


def tables(store: Path, *rows: tuple[Any, ...]) -> None:
    """A table of images with columns image, status, mask, index, t and z."""
    RunLayout(store).images_csv.write_text(csv_text([("image", "status", "mask", "index", "t", "z"), *rows]))


@pytest.mark.parametrize(
    ("kinds", "group", "axes", "shape"),
    [
        ([{}, {}], "31x37", "iyx", (2, 31, 37)),
        ([{"t": (0, 3, 1)}], "3t-31x37", "tiyx", (3, 1, 31, 37)),
        ([{"z": (1, 9, 4)}, {"z": (1, 9, 4)}], "2z-31x37", "izyx", (2, 2, 31, 37)),
        ([{"t": (0, 3, 1), "z": (0, 2, 1)}] * 2, "3t2z-31x37", "tizyx", (3, 2, 2, 31, 37)),
        ([{"group": "p.zarr/A/1/0", "t": (0, 3, 1), "z": (0, 2, 1)}], "p.zarr/A/1/0", "tzyx", (3, 2, 31, 37)),
        ([{"group": "p.zarr/A/1/0"}], "p.zarr/A/1/0", "yx", (31, 37)),
    ],
)
def test_label_groups_of_all_axes_are_valid_ome_zarr(
    tmp_path: Path, kinds: list[dict[str, Any]], group: str, axes: str, shape: tuple[int, ...]
) -> None:
    """By the reference models, which other tools are built on; what is written is read back."""
    plan = make_plan(info(f"{i}.tif", **kind) for i, kind in enumerate(kinds))
    create_store(tmp_path / "out.zarr", plan)
    label = tmp_path / "out.zarr" / group / "labels" / "nuclei"
    model = open_ome_zarr(label, version="0.5")
    assert isinstance(model, ImageLabel)
    assert "".join(axis.name for axis in model.attributes.ome.multiscales[0].axes) == axes
    assert isinstance(open_ome_zarr(label.parent, version="0.5"), Labels)
    (unit,) = plan.units()
    written = MaskWriter(tmp_path / "out.zarr").write(unit, numbered(unit))
    array = zarr.open_array(label / "0", mode="r")
    assert array.dtype == np.uint32
    assert array.shape == shape
    np.testing.assert_array_equal(array[:], numbered(unit))
    (file,) = [path for path in (label / "0" / "c").rglob("*") if path.is_file()]
    assert file.stat().st_size == written.bytes == shard_bytes(tmp_path / "out.zarr", unit)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == written.sha256
    assert shards_written(tmp_path / "out.zarr", unit) == written
    assert file.stat().st_mtime_ns == masks_changed_ns(tmp_path / "out.zarr", unit)


def test_an_image_without_axes_but_y_and_x_at_the_root_of_a_store(tmp_path: Path) -> None:
    """A store that is one image gives a store that is one image."""
    plan = make_plan([info("img.zarr", group="")])
    create_store(tmp_path / "out.zarr", plan)
    assert isinstance(open_ome_zarr(tmp_path / "out.zarr", version="0.5"), Image)
    assert is_ours(tmp_path / "out.zarr")
    (unit,) = plan.units()
    MaskWriter(tmp_path / "out.zarr").write(unit, numbered(unit))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out.zarr/labels/nuclei/0", mode="r")[:], numbered(unit))


@pytest.mark.parametrize(("group", "length"), [(None, 2), ("A/1/0", 1)])
def test_regions_of_a_large_plane_are_files_of_their_own(tmp_path: Path, group: str | None, length: int) -> None:
    """They are written one by one and none touches another; the last ones are cut by the image's edge."""
    keys = ["a.tif", "b.tif"][:length]
    plan = make_plan([info(key, 167, 211, group=group) for key in keys], region=64)
    store = tmp_path / "out.zarr"
    create_store(store, plan)
    writer = MaskWriter(store)
    units = list(plan.units())
    assert len(units) == 3 * 4 * length
    stack = plan.label_arrays[0]
    whole = np.arange(1, 1 + np.prod(stack.shape), dtype=np.uint32).reshape(stack.shape)
    sizes = [writer.write(unit, whole[unit.bounds]).bytes for unit in units]
    array = store / (group or "167x211") / "labels" / "nuclei" / "0"
    files = [path for path in (array / "c").rglob("*") if path.is_file()]
    assert len(files) == len(units)
    assert sorted(sizes) == sorted(path.stat().st_size for path in files)
    np.testing.assert_array_equal(zarr.open_array(array, mode="r")[:], whole)
    before = {path: path.read_bytes() for path in files}
    writer.write(units[-1], np.full(units[-1].shape, 7, np.uint32))
    assert sum(path.read_bytes() != content for path, content in before.items()) == 1


def test_planes_over_time_fill_shards_without_mixing_units(tmp_path: Path) -> None:
    """Axis z is filled first, then i, then t, so a unit may hold some depths of one image."""
    images = [info(f"{i}.tif", 1031, 1033, z=(0, 37, 1)) for i in range(2)]
    plan = make_plan(images)
    units = list(plan.units())
    assert len(units) > 2
    create_store(tmp_path / "out.zarr", plan)
    writer = MaskWriter(tmp_path / "out.zarr")
    masks = np.zeros(units[1].shape, np.uint32)
    masks[0, :, 5, 7] = np.arange(1, 1 + masks.shape[1])
    writer.write(units[1], masks)
    array = zarr.open_array(tmp_path / "out.zarr/37z-1031x1033/labels/nuclei/0", mode="r")
    np.testing.assert_array_equal(array[units[1].bounds], masks)
    assert not np.asarray(array[:, :, 5, 7])[1].any()


def test_a_unit_is_one_file_whatever_its_number_of_images(tmp_path: Path) -> None:
    """File counts are what shared file systems die of: 47 images of this size make 2 files, not 47."""
    plan = plan_of(47, 701, 709)
    create_store(tmp_path / "out.zarr", plan)
    writer = MaskWriter(tmp_path / "out.zarr")
    for unit in plan.units():
        writer.write(unit, np.full(unit.shape, unit.number + 1, np.uint32))
    array = tmp_path / "out.zarr" / "701x709" / "labels" / "nuclei" / "0"
    assert len([p for p in (array / "c").rglob("*") if p.is_file()]) == 2 == len(list(plan.units()))
    stored = zarr.open_array(array, mode="r")
    assert [int(stored[i, 5, 7]) for i in (0, 32, 33, 46)] == [1, 1, 2, 2]


def test_what_a_killed_run_left_of_a_shard_is_neither_read_nor_kept(tmp_path: Path) -> None:
    """A cut file at the edge of an array would be read first, and stop every try to write it again."""
    store = tmp_path / "out.zarr"
    plan = make_plan([info("a.tif", 167, 211)], region=64)
    create_store(store, plan)
    writer, unit = MaskWriter(store), list(plan.units())[-1]
    writer.write(unit, numbered(unit))
    (file,) = [path for path in store.rglob("c/0/2/*") if path.is_file()]
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    stray = file.with_name(f".{file.name}.node-17-3.partial")
    stray.write_bytes(b"half")
    neighbour = file.with_name(".0.node-17-4.partial")
    neighbour.write_bytes(b"of another unit")
    remove_leftovers_of(store, unit)
    assert writer.write(unit, numbered(unit)).bytes == len(whole)
    assert file.read_bytes() == whole
    assert not stray.exists()
    assert neighbour.exists()


def test_masks_without_a_nucleus_need_no_file(tmp_path: Path) -> None:
    """And an earlier one goes."""
    plan = plan_of(3, 13, 17)
    create_store(tmp_path / "out.zarr", plan)
    (unit,) = plan.units()
    writer = MaskWriter(tmp_path / "out.zarr")
    assert writer.write(unit, numbered(unit)).bytes > 0
    assert writer.write(unit, np.zeros(unit.shape, np.uint32)).bytes == 0
    assert masks_changed_ns(tmp_path / "out.zarr", unit) == 0


def test_a_store_that_was_half_made_is_completed(tmp_path: Path) -> None:
    """A run can be killed while it makes its groups: the second try gives the same files, and keeps the shards."""
    images = [info(f"{well}/0", group=f"{well}/0", t=(0, 2, 1)) for well in ("A/1", "B/2")]
    plan = make_plan([*images, info("b.tif", 41, 43)])
    create_store(tmp_path / "whole.zarr", plan, mirror=plate("A/1", "B/2"))
    create_store(tmp_path / "out.zarr", plan, mirror=plate("A/1", "B/2"))
    unit = next(plan.units())
    MaskWriter(tmp_path / "out.zarr").write(unit, numbered(unit))
    written = {path: path.read_bytes() for path in (tmp_path / "out.zarr").rglob("c/**/*") if path.is_file()}
    shutil.rmtree(tmp_path / "out.zarr" / "A" / "1" / "0" / "labels")
    (tmp_path / "out.zarr" / "B" / "2" / "zarr.json").unlink()
    (tmp_path / "out.zarr" / "zarr.json").write_bytes(b"")
    create_store(tmp_path / "out.zarr", plan, mirror=plate("A/1", "B/2"))
    for path in (tmp_path / "whole.zarr").rglob("*"):
        if path.is_file():
            assert (tmp_path / "out.zarr" / path.relative_to(tmp_path / "whole.zarr")).read_bytes() == path.read_bytes()
    assert all(path.read_bytes() == content for path, content in written.items() if path.exists())


def plate(*wells: str) -> dict[str, dict[str, Any]]:
    rows, columns = sorted({well[0] for well in wells}), sorted({well[2:] for well in wells})
    listed = [{"path": well, "rowIndex": rows.index(well[0]), "columnIndex": columns.index(well[2:])} for well in wells]
    names = {"rows": [{"name": row} for row in rows], "columns": [{"name": column} for column in columns]}
    found: dict[str, dict[str, Any]] = {"": {"plate": {**names, "wells": listed, "version": "0.4"}}}
    for well in wells:
        found[well] = {"well": {"images": [{"path": "0"}], "version": "0.4"}}
    return found


def test_a_plate_of_many_wells_is_made_group_by_group(tmp_path: Path) -> None:
    """So that 10 000 images are no trouble: each image has four small files, and no file is written twice."""
    wells = [f"{row}/{column}" for row, column in itertools.product("ABCDEFGH", range(1, 13))]
    plan = make_plan([info(f"{well}/0", group=f"{well}/0") for well in wells])
    create_store(tmp_path / "out.zarr", plan, mirror=plate(*wells))
    files = [path for path in (tmp_path / "out.zarr").rglob("*") if path.is_file()]
    assert len(files) == 1 + 8 + 96 * 5
    model = open_ome_zarr(tmp_path / "out.zarr", version="0.5")
    assert isinstance(model, HCS)
    assert model.n_wells == 96


def test_masks_are_found_by_image_name(tmp_path: Path) -> None:
    """Users know file names, not stacks and indices; failed images have no mask."""
    store = tmp_path / "out.zarr"
    plan = plan_of(3, 13, 17)
    create_store(store, plan)
    (unit,) = plan.units()
    MaskWriter(store).write(unit, numbered(unit))
    tables(
        store,
        ("000.png", "ok", "13x17/labels/nuclei", 0, None, None),
        ("001.png", "failed", None, None, None, None),
        ("002.png", "ok", "13x17/labels/nuclei", 2, None, None),
    )
    found = open_masks(store)
    assert list(found) == ["000.png", "002.png"]
    np.testing.assert_array_equal(found["002.png"], numbered(unit)[2])
    with pytest.raises(KeyError):
        found["001.png"]


def test_masks_of_time_points_and_depths_are_one_array(tmp_path: Path) -> None:
    """With the axes that the image has, whether it is a file in a stack or in a store; a failed plane is empty."""
    store = tmp_path / "out.zarr"
    stacked = [info(f"{i}.tif", t=(0, 3, 1), z=(2, 4, 1)) for i in range(2)]
    plan = make_plan([*stacked, info("A/1/0", group="A/1/0", t=(0, 3, 1))])
    create_store(store, plan)
    units = {unit.label_array.name: unit for unit in plan.units()}
    for unit in units.values():
        MaskWriter(store).write(unit, numbered(unit))
    label = "3t2z-31x37/labels/nuclei"
    planes = itertools.product(range(2), range(3), range(2, 4))
    tables(
        store,
        *[(f"{i}.tif", "ok", label, i, t, z) for i, t, z in planes],
        ("A/1/0", "failed", None, None, 0, None),
        ("A/1/0", "ok", "A/1/0/labels/nuclei", None, 1, None),
        ("A/1/0", "ok", "A/1/0/labels/nuclei", None, 2, None),
    )
    found = open_masks(store)
    assert list(found) == ["0.tif", "1.tif", "A/1/0"]
    np.testing.assert_array_equal(found["1.tif"], numbered(units["3t2z-31x37"])[:, 1])
    np.testing.assert_array_equal(found["A/1/0"], numbered(units["A/1/0"]))
    array, place = found.array("1.tif")
    assert array.shape == (3, 2, 2, 31, 37)
    window = array[(*place, slice(3, 5), slice(7, 11))]
    np.testing.assert_array_equal(window, numbered(units["3t2z-31x37"])[:, 1, :, 3:5, 7:11])


def test_groups_of_any_name_are_found_again(tmp_path: Path) -> None:
    """Names of files are bytes; in tables some of them are written as %XX."""
    store = tmp_path / "out.zarr"
    groups = ["50%41.zarr/A/1/0", os.fsdecode(b"caf\xe9 #1.zarr"), "=1+1.zarr"]
    plan = make_plan(info(group, group=group) for group in groups)
    mirror = {group: {"multiscales": [{"axes": [], "datasets": []}]} for group in groups}
    create_store(store, plan, mirror=mirror)
    writer, rows = MaskWriter(store), []
    for number, unit in enumerate(plan.units(), start=1):
        writer.write(unit, np.full(unit.shape, number, np.uint32))
        assert (writer.read(unit) == number).all()
        assert isinstance(open_ome_zarr(store / unit.label_array.name, version="0.5"), Image)
        rows.append((unit.label_array.images[0].key, "ok", f"{unit.label_array.name}/labels/nuclei", None, None, None))
    tables(store, *rows)
    found = open_masks(store)
    assert sorted(found) == sorted(groups)
    assert sorted(int(found[group].max()) for group in groups) == [1, 2, 3]


def test_places_are_told_in_micrometres_where_all_images_of_a_stack_agree(tmp_path: Path) -> None:
    """One array has one scale."""
    images = [
        info("a.tif", pixel_size=0.65),
        info("b.tif", pixel_size=0.65),
        info("c.tif", 41, 43, pixel_size=0.65),
        info("d.tif", 41, 43),
        info("e.tif", pixel_size=0.65, z=(4, 10, 2), z_step=1.5),
        info("f.tif", pixel_size=0.65, z=(4, 12, 2), z_step=1.5),
        info("g.tif", pixel_size=0.65, z=(4, 12, 2), z_step=2.5),
    ]
    create_store(tmp_path / "out.zarr", make_plan(images))

    def said(group: str) -> tuple[list[float], list[str | None]]:
        model = open_ome_zarr(tmp_path / "out.zarr" / group / "labels" / "nuclei", version="0.5")
        assert isinstance(model, ImageLabel)
        multiscale = model.attributes.ome.multiscales[0]
        scale = multiscale.datasets[0].coordinateTransformations[0].scale  # type: ignore[union-attr]
        return scale, [axis.unit for axis in multiscale.axes]  # type: ignore[misc]

    assert said("31x37") == ([1.0, 0.65, 0.65], [None, "micrometer", "micrometer"])
    assert said("41x43") == ([1.0, 1.0, 1.0], [None, None, None])
    assert said("3z-31x37") == ([1.0, 3.0, 0.65, 0.65], [None, "micrometer", "micrometer", "micrometer"])
    assert said("4z-31x37") == ([1.0, 1.0, 0.65, 0.65], [None, None, "micrometer", "micrometer"])


def test_two_images_never_share_a_place(tmp_path: Path) -> None:
    """A zarr group may be called as a stack of files is."""
    plan = make_plan([info("a.png"), info("31x37", group="31x37")])
    with pytest.raises(OutputError, match=r"a\.png.*31x37|31x37.*a\.png"):
        create_store(tmp_path / "out.zarr", plan)
    assert not (tmp_path / "out.zarr").exists()


def test_only_our_own_stores_are_recognised(tmp_path: Path) -> None:
    """--overwrite deletes; it must never delete somebody's images, nor take a part of a store for the whole."""
    create_store(tmp_path / "ours.zarr", make_plan([info("A/1/0", group="A/1/0")]))
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    (tmp_path / "plain").mkdir()
    assert is_ours(tmp_path / "ours.zarr")
    for other in ("ours.zarr/A/1/0", "ours.zarr/A/1/0/labels/nuclei", "foreign.zarr", "plain", "none"):
        assert not is_ours(tmp_path / other)


def test_opening_masks_that_are_not_there_says_what_is_missing(tmp_path: Path) -> None:
    """The table beside the store is part of the output."""
    with pytest.raises(InputMissingError, match=r"out\.images\.csv"):
        open_masks(tmp_path / "out.zarr")


def test_planes_without_nuclei_are_read_also_where_zarr_is_told_that_no_chunk_may_be_missing(tmp_path: Path) -> None:
    """`array.read_missing_chunks` (zarr 3.2) is for inputs; masks of a plane without nuclei have no chunk."""
    plan = make_plan([info("a.tif")])
    (unit,) = plan.units()
    create_store(tmp_path / "out.zarr", plan)
    writer = MaskWriter(tmp_path / "out.zarr")
    with zarr.config.set({"array.read_missing_chunks": False}):
        assert writer.write(unit, np.zeros(unit.shape, np.uint32)).bytes == 0
        assert not writer.read(unit).any()
