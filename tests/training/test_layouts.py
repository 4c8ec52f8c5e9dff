from __future__ import annotations

from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.errors import InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.annotations import find_all_pairs, find_pairs


def write(*paths: Path, shape: tuple[int, int] = (31, 41)) -> None:
    """Each path gets a picture, or where its name or folder says so the labels of it."""
    labels = disks(shape, [(9, 11), (22, 30)], 6)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        annotated = path.parent.name in ("labels", "masks") or "_" in path.stem
        path.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16) if annotated else fluorescence(labels)))


def paired(folder: Path) -> dict[str, list[str]]:
    """Names of the label files of each image that was found."""
    found = {}
    for pair in find_pairs(folder).pairs:
        assert isinstance(pair.labels, tuple)
        found[pair.key] = [path.relative_to(folder).as_posix() for path in pair.labels]
    return found


@pytest.mark.parametrize("beside", ["labels", "masks"])
def test_images_pair_with_labels_of_the_same_name(tmp_path: Path, beside: str) -> None:
    """At any depth, with any suffix; what lacks its other half is told, not passed over."""
    write(*(tmp_path / "p" / "images" / name for name in ("a.png", "deep/b.tif", "c.png")))
    write(*(tmp_path / "p" / beside / name for name in ("a.tif", "deep/b.png", "d.png")))
    assert paired(tmp_path) == {
        "p/images/a.png": [f"p/{beside}/a.tif"],
        "p/images/deep/b.tif": [f"p/{beside}/deep/b.png"],
    }
    assert find_pairs(tmp_path).problems == (
        "p/images/c.png: no labels of that name",
        f"p/{beside}/d.png: no image of that name",
    )


def test_label_names_may_end_as_other_tools_end_them(tmp_path: Path) -> None:
    """images/a.png and masks/a_mask.png is what several public data sets ship."""
    write(tmp_path / "images" / "a.png", tmp_path / "masks" / "a_mask.png")
    write(tmp_path / "images" / "7_img.png", tmp_path / "masks" / "7.png")
    assert paired(tmp_path) == {"images/a.png": ["masks/a_mask.png"], "images/7_img.png": ["masks/7.png"]}


@pytest.mark.parametrize(
    "label", ["a_masks.tif", "a_mask.tif", "a_labels.tif", "a_label.tif", "a_seg.png", "a_cp_masks.png"]
)
def test_files_pair_by_the_ending_of_the_label_image(tmp_path: Path, label: str) -> None:
    """As Cellpose and others leave them, in one folder."""
    write(tmp_path / "a.png", tmp_path / label, tmp_path / "b.png", tmp_path / "c_masks.png")
    assert paired(tmp_path) == {"a.png": [label]}
    assert find_pairs(tmp_path).problems == ("b.png: no labels of that name", "c_masks.png: no image of that name")


def test_an_image_may_have_an_ending_too_and_its_best_labels_count(tmp_path: Path) -> None:
    """000_img.png with 000_masks.png is Cellpose's own data; corrected masks come before its unchanged output."""
    write(tmp_path / "000_img.png", tmp_path / "000_masks.png", tmp_path / "000_cp_masks.png")
    assert paired(tmp_path) == {"000_img.png": ["000_masks.png"]}
    assert find_pairs(tmp_path).problems == ("000_cp_masks.png: its image has other labels",)


def test_masks_of_single_nuclei_are_told_from_label_images_by_their_names(tmp_path: Path) -> None:
    """Kaggle's folders are called as those of semantic masks are, but no mask is named after its image."""
    write(tmp_path / "x1" / "images" / "x1.png", *(tmp_path / "x1" / "masks" / f"{i}.png" for i in (5, 3)))
    write(tmp_path / "x2" / "images" / "x2.png", tmp_path / "x2" / "masks" / "x2.png")
    assert paired(tmp_path) == {"x1": ["x1/masks/3.png", "x1/masks/5.png"], "x2/images/x2.png": ["x2/masks/x2.png"]}


def test_of_two_files_of_one_name_the_first_counts(tmp_path: Path) -> None:
    """One label image cannot be right for both a picture and its preview; which counted is told."""
    write(tmp_path / "images" / "a.jpg", tmp_path / "images" / "a.png", tmp_path / "labels" / "a.png")
    assert list(paired(tmp_path)) == ["images/a.jpg"]
    assert find_pairs(tmp_path).problems == ("images/a.png: not used, for there is a.jpg beside it",)


def test_folders_without_annotation_are_told_in_one_line(tmp_path: Path) -> None:
    """A thousand plain images are one problem, not a thousand."""
    write(tmp_path / "images" / "a.png", tmp_path / "labels" / "a.png")
    write(*(tmp_path / "rest" / f"{i}.png" for i in range(5)))
    assert find_pairs(tmp_path).problems == ("rest: 5 images, none with annotation beside it",)


def test_a_folder_without_pairs_says_what_was_expected_and_found(tmp_path: Path) -> None:
    """The layouts are few; the message names them."""
    write(tmp_path / "images" / "a.png")
    with pytest.raises(NothingToDoError, match=r"labels/.*Found: images: 1 image, none with annotation"):
        find_pairs(tmp_path)
    with pytest.raises(InputMissingError):
        find_pairs(tmp_path / "nowhere")


def write_pairs(folder: Path, names: str) -> None:
    for name in names:
        write(folder / "images" / f"{name}.png", folder / "labels" / f"{name}.png")


def test_an_index_says_what_is_trained_on_and_its_test_rows_are_never_used(tmp_path: Path) -> None:
    """Scores on images that were trained on are worth nothing."""
    write_pairs(tmp_path / "train", "abcd")
    (tmp_path / "index.csv").write_text("id,split,modality\na,train,fluorescence\nb.png,val,histology\nc,test,x\n")
    found = find_pairs(tmp_path)
    assert [(pair.key, pair.split, pair.modality) for pair in found.pairs] == [
        ("train/images/a.png", "train", "fluorescence"),
        ("train/images/b.png", "val", "histology"),
    ]
    assert found.problems == ("train/images/d.png: index.csv has no row for it",)
    assert find_pairs(tmp_path / "train").pairs[0].split == "train", "the index is found one folder up, too"


def test_an_index_of_other_images_is_not_used(tmp_path: Path) -> None:
    """One folder up there may be anything; to drop all images for it would be no help."""
    write_pairs(tmp_path / "mine", "ab")
    (tmp_path / "index.csv").write_text("id,split\nx,train\n")
    found = find_pairs(tmp_path)
    assert [pair.split for pair in found.pairs] == [None, None]
    assert found.problems == ("index.csv: it names none of the images of mine and is not used for them",)
    (tmp_path / "index.csv").write_text("name,split\na,train\n")
    assert find_pairs(tmp_path).problems == ("index.csv: it has no column id and is not used",)


def test_a_column_of_the_index_groups_images(tmp_path: Path) -> None:
    """By its name, as every data set calls plates and patients its own way; an empty cell is no group."""
    write_pairs(tmp_path, "abc")
    (tmp_path / "index.csv").write_text("id,plate\na,7\nb,7\nc,\n")
    assert [pair.group for pair in find_pairs(tmp_path, group="plate").pairs] == ["7", "7", None]
    assert [pair.group for pair in find_pairs(tmp_path).pairs] == [None] * 3
    with pytest.raises(UsageError, match="patient"):
        find_pairs(tmp_path, group="patient")


def test_the_shared_data_set_splits_as_its_index_says(shared: Path) -> None:
    """The test images are in the same folder and must stay out."""
    found = find_pairs(shared / "dsb2018", group="mosaic")
    assert Counter(pair.split for pair in found.pairs) == {"train": 537, "val": 78}
    assert not any("test/" in pair.key for pair in found.pairs)
    assert all(pair.group for pair in found.pairs)
    assert found.problems == ()


def test_the_kaggle_layout_is_found(shared: Path) -> None:
    """24 images as Kaggle ships them."""
    found = find_pairs(shared / "dsb2018_kaggle_layout")
    assert len(found.pairs) == 24
    assert sum(len(pair.labels) for pair in found.pairs if isinstance(pair.labels, tuple)) > 240
    assert found.problems == ()


def test_masks_to_ignore_lie_beside_images_and_labels(tmp_path: Path) -> None:
    """A mask of unannotated pixels has the name of its image; a mask without an image is reported."""
    write(*(tmp_path / place / "a.png" for place in ("images", "labels", "ignore", "micronuclei")))
    write(tmp_path / "images" / "b.png", tmp_path / "labels" / "b.png", tmp_path / "ignore" / "c.png")
    found = find_pairs(tmp_path)
    assert [[path.relative_to(tmp_path).as_posix() for path in pair.ignore] for pair in found.pairs] == [
        ["ignore/a.png", "micronuclei/a.png"],
        [],
    ]
    assert found.problems == ("ignore/c.png: no image of that name",)


def test_several_folders_are_one_data_set_of_several_collections(tmp_path: Path) -> None:
    """Names may be the same in each; a folder with an index of its own is a collection, wherever it lies."""
    for place in ("one", "more/two", "more/three"):
        write(tmp_path / place / "images" / "a.png", tmp_path / place / "labels" / "a.png")
    (tmp_path / "more" / "two" / "index.csv").write_text("id,split,modality\na,val,histology\n")
    found = find_all_pairs([tmp_path / "one", tmp_path / "more"])
    top = tmp_path.as_posix()
    assert [(pair.key.removeprefix(top), pair.collection, pair.split) for pair in found.pairs] == [
        ("/more/three/images/a.png", "more", None),
        ("/more/two/images/a.png", "two", "val"),
        ("/one/images/a.png", "one", None),
    ]
    assert find_all_pairs([tmp_path / "one"]) == find_pairs(tmp_path / "one")
    with pytest.raises(UsageError, match="given twice"):
        find_all_pairs([tmp_path / "one", tmp_path / "more" / ".." / "one"])
    with pytest.raises(InputMissingError, match="nowhere"):
        find_all_pairs([tmp_path / "one", tmp_path / "nowhere"])
    with pytest.raises(UsageError, match="--group plate"):
        find_all_pairs([tmp_path / "one", tmp_path / "more"], group="plate")
