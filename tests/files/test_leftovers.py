"""What other programs leave among images is skipped, counted and named; what only looks like it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nucseg_batch.errors import NothingToDoError
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.leftovers import ALONE, BESIDE, FOLDER, ONLY, PARTLY, SYSTEM, WEAK


def found(folder: Path, *names: str, place: str = "") -> Discovery:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.zeros((17, 19), np.uint8))
    return discover(str(folder / place) if place else str(folder))


def keys(one: Discovery) -> list[str]:
    return [entry.key for entry in one.entries]


@pytest.mark.parametrize(
    "left",
    [
        "w3_cp_outlines.png",
        "w3_cp_output.png",
        "w3_flows.tif",
        "w3_dP.tif",
        "w3_cellprob.tif",
        "w3.stardist.tif",
        "w3_instanseg_prediction.tiff",
        "w3-labels.png",
        "w3-mask.tif",
        "w3 label.tif",
        "w3_Simple Segmentation.tif",
        "w3_Probabilities.tif",
        "w3_nuclei_mask.png",
        "w3_outlines_cp_masks.png",
        "w3_overlay.jpg",
        "mask_w3.png",
        "Mask of w3.tif",
        "w3_MASK.tif",
        "w3_cp_flow.png",
        "w3_cellpose.tif",
        "w3_mesmer.tif",
        "w3_predicted.tif",
        "w3-MaskROI.tif",
        "w3.nii.seg.tif",
        "w3_thumb.jpg",
    ],
)
def test_an_output_beside_its_image_is_skipped_and_named(tmp_path: Path, left: str) -> None:
    """By name and by the image that it was made from."""
    one = found(tmp_path, "w3.tif", "w4.tif", left)
    assert keys(one) == ["w3.tif", "w4.tif"]
    assert one.skipped == {BESIDE: 1}
    assert one.passed[BESIDE].names == (left,)
    (assumed,) = one.assumptions
    assert "@list.txt" in assumed.option
    assert not assumed.doubtful


@pytest.mark.parametrize(
    "names",
    [
        ["mouse_mask.tif", "mouse2.tif"],
        ["face-mask-1.tif", "face.tif"],
        ["unlabeled.tif", "un.tif"],
        ["flow_control.tif", "control.tif", "control_flow.tif"],
        ["pred1.tif", "1.tif"],
        ["a_nuclei.tif", "a.tif"],
    ],
)
def test_images_that_are_only_called_like_outputs_are_kept(tmp_path: Path, names: list[str]) -> None:
    """No image is lost for its name."""
    assert keys(found(tmp_path, *names)) == sorted(names)


def test_a_name_that_images_may_have_is_kept_and_doubted(tmp_path: Path) -> None:
    """`x_binary` may be a picture of its own."""
    one = found(tmp_path, "x.tif", "x_binary.tif")
    assert keys(one) == ["x.tif", "x_binary.tif"]
    (assumed,) = one.assumptions
    assert assumed.doubtful
    assert (WEAK in assumed.what, assumed.example) == (True, "x_binary.tif")


def test_an_output_whose_image_is_elsewhere_is_skipped_where_there_are_images(tmp_path: Path) -> None:
    """Only Cellpose writes such names; that it is skipped is doubtful all the same."""
    one = found(tmp_path, "b.tif", "a_cp_masks.png")
    assert keys(one) == ["b.tif"]
    assert one.skipped == {ALONE: 1}
    assert one.assumptions[0].doubtful


def test_outputs_alone_are_what_is_meant(tmp_path: Path) -> None:
    """A folder of nothing else is segmented, and a line says what it looks like."""
    one = found(tmp_path, "a_cp_masks.png", "b_cp_masks.png")
    assert keys(one) == ["a_cp_masks.png", "b_cp_masks.png"]
    assert [(ONLY in one.what, one.doubtful, one.images) for one in one.assumptions] == [(True, True, 2)]


def test_what_is_given_by_name_is_taken(tmp_path: Path) -> None:
    """As a file, a list, or a glob of these alone."""
    found(tmp_path, "a.tif", "a_cp_outlines.png")
    assert keys(discover(str(tmp_path / "a_cp_outlines.png"))) == ["a_cp_outlines.png"]
    (tmp_path / "list.txt").write_text("a.tif\na_cp_outlines.png\n")
    assert keys(discover(f"@{tmp_path}/list.txt")) == ["a.tif", "a_cp_outlines.png"]
    assert keys(discover(f"{tmp_path}/*.png")) == ["a_cp_outlines.png"]
    assert keys(discover(f"{tmp_path}/a*")) == ["a.tif"]


def test_a_pattern_of_skipped_files_says_how_to_segment_them(tmp_path: Path) -> None:
    """Else the pattern seems to be wrong."""
    found(tmp_path, "a.tif", "a_cp_outlines.png")
    with pytest.raises(NothingToDoError, match=r"skipped: 1 x output.*@list.txt"):
        discover(str(tmp_path), pattern="*.png")


@pytest.mark.parametrize(
    ("images", "outputs"),
    [
        (["a.tif", "b.tif"], ["outlines/a.png", "outlines/b.png"]),
        (["raw/a.tif", "raw/b.tif"], ["Segmentations/a_cp_masks.png"]),
        (["DAPI/7.tif"], ["predictions/7.tif", "labels/7.tif"]),
        (["Images/a.tif"], ["Labels/x.png", "Masks/y.png"]),
        (["a.tif"], ["qc/a_overlay.png"]),
    ],
)
def test_folders_of_outputs_beside_images_are_skipped_whole(
    tmp_path: Path, images: list[str], outputs: list[str]
) -> None:
    """Where their files are called like the images."""
    folders = {name.partition("/")[0] for name in outputs}
    for place in ("", "**/*", "*"):
        one = found(tmp_path, *images, *outputs, place=place)
        assert keys(one) == sorted(images)
        assert sum(one.skipped.values()) == len(folders)
    assert len(found(tmp_path, place=sorted(folders)[0]).entries) >= 1


def test_a_folder_that_is_only_called_like_outputs_is_searched(tmp_path: Path) -> None:
    """Its images have no counterpart beside it."""
    names = ["masks/carnival1.tif", "masks/carnival2.tif", "people/1.tif"]
    assert keys(found(tmp_path, *names)) == names


def test_a_folder_of_which_a_few_files_have_no_image_is_doubted(tmp_path: Path) -> None:
    """The others tell what it is."""
    one = found(tmp_path, "a.tif", "b.tif", "masks/a.tif", "masks/b.tif", "masks/c.tif")
    assert keys(one) == ["a.tif", "b.tif"]
    assert one.skipped == {PARTLY: 1}
    assert one.assumptions[0].doubtful
    assert FOLDER not in one.skipped


SERVERS = ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "@Recycle", "~snapshot"]


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("place", ["", "**/*", "*/*", "*"])
def test_folders_of_file_servers_are_skipped_also_by_globs(tmp_path: Path, name: str, place: str) -> None:
    """They hold thumbnails and what was deleted."""
    one = found(tmp_path, "d/a.tif", f"{name}/a.tif", f"{name}/a.tif.d/thumb.jpg", place=place)
    assert keys(one) == ["d/a.tif"]
    assert one.skipped == {SYSTEM: 1}
    assert len(found(tmp_path, place=name).entries) == 2


def test_outputs_of_an_ome_tiff_are_recognised(tmp_path: Path) -> None:
    """Tools keep `.ome` of the image's name or drop it."""
    assert keys(found(tmp_path, "w3.ome.tif", "w3.ome_outlines.tif", "w3_flows.tif")) == ["w3.ome.tif"]
