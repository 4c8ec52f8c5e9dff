from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr_examples import Version, multiscales, numbers, write_array, write_group, write_image, write_plate

from nucseg_batch.errors import ImageError, InputMissingError
from nucseg_batch.files.zarr.find import ZarrContent, find_images
from nucseg_batch.files.zarr.source import open_zarr

VERSIONS: tuple[Version, ...] = ("0.4", "0.5")
WELLS = ("A/1", "A/3", "C/1")


def paths(content: ZarrContent) -> list[str]:
    return [image.path for image in content.images]


def only_trouble(content: ZarrContent) -> str:
    assert not content.images
    (trouble,) = content.troubles
    assert "\n" not in trouble.message
    return trouble.message


@pytest.mark.parametrize("version", VERSIONS)
def test_an_image_says_its_axes_channels_size_and_levels(tmp_path: Path, version: Version) -> None:
    pixels = numbers(2, 3, 31, 37)
    root = write_image(
        tmp_path / "a.zarr", pixels, "zcyx", version=version, channels=("DAPI", "", "7"), size=0.325, levels=3
    )
    content = find_images(root)
    (image,) = content.images
    header = image.header
    assert (image.path, image.array, image.ome, image.blank) == ("", "0", True, False)
    assert (header.axes, header.shape, header.dtype) == ("CZYX", (3, 2, 31, 37), "uint16")
    assert [channel.name for channel in header.channels] == ["DAPI", "1", "7"]
    assert header.pixel_size == pytest.approx(0.325)
    assert (header.levels, header.chunk) == (3, (13, 13))
    assert header.size > 0
    assert header.mtime_ns > 0
    assert content.zarr_format == (2 if version == "0.4" else 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plate_gives_its_fields_and_tells_wells_that_are_not_there(tmp_path: Path, version: Version) -> None:
    """Plates are copied in part and acquisitions stop early; neither is a reason to do nothing."""
    root = write_plate(tmp_path / "p.zarr", WELLS, 2, numbers(23, 29), "yx", version=version)
    for path in sorted((root / "A" / "3").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    for path in sorted((root / "C" / "1" / "1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    content = find_images(root)
    assert paths(content) == ["A/1/0", "A/1/1", "C/1/0"]
    assert content.missing == ("A/3", "C/1/1")
    assert not content.troubles


@pytest.mark.parametrize("version", VERSIONS)
def test_metadata_come_as_written_for_every_group(tmp_path: Path, version: Version) -> None:
    """The masks of a plate are written as a plate, with what its groups say."""
    root = write_plate(tmp_path / "p.zarr", WELLS, 1, numbers(23, 29), "yx", version=version)
    metadata = find_images(root).metadata
    assert set(metadata) == {"", *WELLS, *(f"{well}/0" for well in WELLS)}
    assert [well["path"] for well in metadata[""]["plate"]["wells"]] == list(WELLS)
    assert metadata["A/3"]["well"]["images"] == [{"path": "0"}]
    assert metadata["C/1/0"]["multiscales"] == multiscales("yx")["multiscales"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("listed", [True, False], ids=["series are listed", "series are numbered"])
def test_a_collection_of_bioformats2raw_gives_its_series(tmp_path: Path, version: Version, listed: bool) -> None:
    root = write_group(tmp_path / "c.zarr", {"bioformats2raw.layout": 3}, version=version)
    for name in ("0", "1", "10"):
        write_image(root / name, numbers(17, 19), "yx", version=version)
    write_group(root / "OME", {"series": ["0", "10"]} if listed else None, version=version)
    assert paths(find_images(root)) == (["0", "10"] if listed else ["0", "1", "10"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hierarchy_is_searched_but_labels_and_tables_are_no_images(tmp_path: Path, version: Version) -> None:
    root = write_group(tmp_path / "h.zarr", version=version)
    write_group(root / "day1", version=version)
    image = write_image(root / "day1" / "dish", numbers(17, 19), "yx", version=version)
    write_image(image / "labels" / "nuclei", numbers(17, 19), "yx", version=version)
    write_group(root / "labels", {"labels": ["cells"]}, version=version)
    write_image(root / "labels" / "cells", numbers(17, 19), "yx", version=version)
    write_group(root / "annotated", {**multiscales("yx"), "image-label": {}}, version=version)
    write_array(root / "plain", numbers(11, 7), version=version)
    write_array(root / "day1" / "time", numbers(11), version=version)
    content = find_images(root)
    assert [(image.path, image.ome) for image in content.images] == [("day1/dish", True), ("plain", False)]
    assert content.passed_over == {"group labels": 1, "label image": 1, "array of fewer than two axes": 1}
    assert not content.troubles


def test_a_label_image_that_is_given_itself_is_refused(tmp_path: Path) -> None:
    write_group(tmp_path / "n", {**multiscales("yx"), "image-label": {}})
    assert "label image" in only_trouble(find_images(tmp_path / "n"))


def test_a_folder_of_stores_is_searched_without_taking_chunks_for_groups(tmp_path: Path) -> None:
    write_image(tmp_path / "x" / "a.zarr", numbers(17, 19), "yx")
    write_image(tmp_path / "x" / "b.zarr", numbers(17, 19), "yx", version="0.4")
    (tmp_path / "x" / "0" / "1").mkdir(parents=True)
    write_image(tmp_path / "x" / "0" / "1" / "deep", numbers(17, 19), "yx")
    content = find_images(tmp_path)
    assert paths(content) == ["x/a.zarr", "x/b.zarr"]
    assert content.zarr_format is None


@pytest.mark.parametrize(
    ("shape", "options", "axes", "expected"),
    [
        ((31, 37), {}, None, "YX"),
        ((31, 37), {}, "tczyx", "YX"),
        ((2, 3, 31, 37), {}, "tcyx", "TCYX"),
        ((3, 31, 37), {"dimension_names": ["channel", "y", "x"]}, None, "CYX"),
        ((31, 37, 2), {"dimension_names": ["y", "x", "z"]}, None, "ZYX"),
        ((2, 31, 37), {"dimension_names": ["dim_0", "dim_1", "dim_2"]}, "zyx", "ZYX"),
        ((2, 31, 37), {"attributes": {"_ARRAY_DIMENSIONS": ["time", "Y", "X"]}}, None, "TYX"),
        ((31, 37, 3), {"dimension_names": ["y", "x", "s"]}, None, "YXS"),
        ((31, 37, 4), {"dimension_names": ["y", "x", "rgba"]}, None, "YXS"),
    ],
)
def test_axes_of_a_plain_array_are_its_own_or_given(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, Any], axes: str | None, expected: str
) -> None:
    write_array(tmp_path / "a.zarr", numbers(*shape), **options)
    (image,) = find_images(tmp_path / "a.zarr", axes=axes).images
    assert image.header.axes == expected


@pytest.mark.parametrize(
    ("shape", "names", "axes", "words"),
    [
        ((2, 31, 37), None, None, "--axes"),
        ((2, 31, 37), None, "tczyx", "--axes tczyx names 5"),
        ((31,), None, None, "1 axes"),
        ((2, 31, 37), ["t", "time", "x"], None, "mean t"),
        ((2, 31, 37), ["t", "c", "x"], None, "y or x is missing"),
        ((31, 37, 2), ["y", "x", "rgb"], None, "2 samples"),
        ((2, 31, 37, 3), ["c", "y", "x", "s"], None, "both channels and colours"),
        ((2000, 3, 5), ["c", "y", "x"], None, "2000 channels"),
    ],
)
def test_axes_are_never_guessed(
    tmp_path: Path, shape: tuple[int, ...], names: list[str] | None, axes: str | None, words: str
) -> None:
    write_array(tmp_path / "a.zarr", numbers(*shape), dimension_names=names)
    assert words in only_trouble(find_images(tmp_path / "a.zarr", axes=axes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ome: ome.update(multiscales=[]), "no multiscales"),
        (lambda ome: ome.update(multiscales=[{"datasets": []}]), "no multiscales"),
        (lambda ome: ome.update(multiscales="none"), "no multiscales"),
        (lambda ome: ome["multiscales"][0]["datasets"].reverse(), "not ordered"),
        (lambda ome: ome["multiscales"][0]["axes"].pop(), "name 1 axes"),
        (lambda ome: ome["multiscales"][0].update(axes=[{"name": "angle"}, *"yx"]), "damaged"),
        (lambda ome: ome["multiscales"][0]["axes"][0].update(name="q", type=None), "'q' of 31 places"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="7"), "not there"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="../../b"), "leads out of the store"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path="/etc"), "leads out of the store"),
        (lambda ome: ome["multiscales"][0]["datasets"][0].update(path=7), "which is none"),
    ],
)
def test_an_image_with_wrong_metadata_is_refused_in_a_line(tmp_path: Path, change: Any, words: str) -> None:
    root = write_image(tmp_path / "a.zarr", numbers(31, 37), "yx", size=0.3, levels=2)
    content = json.loads((root / "zarr.json").read_text())
    change(content["attributes"]["ome"])
    (root / "zarr.json").write_text(json.dumps(content))
    assert words in only_trouble(find_images(root))


@pytest.mark.parametrize(
    ("version", "axes", "expected"),
    [("0.1", None, "TCZYX"), ("0.2", None, "TCZYX"), ("0.3", list("tczyx"), "TCZYX"), ("0.3", list("ctzyx"), "TCZYX")],
)
def test_older_versions_are_read(tmp_path: Path, version: str, axes: list[str] | None, expected: str) -> None:
    multiscale: dict[str, Any] = {"version": version, "datasets": [{"path": "0"}]}
    if axes is not None:
        multiscale["axes"] = axes
    root = write_group(tmp_path / "a.zarr", {"multiscales": [multiscale]}, version="0.4")
    write_array(root / "0", numbers(2, 3, 5, 7, 11), version="0.4")
    (image,) = find_images(root).images
    assert image.header.axes == expected
    assert image.header.length("T") == (3 if axes == list("ctzyx") else 2)


@pytest.mark.parametrize(
    ("scale", "unit", "whole", "expected"),
    [
        ([0.5, 0.5], "micrometer", None, 0.5),
        ([500.0, 500.0], "nanometer", None, 0.5),
        ([5.0, 5.0], "micrometer", [0.1, 0.1], 0.5),
        ([0.5, 0.5], None, None, None),
        ([0.5, 0.5], "inch", None, None),
        ([0.5, 0.7], "micrometer", None, None),
        ([0.0, 0.0], "micrometer", None, None),
        ([352.8, 352.8], "micrometer", None, None),
    ],
)
def test_the_size_of_a_pixel_is_known_only_where_metadata_say_it(
    tmp_path: Path, scale: list[float], unit: str | None, whole: list[float] | None, expected: float | None
) -> None:
    ome = multiscales("yx")
    (multiscale,) = ome["multiscales"]
    multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = scale
    for axis in multiscale["axes"]:
        axis.update({"unit": unit} if unit else {})
    if whole:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": whole}]
    write_group(tmp_path / "a", ome)
    write_array(tmp_path / "a" / "0", numbers(31, 37))
    (image,) = find_images(tmp_path / "a").images
    assert image.header.pixel_size == (None if expected is None else pytest.approx(expected))


def test_a_wavelength_is_taken_from_what_says_so_and_never_from_a_name(tmp_path: Path) -> None:
    root = write_image(tmp_path / "a.zarr", numbers(3, 31, 37), "cyx", channels=("DAPI 405", "b", "c"))
    content = json.loads((root / "zarr.json").read_text())
    channels = content["attributes"]["ome"]["omero"]["channels"]
    channels[1]["emissionWave"] = 461
    channels[2]["emissionWave"] = None
    (root / "zarr.json").write_text(json.dumps(content))
    (image,) = find_images(root).images
    assert [channel.wavelength for channel in image.header.channels] == [None, 461.0, None]


def test_our_own_output_is_recognised_at_its_root_and_within(tmp_path: Path) -> None:
    """Masks that are segmented as if they were images cost a night."""
    root = tmp_path / "out.zarr"
    zarr.open_group(root, mode="w", zarr_format=3, attributes={"nucseg-batch": {"layout": 1}})
    write_image(root / "A", numbers(17, 19), "yx")
    for place in (root, root / "A", root / "A" / "0"):
        content = find_images(place)
        assert content.ours
        assert not content.images
    write_group(tmp_path)
    assert find_images(tmp_path).passed_over == {"output of nucseg-batch": 1}


@pytest.mark.parametrize("path", ["../x", "/etc", "A/../../x", "", ".", "A//1", "A\\..\\x", None, "A\0", 3])
def test_a_plate_cannot_name_a_path_out_of_the_store(tmp_path: Path, path: object) -> None:
    write_image(tmp_path / "x", numbers(17, 19), "yx")
    root = write_plate(tmp_path / "p.zarr", ("A/1",), 1, numbers(17, 19), "yx")
    content = json.loads((root / "zarr.json").read_text())
    content["attributes"]["ome"]["plate"]["wells"].append({"path": path})
    (root / "zarr.json").write_text(json.dumps(content))
    found = find_images(root)
    assert paths(found) == ["A/1/0"]
    (trouble,) = found.troubles
    assert "path" in trouble.message


def test_links_out_of_the_store_are_refused_and_loops_end(tmp_path: Path) -> None:
    outside = write_image(tmp_path / "outside", numbers(17, 19), "yx")
    root = write_plate(tmp_path / "p.zarr", ("A/1",), 3, numbers(17, 19), "yx")
    for number in ("1", "2"):
        (root / "A" / "1" / number).rename(tmp_path / f"moved{number}")
    (root / "A" / "1" / "1").symlink_to(outside)
    (root / "A" / "1" / "2").symlink_to("0")
    content = find_images(root)
    assert paths(content) == ["A/1/0", "A/1/2"]
    (trouble,) = content.troubles
    assert trouble.path == "A/1/1"
    assert "link" in trouble.message
    hierarchy = write_group(tmp_path / "h.zarr")
    (hierarchy / "again").symlink_to(hierarchy)
    (hierarchy / "out").symlink_to(outside)
    write_image(hierarchy / "in", numbers(17, 19), "yx")
    content = find_images(hierarchy)
    assert paths(content) == ["in"]
    assert content.passed_over == {"link to a folder": 2}


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "[]", '{"zarr_format": 7}', "\0"])
def test_damaged_metadata_are_one_trouble_and_not_the_end(tmp_path: Path, content: str) -> None:
    root = write_plate(tmp_path / "p.zarr", WELLS, 1, numbers(17, 19), "yx")
    (root / "A" / "3" / "0" / "zarr.json").write_text(content)
    (root / "C" / "1" / "0" / "0" / "zarr.json").write_text(content)
    found = find_images(root)
    assert paths(found) == ["A/1/0"]
    assert [trouble.path for trouble in found.troubles] == ["A/3/0", "C/1/0"]
    (root / "zarr.json").write_text(content)
    with pytest.raises(ImageError):
        find_images(root)


def test_metadata_in_a_pipe_do_not_hang(tmp_path: Path) -> None:
    root = write_group(tmp_path / "h.zarr")
    (root / "a").mkdir()
    os.mkfifo(root / "a" / "zarr.json")
    (trouble,) = find_images(root).troubles
    assert "regular file" in trouble.message


def test_an_array_without_any_chunk_is_found_and_marked_blank(tmp_path: Path) -> None:
    """It reads as zeros, whether the image is empty or its copy incomplete; only the user can know."""
    write_array(tmp_path / "a.zarr", np.zeros((31, 37), np.uint16))
    (image,) = find_images(tmp_path / "a.zarr").images
    assert image.blank


def test_a_store_that_is_not_there_is_an_error_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("nothing", "file"):
        with pytest.raises(InputMissingError, match=place):
            find_images(tmp_path / place)


@pytest.mark.real_data
def test_samples_of_the_standard_are_found(shared: Path) -> None:
    folder = shared / "formats" / "ome2024_ngff"
    found = {name: find_images(folder / name) for name in ("2d.zarr", "bf2raw.zarr", "hcs.zarr")}
    assert all(not content.troubles and not content.missing for content in found.values())
    assert paths(found["2d.zarr"]) == [""]
    assert paths(found["bf2raw.zarr"]) == ["0", "1"]
    assert paths(found["hcs.zarr"]) == [f"{row}/{column}/{field}" for row in "AB" for column in "12" for field in "01"]
    header = found["hcs.zarr"].images[0].header
    assert (header.axes, header.shape) == ("TCZYX", (1, 3, 1, 64, 64))
    assert [channel.name for channel in header.channels] == ["Name", "Channel 1", "Channel 2"]


@pytest.mark.real_data
def test_every_store_of_the_samples_is_read_or_refused_in_a_line(shared: Path) -> None:
    """Arrays whose axes are not named are read as z, y, x; what zarr itself reads must come out the same."""
    refused, read = {}, 0
    stores = [path for path in sorted((shared / "formats").rglob("*")) if path.is_dir() and _is_top(path)]
    assert len(stores) > 20
    for store in stores:
        content = find_images(store, axes="zyx")
        refused |= {f"{store.name}/{trouble.path}": trouble.message for trouble in content.troubles}
        for image in content.images:
            source = open_zarr(store, image.path, axes="zyx")
            height, width = image.header.length("Y"), image.header.length("X")
            plane = source.read(0, 0, slice(0, height), slice(0, width))
            version = 3 if (store / image.array / "zarr.json").exists() else 2
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of metadata that the standard will not allow one day
                expected = np.asarray(zarr.open_array(store / image.array, mode="r", zarr_format=version)[...])
            places = {"T": 0, "Z": 0}
            names = {2: "YX", 3: "CYX" if image.header.axes == "CYX" else "ZYX", 5: "TCZYX"}[expected.ndim]
            expected = expected[tuple(places.get(name, slice(None)) for name in names)]
            np.testing.assert_array_equal(plane, expected.astype(plane.dtype))
            read += 1
    assert read > 40
    words = ("no multiscales", "not there", "int64", "<U7", "|O", "transformation of type", "transposed by")
    assert all(any(word in message for word in words) for message in refused.values())


def _is_top(path: Path) -> bool:
    def node(folder: Path) -> bool:
        return any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))

    return node(path) and not any(node(parent) for parent in path.parents)
