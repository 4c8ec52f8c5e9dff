from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from pictures import disks

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.files.annotations import LabelImage
from nucseg_batch.files.annotations import find_label_images as found_in
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.masks.store import MaskWriter, create_store
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import ImageInfo, make_plan

TRUTH = disks((61, 83), [(15, 15), (40, 30), (30, 65)], 9)


def write(path: Path, labels: np.ndarray, dtype: type = np.uint16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(labels.astype(dtype)))


def kaggle(folder: Path, *, image: str | None = "same") -> None:
    """A picture for each nucleus of TRUTH, white on black, and the image if it has a name (`same`: the folder's)."""
    for number in range(1, int(TRUTH.max()) + 1):
        write(folder / "masks" / f"nucleus{number}.png", np.equal(TRUTH, number) * 255, np.uint8)
    if image is not None:
        write(folder / "images" / f"{folder.name if image == 'same' else image}.png", TRUTH, np.uint8)


def label_group(path: Path, labels: np.ndarray, *, version: str, image_label: bool = True) -> None:
    """An OME-Zarr label group of one level, with as many leading axes as the array has."""
    axes = [{"name": name, "type": "space"} for name in "tczyx"[-labels.ndim :]]
    metadata = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]} | (
        {"image-label": {}} if image_label else {}
    )
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.update_attributes(metadata if version == "0.4" else {"ome": {"version": "0.5"} | metadata})
    group.create_array("0", data=labels)


def image_store(path: Path, names: list[str], *, version: str = "0.5") -> None:
    """An OME-Zarr image with label images of these names: the first is TRUTH, all others are empty."""
    label_group(path, TRUTH.astype(np.uint16) * 100, version=version, image_label=False)
    group = zarr.open_group(path / "labels", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.update_attributes({"labels": names} if version == "0.4" else {"ome": {"version": "0.5", "labels": names}})
    for number, name in enumerate(names):
        label_group(path / "labels" / name, TRUTH if number == 0 else TRUTH * 0, version=version)


def find_label_images(place: Path, argument: str) -> list[LabelImage]:
    return list(found_in(place, argument).images)


def names(found: list[LabelImage]) -> list[str]:
    return [image.name for image in found]


def test_label_images_are_found_at_any_depth_and_named_by_path_without_suffix(tmp_path: Path) -> None:
    """Plates have folders; hidden files such as a copying Mac leaves behind are no images."""
    for name in ("b.png", "x/y/a.png", "._b.png", ".trash/c.png"):
        write(tmp_path / name, TRUTH)
    (tmp_path / "readme.txt").write_text("not an image")
    found = find_label_images(tmp_path, "TRUTH")
    assert names(found) == ["b", "x/y/a"]
    np.testing.assert_array_equal(found[0].read().labels, TRUTH)


@pytest.mark.parametrize("folder", ["labels", "masks"])
def test_images_beside_their_labels_are_passed_over(tmp_path: Path, folder: str) -> None:
    """The data set that `train` takes can be given as it is; its pictures are no annotation."""
    for name in ("a.png", "b.png"):
        write(tmp_path / folder / name, TRUTH)
        write(tmp_path / "images" / name, TRUTH * 50, np.uint8)
    assert names(find_label_images(tmp_path, "TRUTH")) == [f"{folder}/a", f"{folder}/b"]


def test_a_data_set_of_one_image_is_not_taken_for_the_folder_of_one_kaggle_image(tmp_path: Path) -> None:
    """`masks/a.png` is named after `images/a.png`, so it is its label image and no picture of one nucleus."""
    write(tmp_path / "masks" / "a.png", TRUTH)
    write(tmp_path / "images" / "a.png", TRUTH, np.uint8)
    (found,) = find_label_images(tmp_path, "TRUTH")
    assert (found.name, found.read().labels.max()) == ("masks/a", 3)


@pytest.mark.parametrize("image", ["same", "other", None])
def test_pictures_of_single_nuclei_become_one_label_image(tmp_path: Path, image: str | None) -> None:
    """Kaggle's layout, with or without the images; what else lies there is passed over."""
    kaggle(tmp_path / "set" / "ab12", image=image)
    write(tmp_path / "overview.png", TRUTH)
    (found,) = find_label_images(tmp_path, "TRUTH")
    assert found.name == "set/ab12"
    assert "set/ab12/images/ab12" in found.aliases
    assert ("set/ab12/images/other" in found.aliases) == (image == "other")
    np.testing.assert_array_equal(found.read().labels, TRUTH)


def test_a_kaggle_image_without_masks_has_no_nuclei(tmp_path: Path) -> None:
    """An empty field is annotated, too; its shape is that of the image."""
    kaggle(tmp_path / "full")
    write(tmp_path / "empty" / "images" / "empty.png", TRUTH, np.uint8)
    (tmp_path / "empty" / "masks").mkdir()
    found = find_label_images(tmp_path, "TRUTH")
    assert names(found) == ["empty", "full"]
    np.testing.assert_array_equal(found[0].read().labels, TRUTH * 0)
    (tmp_path / "empty" / "images" / "empty.png").unlink()
    (tmp_path / "empty" / "images").rmdir()
    with pytest.raises(ImageError, match="empty"):
        find_label_images(tmp_path, "TRUTH")[0].read()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_an_ome_zarr_image_are_read_and_named_after_the_store(tmp_path: Path, version: str) -> None:
    """Given the image or the label image itself; `nuclei` where there are several."""
    image_store(tmp_path / "well.zarr", ["cells"], version=version)
    for place in (tmp_path / "well.zarr", tmp_path / "well.zarr" / "labels" / "cells"):
        (found,) = find_label_images(place, "TRUTH")
        assert (found.name, found.lone) == ("well", True)
        np.testing.assert_array_equal(found.read().labels, TRUTH)
    image_store(tmp_path / "two.zarr", ["nuclei", "cells"], version=version)
    (found,) = find_label_images(tmp_path / "two.zarr", "TRUTH")
    np.testing.assert_array_equal(found.read().labels, TRUTH)


def test_stores_in_a_folder_and_images_in_a_store_are_each_one_image(tmp_path: Path) -> None:
    """Collections of OME-Zarr images, and plates."""
    image_store(tmp_path / "set" / "a.zarr", ["nuclei"])
    image_store(tmp_path / "set" / "x" / "b.zarr", ["nuclei"])
    assert names(find_label_images(tmp_path / "set", "TRUTH")) == ["a", "x/b"]
    zarr.open_group(tmp_path / "plate.zarr", mode="w")
    for well in ("A/1/0", "B/2/0"):
        zarr.open_group(tmp_path / "plate.zarr", mode="r+").require_group(well)
        image_store(tmp_path / "plate.zarr" / well, ["nuclei"])
    assert names(find_label_images(tmp_path / "plate.zarr", "TRUTH")) == ["A/1/0", "B/2/0"]
    assert names(find_label_images(tmp_path, "TRUTH")) == ["plate/A/1/0", "plate/B/2/0", "set/a", "set/x/b"]


def test_leading_axes_of_one_place_are_dropped_and_stacks_refused(tmp_path: Path) -> None:
    """A stack has no single plane to compare; which one is meant is not guessed."""
    label_group(tmp_path / "flat.zarr", TRUTH[None, None, None], version="0.4")
    (found,) = find_label_images(tmp_path / "flat.zarr", "TRUTH")
    np.testing.assert_array_equal(found.read().labels, TRUTH)
    label_group(tmp_path / "stack.zarr", np.stack([TRUTH] * 3), version="0.4")
    (found,) = find_label_images(tmp_path / "stack.zarr", "TRUTH")
    with pytest.raises(ImageError, match=r"stack\.zarr"):
        found.read()


def test_a_store_that_does_not_tell_its_labels_is_refused(tmp_path: Path) -> None:
    """Pixels of an image are never taken for labels, nor is one of several label images chosen by chance."""
    label_group(tmp_path / "image.zarr", TRUTH, version="0.5", image_label=False)
    with pytest.raises(NothingToDoError, match=r"image\.zarr"):
        find_label_images(tmp_path / "image.zarr", "TRUTH")
    image_store(tmp_path / "two.zarr", ["left", "right"])
    with pytest.raises(ImageError, match="left, right"):
        find_label_images(tmp_path / "two.zarr", "TRUTH")


def run_store(path: Path) -> None:
    """The store and the table of a run over two images of one shape: TRUTH, and one without nuclei; a third failed."""
    images = [ImageInfo(key, 1, 1, *TRUTH.shape, 1, "uint8") for key in ("plate/a.tif", "plate/b.tif")]
    plan = make_plan(images)
    create_store(path, plan)
    MaskWriter(path).write(next(plan.units()), np.stack([TRUTH * 0, TRUTH]).astype(np.uint32))
    place = "61x83/labels/nuclei"
    rows = [("plate/b.tif", "ok", place, 1), ("plate/a.tif", "ok", place, 0), ("plate/c.tif", "failed", None, None)]
    RunLayout(path).images_csv.write_text(csv_text([("image", "status", "mask", "index"), *rows]))


def test_masks_of_a_run_are_named_as_its_images(tmp_path: Path) -> None:
    """Without suffix, as files are; in a folder a run is passed over, because its names are not paths."""
    run_store(tmp_path / "out.zarr")
    found = find_label_images(tmp_path / "out.zarr", "PRED")
    assert names(found) == ["plate/a", "plate/b"]
    np.testing.assert_array_equal(found[1].read().labels, TRUTH)
    with pytest.raises(NothingToDoError, match=r"OUT\.zarr"):
        find_label_images(tmp_path, "PRED")


def test_what_is_not_there_is_told_with_the_argument(tmp_path: Path) -> None:
    """PRED or TRUTH: both are paths."""
    write(tmp_path / "a.png", TRUTH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputMissingError, match=r"PRED .*nowhere"):
        find_label_images(tmp_path / "nowhere.zarr", "PRED")
    with pytest.raises(InputMissingError, match=r"TRUTH .*a\.png: this is a file"):
        find_label_images(tmp_path / "a.png", "TRUTH")
    with pytest.raises(NothingToDoError, match=r"TRUTH .*empty"):
        find_label_images(tmp_path / "empty", "TRUTH")


def test_a_folder_that_cannot_be_listed_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be left out in silence, which changes a score."""
    write(tmp_path / "a.png", TRUTH)
    write(tmp_path / "closed" / "b.png", TRUTH)
    listed = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputMissingError, match=r"closed: .*Permission denied"):
        find_label_images(tmp_path, "TRUTH")
