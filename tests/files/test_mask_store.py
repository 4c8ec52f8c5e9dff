from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.mask_store import MaskWriter, create_store, images_csv, is_ours, open_masks
from nucseg_batch.files.tables import IMAGES_COLUMNS, csv_text
from nucseg_batch.plan import ImageInfo, Plan, make_plan


def plan_of(count: int, height: int, width: int) -> Plan:
    return make_plan([ImageInfo(f"{i:03d}.png", 1, 1, height, width, 1, "uint8") for i in range(count)])


def test_every_label_group_is_valid_ome_zarr(tmp_path: Path) -> None:
    """By the reference models, which other tools are built on."""
    images = [
        ImageInfo("a.png", 1, 1, 31, 37, 1, "uint8"),
        ImageInfo("b.png", 1, 1, 31, 37, 1, "uint8"),
        ImageInfo("c.png", 1, 1, 41, 43, 1, "uint8"),
    ]
    create_store(tmp_path / "out.zarr", make_plan(images))
    for shape, count in (("31x37", 2), ("41x43", 1)):
        group = open_ome_zarr(tmp_path / "out.zarr" / shape / "labels" / "nuclei", version="0.5")
        assert isinstance(group, ImageLabel)
        assert [axis.name for axis in group.attributes.ome.multiscales[0].axes] == ["i", "y", "x"]
        assert isinstance(open_ome_zarr(tmp_path / "out.zarr" / shape / "labels", version="0.5"), Labels)
        array = zarr.open_array(tmp_path / "out.zarr" / shape / "labels" / "nuclei" / "0", mode="r")
        assert array.shape[0] == count
        assert array.dtype == np.uint32


def test_a_unit_is_one_file_whatever_its_number_of_images(tmp_path: Path) -> None:
    """File counts are what shared file systems die of: 47 images of this size make 2 files, not 47."""
    plan = plan_of(47, 701, 709)
    create_store(tmp_path / "out.zarr", plan)
    writer = MaskWriter(tmp_path / "out.zarr")
    for unit in plan.units():
        masks = np.full((len(unit.images), 701, 709), unit.number + 1, np.uint32)
        writer.write(unit, masks)
    array = tmp_path / "out.zarr" / "701x709" / "labels" / "nuclei" / "0"
    assert len([p for p in (array / "c").rglob("*") if p.is_file()]) == 2 == len(list(plan.units()))
    stored = zarr.open_array(array, mode="r")
    assert [int(stored[i, 5, 7]) for i in (0, 32, 33, 46)] == [1, 1, 2, 2]


def test_masks_are_found_by_image_name(tmp_path: Path) -> None:
    """Users know file names, not stacks and indices; failed images have no mask."""
    store = tmp_path / "out.zarr"
    plan = plan_of(3, 13, 17)
    create_store(store, plan)
    masks = np.arange(3 * 13 * 17, dtype=np.uint32).reshape(3, 13, 17)
    MaskWriter(store).write(next(plan.units()), masks)
    rest = [None] * (len(IMAGES_COLUMNS) - 4)
    rows = [
        ("000.png", "ok", "13x17/labels/nuclei", 0, *rest),
        ("001.png", "failed", None, None, *rest),
        ("002.png", "ok", "13x17/labels/nuclei", 2, *rest),
    ]
    images_csv(store).write_text(csv_text([IMAGES_COLUMNS, *rows]))
    found = open_masks(store)
    assert list(found) == ["000.png", "002.png"]
    np.testing.assert_array_equal(found["002.png"], masks[2])
    with pytest.raises(KeyError):
        found["001.png"]


def test_only_our_own_stores_are_recognised(tmp_path: Path) -> None:
    """--overwrite deletes; it must never delete somebody's images."""
    create_store(tmp_path / "ours.zarr", plan_of(1, 5, 7))
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    (tmp_path / "plain").mkdir()
    assert is_ours(tmp_path / "ours.zarr")
    assert not is_ours(tmp_path / "foreign.zarr")
    assert not is_ours(tmp_path / "plain")


def test_opening_masks_that_are_not_there_says_what_is_missing(tmp_path: Path) -> None:
    """The table beside the store is part of the output."""
    with pytest.raises(InputMissingError, match=r"out\.images\.csv"):
        open_masks(tmp_path / "out.zarr")
