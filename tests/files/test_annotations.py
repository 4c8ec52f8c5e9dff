from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import zarr
from pictures import disks

from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations import decode, read_label_files, read_label_plane
from nucseg_batch.files.zarr.planes import ZarrPlane, image_axis_length, label_names, labelled_groups


def write_png(path: Path, pixels: np.ndarray) -> Path:
    path.write_bytes(imagecodecs.png_encode(pixels))
    return path


def write_group(path: Path, pixels: np.ndarray, axes: str, version: str = "0.5") -> Path:
    """An image or label group of one level, as version 0.4 or 0.5 has it."""
    multiscales: list[Any] = [{"axes": [{"name": name} for name in axes], "datasets": [{"path": "0"}]}]
    attributes: dict[str, Any] = {"multiscales": multiscales}
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.update_attributes(attributes if version == "0.4" else {"ome": {"version": version, **attributes}})
    group.create_array("0", shape=pixels.shape, chunks=pixels.shape, dtype=pixels.dtype)[:] = pixels
    return path


def read_labels(paths: tuple[Path, ...]) -> np.ndarray:
    return read_label_files(paths).labels


def read_label_zarr(path: Path) -> np.ndarray:
    return read_label_plane(ZarrPlane(path)).labels


def test_numbers_of_nuclei_become_dense_in_their_order(tmp_path: Path) -> None:
    """Annotation tools leave gaps; what learns from labels counts them."""
    labels = np.zeros((5, 7), np.uint16)
    labels[1, 2], labels[3, 4] = 900, 17
    found = read_labels((write_png(tmp_path / "a.png", labels),))
    assert found.dtype == np.int32
    assert (found[1, 2], found[3, 4], found.max()) == (2, 1, 2)


def test_pictures_of_single_nuclei_are_numbered_in_their_order(tmp_path: Path) -> None:
    """As Kaggle ships them, some of them in colour; of two that overlap the later one has the pixel."""
    first, second = np.zeros((5, 7), np.uint8), np.zeros((5, 7, 3), np.uint8)
    first[1, 1:4] = second[1, 3:6] = 255
    paths = (write_png(tmp_path / "1.png", first), write_png(tmp_path / "2.png", second))
    assert read_labels(paths)[1].tolist() == [0, 1, 1, 2, 2, 2, 0]
    write_png(paths[1], np.zeros((5, 8), np.uint8))
    with pytest.raises(ImageError, match=r"2\.png is \(5, 8\)"):
        read_labels(paths)


def test_a_grey_picture_saved_as_colour_is_read_and_a_coloured_one_refused(tmp_path: Path) -> None:
    """Paint programs save masks as RGB; colours themselves are no numbers."""
    grey = np.zeros((5, 7, 3), np.uint8)
    grey[2, 3] = 255
    assert read_labels((write_png(tmp_path / "a.png", grey),))[2, 3] == 1
    grey[2, 4, 0] = 255
    with pytest.raises(ImageError, match="colour"):
        read_labels((write_png(tmp_path / "a.png", grey),))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """An image may have a hundred mask files."""
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"a\.png"):
        read_labels((tmp_path / "a.png",))
    with pytest.raises(ImageError, match="no masks"):
        read_labels(())


def test_pieces_of_a_binary_mask_are_numbered_and_labels_left_alone() -> None:
    """Many tools write 0 and 255 for nuclei that do not touch."""
    labels = disks((31, 41), [(9, 11), (22, 30)], 6)
    found = decode((labels > 0) * np.uint8(255), "a.png")
    np.testing.assert_array_equal(found.labels, labels)
    assert [one.doubtful for one in found.assumptions] == [True]
    for plain in (labels, labels == 1, np.zeros((3, 5), np.int32)):  # one nucleus is one nucleus
        found = decode(plain, "a.png")
        np.testing.assert_array_equal(found.labels, plain)
        assert found.assumptions == ()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "tczyx"])
def test_a_label_plane_of_either_version_is_read(tmp_path: Path, version: str, axes: str) -> None:
    """Leading axes of one place are what many writers add."""
    labels = disks((31, 41), [(9, 11), (22, 30)], 6).astype(np.uint32) * 5
    path = write_group(tmp_path / "nuclei", labels.reshape((1,) * (len(axes) - 2) + labels.shape), axes, version)
    np.testing.assert_array_equal(read_label_zarr(path), labels // 5)


def test_a_label_group_that_is_no_plane_is_refused_in_words(tmp_path: Path) -> None:
    """Stacks, colours, fractions and foreign folders; each says what it is."""
    stack = write_group(tmp_path / "stack", np.zeros((2, 5, 7), np.uint8), "zyx")
    with pytest.raises(ImageError, match="2 places on axis z"):
        read_label_zarr(stack)
    with pytest.raises(ImageError, match="three channels"):
        read_label_zarr(write_group(tmp_path / "rgb", np.zeros((3, 5, 7), np.uint8), "cyx"))
    with pytest.raises(ImageError, match="float32"):
        read_label_zarr(write_group(tmp_path / "f", np.full((5, 7), 0.5, np.float32), "yx"))
    with pytest.raises(ImageError, match="no group or array"):
        read_label_zarr(tmp_path)


def test_a_plane_of_a_stack_is_read_with_its_colours_last(tmp_path: Path) -> None:
    """As every other reader here returns them."""
    pixels = np.arange(2 * 3 * 5 * 7, dtype=np.uint16).reshape(2, 3, 5, 7)
    group = write_group(tmp_path / "5x7", pixels, "icyx")
    assert image_axis_length(group) == 2
    found = ZarrPlane(group, 1).read(max_pixels=35)
    np.testing.assert_array_equal(found, np.moveaxis(pixels[1], 0, -1))
    with pytest.raises(ImageError, match="at most 34"):
        ZarrPlane(group, 1).read(max_pixels=34)
    with pytest.raises(ImageError, match="axis i"):
        ZarrPlane(group).read(max_pixels=35)


def test_channels_that_are_not_colours_are_refused(tmp_path: Path) -> None:
    """Which of four stains shows the nuclei is not ours to guess."""
    group = write_group(tmp_path / "a", np.zeros((4, 5, 7), np.uint8), "cyx")
    with pytest.raises(ImageError, match="4 places on axis c"):
        ZarrPlane(group).read(max_pixels=35)


def test_pixels_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """One NaN would make every weight of a network NaN."""
    pixels = np.ones((5, 7))
    assert ZarrPlane(write_group(tmp_path / "a", pixels, "yx")).read(max_pixels=35).dtype == np.float32
    pixels[2, 3] = np.nan
    with pytest.raises(ImageError, match="finite"):
        ZarrPlane(write_group(tmp_path / "a", pixels, "yx")).read(max_pixels=35)


def test_groups_with_labels_are_found_at_any_depth(shared: Path) -> None:
    """A plate holds its images three folders down; a real one, without label images."""
    plate = shared / "formats" / "biotools_ome_zarr_examples" / "data" / "valid" / "plate-01.zarr"
    assert [group.relative_to(plate).as_posix() for group in labelled_groups(plate)] == [
        "A/1/0",
        "A/2/0",
        "B/1/0",
        "B/2/0",
    ]
    assert label_names(plate / "A/1/0") == []
    assert ZarrPlane(plate / "A/1/0").read(max_pixels=10**6).shape == (1000, 1000)
