from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from pictures import disks, fluorescence

from nucseg_batch.errors import NothingToDoError
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.training.data import fingerprint, read_all

LABELS = disks((31, 41), [(9, 11), (22, 30)], 6)


def write_image(path: Path, axes: str = "yx", names: tuple[str, ...] = ("nuclei",), version: str = "0.5") -> None:
    """An OME-Zarr image of two nuclei with label images of these names."""

    def group(place: Path, pixels: np.ndarray, axes: str, attributes: dict[str, Any]) -> None:
        pixels = pixels.reshape((1,) * (len(axes) - 2) + pixels.shape)
        multiscale = {"axes": [{"name": name} for name in axes], "datasets": [{"path": "0"}]}
        put(place, {"multiscales": [multiscale], **attributes})
        zarr.open_group(place).create_array("0", shape=pixels.shape, dtype=pixels.dtype)[:] = pixels

    def put(place: Path, attributes: dict[str, Any]) -> None:
        made = zarr.open_group(place, mode="a", zarr_format=2 if version == "0.4" else 3)
        made.update_attributes(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})

    group(path, fluorescence(LABELS), axes, {})
    put(path / "labels", {"labels": list(names)})
    for name in names:
        group(path / "labels" / name, LABELS.astype(np.uint32) * 3, "yx", {"image-label": {}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_with_a_label_image_is_a_pair(tmp_path: Path, version: str) -> None:
    """Whatever the label image is called, and wherever the stores lie."""
    write_image(tmp_path / "p" / "a.zarr", "tczyx", ("cells",), version)
    write_image(tmp_path / "b.zarr", "yx", version=version)
    found = find_pairs(tmp_path)
    assert [pair.key for pair in found.pairs] == ["b.zarr", "p/a.zarr"]
    assert found.problems == ()
    for sample in read_all(found.pairs, lambda _: None):
        np.testing.assert_array_equal(sample.labels, LABELS)
        np.testing.assert_array_equal(sample.pixels, fluorescence(LABELS))


def test_a_store_may_itself_be_the_data(tmp_path: Path) -> None:
    """Of one image, or of many, as a plate is."""
    write_image(tmp_path / "a.zarr")
    assert [pair.key for pair in find_pairs(tmp_path / "a.zarr").pairs] == ["a.zarr"]
    for well in ("A/1/0", "B/2/0"):
        write_image(tmp_path / "plate.zarr" / well)
    assert [pair.key for pair in find_pairs(tmp_path / "plate.zarr").pairs] == ["A/1/0", "B/2/0"]


def test_of_several_label_images_the_nuclei_count(tmp_path: Path) -> None:
    """Cells and nuclei lie side by side in many stores; what counted, and what cannot be told, is said."""
    write_image(tmp_path / "a.zarr", names=("cells", "nuclei"))
    write_image(tmp_path / "b.zarr", names=("cells", "dots"))
    write_image(tmp_path / "c.zarr", names=())
    found = find_pairs(tmp_path)
    assert [pair.key for pair in found.pairs] == ["a.zarr"]
    assert found.problems == (
        "a.zarr: of its label images cells, nuclei, nuclei is used",
        "b.zarr: it has label images cells, dots, but none named nuclei",
        "c.zarr: its labels group lists no label image",
    )


def test_groups_that_are_no_pair_are_told(tmp_path: Path) -> None:
    """Damaged or half-made stores lie among good ones."""
    write_image(tmp_path / "a.zarr")
    write_image(tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "b.zarr" / "labels" / "nuclei")
    zarr.open_group(tmp_path / "c.zarr", mode="w")
    found = find_pairs(tmp_path)
    assert [pair.key for pair in found.pairs] == ["a.zarr"]
    assert [problem.split(":")[0] for problem in found.problems] == ["b.zarr", "c.zarr"]


def test_an_index_names_stores_too(tmp_path: Path) -> None:
    """With their suffix or without."""
    write_image(tmp_path / "a.zarr")
    write_image(tmp_path / "b.zarr")
    (tmp_path / "index.csv").write_text("id,split\na,train\nb.zarr,val\n")
    assert [(pair.key, pair.split) for pair in find_pairs(tmp_path).pairs] == [("a.zarr", "train"), ("b.zarr", "val")]


def test_real_stores_without_label_images_are_refused_in_words(shared: Path) -> None:
    """A plate, whose labels groups are empty."""
    with pytest.raises(NothingToDoError, match=r"A/1/0: its labels group lists no label image"):
        find_pairs(shared / "formats" / "biotools_ome_zarr_examples" / "data" / "valid" / "plate-01.zarr")


def test_the_fingerprint_follows_pixels_in_stores(tmp_path: Path) -> None:
    """Of the planes themselves: chunks and compression are no change of data."""
    write_image(tmp_path / "a.zarr")
    pairs = find_pairs(tmp_path).pairs
    first = fingerprint(pairs)
    assert first == fingerprint(pairs)
    zarr.open_array(tmp_path / "a.zarr" / "labels" / "nuclei" / "0", mode="r+")[0, 0] = 9
    assert first != fingerprint(pairs)
