from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.files.inputs import discover, load, open_image, read_headers
from nucseg_batch.plan import ImageInfo


def test_images_are_found_at_any_depth_and_named_by_their_path_with_suffix(image_folder: Path) -> None:
    """a.png and a.tif are two images; names must tell."""
    (image_folder / "small8.tif").write_bytes(b"x")
    (image_folder / "notes.txt").write_text("x")
    (image_folder / ".hidden.png").write_text("x")
    found = discover(image_folder)
    assert [entry.key for entry in found.entries] == [
        "plate/colour.jpg",
        "plate/small16.png",
        "plate/well/wide.tif",
        "small8.png",
        "small8.tif",
        "tall.tiff",
    ]
    assert found.skipped == {"file that is not PNG, JPEG or TIFF": 1, "hidden file": 1}


def test_links_pipes_and_stores_are_passed_over_and_told(image_folder: Path) -> None:
    """A link loop would never end, a pipe would never answer, a link outward would read what was not given."""
    os.symlink(image_folder, image_folder / "loop")
    os.symlink("/etc/hostname", image_folder / "out.png")
    os.symlink("nowhere.png", image_folder / "dangling.png")
    os.symlink(image_folder / "small8.png", image_folder / "inside.png")
    os.mkfifo(image_folder / "pipe.tif")
    (image_folder / "old.zarr").mkdir()
    found = discover(image_folder)
    assert "inside.png" in {entry.key for entry in found.entries}
    assert len(found.entries) == 6
    assert found.skipped == {
        "link to a folder": 1,
        "link out of the folder": 1,
        "link that leads nowhere": 1,
        "device, pipe or socket": 1,
        "zarr store": 1,
    }


def test_a_missing_and_an_empty_folder_are_different_errors(tmp_path: Path) -> None:
    """66 and 65: a typing error, and nothing to do."""
    with pytest.raises(InputMissingError) as missing:
        discover(tmp_path / "nowhere")
    assert missing.value.exit_code == 66
    with pytest.raises(NothingToDoError) as empty:
        discover(tmp_path)
    assert empty.value.exit_code == 65


def test_headers_give_shapes_and_bad_files_become_failures(image_folder: Path) -> None:
    """One bad file never stops the plan."""
    (image_folder / "bad.png").write_bytes(b"")
    counted: list[int] = []
    images, failures = read_headers(
        image_folder, discover(image_folder).entries, max_pixels=10**6, progress=counted.append
    )
    assert {image.key: (image.height, image.width) for image in images}["tall.tiff"] == (101, 61)
    assert [(f.image, f.stage, f.error) for f in failures] == [("bad.png", "plan", "ImageError")]
    assert counted == [1, 2, 3, 4, 5, 6]


def planned(folder: Path, key: str) -> ImageInfo:
    images, _ = read_headers(folder, discover(folder).entries, max_pixels=10**6, progress=lambda _: None)
    return next(image for image in images if image.key == key)


def test_opening_is_lazy_and_computing_reads_the_pixels(image_folder: Path) -> None:
    """A plan of a million images opens none of them."""
    info = planned(image_folder, "plate/small16.png")
    array = open_image(image_folder, info, max_pixels=10**6)
    assert array.shape == (67, 83)
    pixels = load(array)
    np.testing.assert_array_equal(pixels, array.compute())
    assert pixels.dtype == np.uint16
    assert pixels.max() > 30_000


def test_a_file_changed_after_planning_fails(image_folder: Path) -> None:
    """Its mask would belong to pixels that nobody planned for."""
    info = planned(image_folder, "small8.png")
    os.utime(image_folder / "small8.png", ns=(1, 1))
    with pytest.raises(ImageError, match="changed"):
        load(open_image(image_folder, info, max_pixels=10**6))
