"""`evaluate` takes every folder that `train` takes, and pairs it with the masks of a run over its images."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from pictures import disks, fluorescence

from nucseg_batch.errors import DoubtfulInputError, ImageError, NothingToDoError, UsageError
from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.pipeline.evaluate import Evaluation, evaluate

LABELS = disks((61, 83), [(15, 15), (40, 30), (30, 65)], 9)
PIXELS = fluorescence(LABELS)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(pixels if pixels is PIXELS else pixels.astype(np.uint16)))


def compare(folder: Path, *, strict: bool = False) -> Evaluation:
    return evaluate(folder / "pred", folder / "data", index=None, group="kind", progress=lambda *_: None, strict=strict)


ENDINGS = [
    *("_masks", "_cp_masks", "_mask", "_label", "_labels", "_seg", "-labels", "-Mask", ".labels", " mask", "_GT"),
    *("_ground_truth", "_groundtruth", "_nuclei_mask", "_instance_mask", "_label_image", "_segmentation"),
]
FOLDERS = [
    *(("images", "labels"), ("Images", "Labels"), ("IMAGES", "MASKS"), ("img", "gt"), ("imagesTr", "labelsTr")),
    *(("raw", "segmentation"), ("tissue images", "label masks"), ("train_images", "train_masks")),
    *(("images", "ground_truth"), ("input", "target"), ("image", "mask"), ("01", "01_GT")),
]
LAYOUTS = (
    {f"a{ending}": (("a.png", f"a{ending}.png"), ("b.png", f"b{ending}.png")) for ending in ENDINGS}
    | {
        f"{images}, {labels}": ((f"{images}/a.png", f"{labels}/a.png"), (f"{images}/b.png", f"{labels}/b.png"))
        for images, labels in FOLDERS
    }
    | {
        "OME-TIFF beside": (("a.ome.tif", "a_masks.ome.tif"), ("b.ome.tif", "b_mask.tif")),
        "OME-TIFF folders": (("images/a.ome.tif", "labels/a.tif"), ("images/b.tif", "labels/b.ome.tif")),
        "prefixes": (("image_01.png", "mask_01.png"), ("image_02.png", "mask_02.png")),
        "stain in the name": (("a_DAPI.png", "a_mask.png"), ("b_DAPI.png", "b_mask.png")),
        "nnU-Net": (("imagesTr/a_0000.png", "labelsTr/a.png"), ("imagesTr/b_0000.png", "labelsTr/b.png")),
        "Cell Tracking Challenge": (
            ("01/t000.tif", "01_GT/SEG/man_seg000.tif"),
            ("01/t007.tif", "01_GT/SEG/man_seg007.tif"),
        ),
        "masks below": (("a.png", "masks/a.png"), ("b.png", "masks/b_cp_masks.png")),
        "splits": (("train/images/a.png", "train/masks/a_mask.png"), ("val/images/b.png", "val/masks/b_mask.png")),
    }
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_commands_pair_the_same_files(tmp_path: Path, layout: str) -> None:
    """In a folder of images and label images, intensities were taken for numbers of nuclei: AP 0.000, and exit 0."""
    for image, label in LAYOUTS[layout]:
        write(tmp_path / "data" / image, PIXELS)
        write(tmp_path / "data" / label, LABELS)
        write(tmp_path / "pred" / image, LABELS)
    found = [
        (pair.key, path.relative_to(tmp_path / "data").as_posix())
        for pair in find_pairs(tmp_path / "data").pairs
        if isinstance(pair.labels, tuple)
        for path in pair.labels
    ]
    assert found == sorted(LAYOUTS[layout])
    result = compare(tmp_path)
    assert result.missing == ()
    assert [image.agreement.values()["ap_50"] for image in result.images] == [1, 1]
    assert result.notes == result.assumptions == ()


def test_label_images_alone_pair_by_name_without_their_ending(tmp_path: Path) -> None:
    """A folder of Cellpose's masks holds no images; the names of a run are those of the images."""
    for name in ("x/a_cp_masks", "x/b_cp_masks", "c"):
        write(tmp_path / "data" / f"{name}.png", LABELS)
    for name in ("x/a.ome", "x/b_img", "c"):
        write(tmp_path / "pred" / f"{name}.png", LABELS)
    result = compare(tmp_path)
    assert [(image.image, image.predicted) for image in result.images] == [
        ("c", True),
        ("x/a_cp_masks", True),
        ("x/b_cp_masks", True),
    ]
    write(tmp_path / "data" / "x" / "a_gt.png", LABELS)
    with pytest.raises(UsageError, match=r"TRUTH holds x/a_cp_masks and x/a_gt, which both match x/a\.ome"):
        compare(tmp_path)


def test_what_lies_beside_annotated_images_is_left_out_and_said(tmp_path: Path) -> None:
    """Outputs of Cellpose, previews, thumbnails of a file server, images that nobody has annotated yet."""
    for name in ("a.png", "b.png", "c.png", "a_flows.png", "previews/a.png", "@eaDir/a.png", "a_cp_outlines.png"):
        write(tmp_path / "data" / name, PIXELS)
    for name in ("a_cp_masks.png", "b_cp_masks.png", "lost_masks.png"):
        write(tmp_path / "data" / name, LABELS)
    for name in "abc":
        write(tmp_path / "pred" / f"{name}.png", LABELS)
    result = compare(tmp_path)
    assert [(image.image, image.predicted) for image in result.images] == [
        ("a", True),
        ("b", True),
        ("lost_masks", False),
    ]
    assert result.notes == (
        "TRUTH: a_flows.png, c.png: without annotation, left out",
        "TRUTH: previews/a.png: neither images nor label images, left out",
        "1 of 3 predicted images have no annotation",
    )


def test_a_folder_of_images_is_refused_as_truth_and_as_prediction(tmp_path: Path) -> None:
    """Every image that is wrong is counted, and one is enough to mend the command."""
    for name in "ab":
        write(tmp_path / "data" / f"{name}.png", PIXELS)
        write(tmp_path / "pred" / f"{name}.png", LABELS)
    with pytest.raises(ImageError, match=r"2 of 2 images cannot be compared: .*a\.png is not a label image"):
        compare(tmp_path)
    (tmp_path / "data").rename(tmp_path / "x")
    (tmp_path / "pred").rename(tmp_path / "data")
    (tmp_path / "x").rename(tmp_path / "pred")
    with pytest.raises(ImageError, match=r"raw intensities"):
        compare(tmp_path)


def test_doubtful_encodings_are_counted_for_each_side_and_refused_when_strict(tmp_path: Path) -> None:
    """A binary mask on either side changes what a nucleus is."""
    for name in "abc":
        write(tmp_path / "data" / f"{name}.png", (LABELS > 0) * (255 if name != "c" else 1))
        write(tmp_path / "pred" / f"{name}.png", (LABELS > 0) if name == "b" else LABELS)
    result = compare(tmp_path)
    assert [(one.example, one.images, one.doubtful) for one in result.assumptions] == [
        ("TRUTH a", 3, True),
        ("PRED b", 1, True),
    ]
    assert [image.agreement.values()["ap_50"] for image in result.images] == [1, 1, 1]
    assert [one["example"] for one in result.as_json()["assumptions"]] == ["TRUTH a", "PRED b"]
    with pytest.raises(DoubtfulInputError, match="TRUTH a and 2 more: read as a binary mask"):
        compare(tmp_path, strict=True)
    for name in "abc":
        for side in ("data", "pred"):
            write(tmp_path / side / f"{name}.png", LABELS)
    assert compare(tmp_path, strict=True).assumptions == ()


def test_several_folders_of_label_images_count_once(tmp_path: Path) -> None:
    """Beside labels/ there is often masks/ of another tool; which counts is said by both commands."""
    write(tmp_path / "data" / "images" / "a.png", PIXELS)
    write(tmp_path / "data" / "labels" / "a.png", LABELS)
    write(tmp_path / "data" / "masks" / "a.png", LABELS * 0)
    write(tmp_path / "pred" / "a.png", LABELS)
    result = compare(tmp_path)
    assert [image.agreement.values()["ap_50"] for image in result.images] == [1]
    said = "masks: not used, for there is labels/ beside it"
    assert result.notes[0] == f"TRUTH: {said}"
    assert find_pairs(tmp_path / "data").problems == (said,)


def test_label_images_in_folders_called_masks_are_not_laid_over_each_other(tmp_path: Path) -> None:
    """`plate/masks/` looks like Kaggle's layout without its images, but holds an image's label image in each file."""
    for plate in ("p", "q"):
        for name in "ab":
            write(tmp_path / "data" / plate / "masks" / f"{name}.png", LABELS)
    write(tmp_path / "pred" / "p.png", LABELS)
    with pytest.raises(ImageError, match=r"a\.png has values from 0 to 3; the mask of a single nucleus"):
        compare(tmp_path)


def test_a_store_with_images_and_labels_in_a_folder_is_truth(tmp_path: Path) -> None:
    """As `train` takes it: OME-Zarr images of any depth, named by their store."""
    for name in ("x/a.zarr", "b.zarr"):
        for inside, pixels in (("", PIXELS), ("labels/nuclei", LABELS.astype(np.float32))):
            place = tmp_path / "data" / name / inside
            group = zarr.open_group(place, mode="a", zarr_format=3)
            axes = [{"name": axis} for axis in "yx"]
            metadata = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
            group.update_attributes({"ome": {"version": "0.5"} | metadata | ({"image-label": {}} if inside else {})})
            group.create_array("0", data=pixels)
        zarr.open_group(tmp_path / "data" / name / "labels", mode="a").update_attributes(
            {"ome": {"version": "0.5", "labels": ["nuclei"]}}
        )
    for name in ("x/a.png", "b.png"):
        write(tmp_path / "pred" / name, LABELS)
    assert [pair.key for pair in find_pairs(tmp_path / "data").pairs] == ["b.zarr", "x/a.zarr"]
    result = compare(tmp_path)
    assert [(image.image, image.agreement.values()["ap_50"]) for image in result.images] == [("b", 1), ("x/a", 1)]


def test_groups_are_found_for_images_that_the_index_names_with_suffix_or_by_their_image(tmp_path: Path) -> None:
    """`train` reads `b.png`, `images/c` and `d` for `d_masks`; scores by group must not need another index."""
    for name in ("a", "b", "c"):
        write(tmp_path / "data" / "images" / f"{name}.png", PIXELS)
        write(tmp_path / "data" / "labels" / f"{name}_masks.png", LABELS)
        write(tmp_path / "pred" / f"{name}.png", LABELS)
    index = tmp_path / "data" / "index.csv"
    index.write_text("id,kind\na,one\nb.png,two\nimages/c,three\n")
    result = evaluate(tmp_path / "pred", tmp_path / "data", index=index, group="kind", progress=lambda *_: None)
    assert [row["group"] for row in result.rows()] == ["one", "two", "three"]


def test_native_files_of_cellpose_are_named_where_nothing_pairs(tmp_path: Path) -> None:
    """They are pickled, which is not opened; what to do is said."""
    write(tmp_path / "data" / "a.png", PIXELS)
    (tmp_path / "data" / "a_seg.npy").write_bytes(b"")
    with pytest.raises(NothingToDoError, match=r"save Cellpose's masks as PNG or TIFF"):
        find_pairs(tmp_path / "data")
