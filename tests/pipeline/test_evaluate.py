from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.pipeline.evaluate import Evaluation, evaluate, find_index

TRUTH = disks((61, 83), [(15, 15), (40, 30), (30, 65)], 9)


def write(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))


def compare(folder: Path, index: Path | None = None) -> Evaluation:
    return evaluate(folder / "p", folder / "t", index=index, group="kind", progress=lambda *_: None)


def test_a_perfect_prediction_scores_one_whatever_its_numbering(tmp_path: Path) -> None:
    """Labels are names, not values."""
    write(tmp_path / "t" / "x" / "a.png", TRUTH)
    write(tmp_path / "p" / "x" / "a.png", np.where(TRUTH > 0, 7 + 90 * TRUTH, 0))
    record = compare(tmp_path).as_json()["groups"]["all"]
    assert record["AP_50_95_image_mean"] == record["AP_50_95_pooled"] == 1
    assert record["thresholds"][0]["tp"] == 3


def test_an_image_without_a_prediction_counts_as_all_missed(tmp_path: Path) -> None:
    """Leaving out hard images must not raise a score."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "t" / "b.png", TRUTH[::-1])
    write(tmp_path / "p" / "a.png", TRUTH)
    result = compare(tmp_path)
    assert result.missing == ("b",)
    score = result.groups["all"][0]
    assert (score.tp, score.fp, score.fn, score.ap_image_mean) == (3, 0, 3, 0.5)


def test_groups_come_from_a_column_of_the_index(tmp_path: Path) -> None:
    """A mean over modalities hides the one that fails."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    write(tmp_path / "t" / "b.png", TRUTH)
    write(tmp_path / "p" / "b.png", np.where(TRUTH == 1, 1, 0))
    (tmp_path / "index.csv").write_text("id,kind\na,bright\nb,dark\n")
    assert find_index(tmp_path / "t", "kind") == tmp_path / "index.csv"
    assert find_index(tmp_path / "t", "other") is None, "an index that has no such column was made for something else"
    result = compare(tmp_path, tmp_path / "index.csv")
    assert list(result.groups) == ["all", "bright", "dark"]
    assert result.groups["bright"][0].ap_pooled == 1
    assert result.groups["dark"][0].ap_pooled == pytest.approx(1 / 3)
    (tmp_path / "index.csv").write_text("id,other\na,bright\n")
    with pytest.raises(InputMissingError, match="kind"):
        compare(tmp_path, tmp_path / "index.csv")


def test_two_images_of_one_name_are_refused_not_chosen_from(tmp_path: Path) -> None:
    """Which of a.png and a.tif was meant? Scoring either in silence would be a guess."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.tif", TRUTH)
    with pytest.raises(UsageError, match="two images named a"):
        compare(tmp_path)


def test_a_group_called_all_is_kept_apart_from_all(tmp_path: Path) -> None:
    """Else its images would count twice."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    (tmp_path / "index.csv").write_text("id,kind\na,all\n")
    assert compare(tmp_path, tmp_path / "index.csv").counts == {"all": 1, "kind all": 1}


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """Other names, other shapes, colour pictures."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "b.png", TRUTH)
    with pytest.raises(NothingToDoError, match="share no image name"):
        compare(tmp_path)
    write(tmp_path / "p" / "a.png", TRUTH[1:])
    with pytest.raises(ImageError, match=r"\(60, 83\)"):
        compare(tmp_path)
    (tmp_path / "p" / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((61, 83, 3), np.uint8)))
    with pytest.raises(ImageError, match="one integer plane"):
        compare(tmp_path)
