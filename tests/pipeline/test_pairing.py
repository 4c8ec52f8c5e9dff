from __future__ import annotations

import numpy as np
import pytest

from nucseg_batch.errors import NothingToDoError, UsageError
from nucseg_batch.files.annotations import Annotation, LabelImage
from nucseg_batch.pipeline.pairing import Pairing, pair


def images(*names: str, lone: bool = False) -> list[LabelImage]:
    return [LabelImage(name, lambda: Annotation(np.zeros((5, 7), np.int32)), lone=lone) for name in names]


def kaggle(*names: str) -> list[LabelImage]:
    """Annotation in Kaggle's layout; the name of each image is that of its folder."""
    return [
        LabelImage(name, lambda: Annotation(np.zeros((5, 7), np.int32)), (f"{name}/images/{name}",)) for name in names
    ]


def partners(found: Pairing) -> dict[str, str | None]:
    return {truth.name: None if prediction is None else prediction.name for truth, prediction in found.pairs}


def test_images_are_paired_by_their_whole_names() -> None:
    """A01 of one plate is not A01 of another; truths without a prediction stay, predictions without a truth do not."""
    found = pair(images("1/A01", "2/A01", "3/A01"), images("1/A01", "2/A01", "2/A02"))
    assert partners(found) == {"1/A01": "1/A01", "2/A01": "2/A01", "2/A02": None}
    assert found.notes == ("1 of 3 predicted images have no annotation",)


@pytest.mark.parametrize("prediction", ["ab", "ab/images/ab"])
def test_kaggle_annotation_is_paired_with_a_run_over_its_folder_and_with_flat_files(prediction: str) -> None:
    """`segment stage1_train out.zarr` names its masks `<id>/images/<id>`, whatever reads the annotation."""
    found = pair(images(prediction), kaggle("ab", "cd"))
    assert partners(found) == {"ab": prediction, "cd": None}
    assert found.notes == ()
    assert partners(pair(kaggle("ab"), images(prediction, "cd"))) == {prediction: "ab", "cd": None}


def test_endings_of_label_images_are_left_out_where_whole_names_do_not_pair() -> None:
    """Tools name masks after images; but a name that is the same on both sides is meant."""
    found = pair(images("x/a.ome", "b_img", "c_cp_masks"), images("x/a_masks", "b-labels", "c", "d_gt"))
    assert partners(found) == {"x/a_masks": "x/a.ome", "b-labels": "b_img", "c": "c_cp_masks", "d_gt": None}
    assert found.notes == ()
    assert partners(pair(images("cell_mask", "cell"), images("cell_mask", "dish"))) == {
        "cell_mask": "cell_mask",
        "dish": None,
    }
    assert partners(pair(images("out/a"), images("x/a_masks"))) == {"x/a_masks": "out/a"}
    with pytest.raises(UsageError, match="TRUTH holds a_gt and a_masks, which both match a"):
        pair(images("a"), images("a_gt", "a_masks"))


def test_two_predictions_for_one_truth_are_refused() -> None:
    """Which of them is meant cannot be told."""
    with pytest.raises(UsageError, match="ab and ab/images/ab"):
        pair(images("ab", "ab/images/ab"), kaggle("ab"))


def test_where_no_name_is_the_same_last_parts_pair_and_that_is_said() -> None:
    """A run over Kaggle's folders against a flat folder of label images, or folders of another depth."""
    found = pair(images("ab/images/ab", "cd/images/cd"), images("ab", "ef"))
    assert partners(found) == {"ab": "ab/images/ab", "ef": None}
    assert "last part" in found.notes[0]
    assert partners(pair(images("ab", "cd"), images("x/ab", "x/cd"))) == {"x/ab": "ab", "x/cd": "cd"}


@pytest.mark.parametrize("turned", [False, True], ids=["truths", "predictions"])
def test_last_parts_do_not_pair_where_they_are_not_unique(turned: bool) -> None:
    """One mask would count for several images, or the wrong one for one."""
    sides = [images("1/A01", "2/A01"), images("A01")]
    with pytest.raises(NothingToDoError, match="share no image name"):
        pair(*(sides[::-1] if turned else sides))


def test_last_parts_do_not_pair_where_any_whole_name_does() -> None:
    """Then names are meant, and what is missing is missing."""
    assert partners(pair(images("a", "b"), images("a", "x/b"))) == {"a": "a", "x/b": None}


def test_a_store_of_one_label_image_is_compared_with_the_one_image_of_the_other_side() -> None:
    """`truth.zarr` is the name of a file, not of an image; that this was done is said."""
    found = pair(images("field"), images("truth", lone=True))
    assert partners(found) == {"truth": "field"}
    assert "field is compared with truth" in found.assumptions[0].what
    with pytest.raises(NothingToDoError):
        pair(images("field", "other"), images("truth", lone=True))


def test_files_of_other_names_are_refused_with_examples_of_both() -> None:
    """One look at two names tells what is wrong; files of one image each are not paired by force."""
    with pytest.raises(NothingToDoError, match=r"PRED \(1 images, such as a\) and TRUTH \(1, such as b\)"):
        pair(images("a"), images("b"))
