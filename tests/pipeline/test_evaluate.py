from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks

from nucseg_batch.arrays.agreement import agreement
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.pipeline.evaluate import Evaluation, evaluate, find_index

TRUTH = disks((61, 83), [(15, 15), (40, 30), (30, 65)], 9)
ONE = np.where(TRUTH == 1, 1, 0)


def write(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))


def compare(folder: Path, index: Path | None = None) -> Evaluation:
    return evaluate(folder / "p", folder / "t", index=index, group="kind", progress=lambda *_: None)


def test_a_perfect_prediction_scores_one_whatever_its_numbering(tmp_path: Path) -> None:
    """Labels are names, not values."""
    write(tmp_path / "t" / "x" / "a.png", TRUTH)
    write(tmp_path / "p" / "x" / "a.png", np.where(TRUTH > 0, 7 + 90 * TRUTH, 0))
    (record,) = compare(tmp_path).as_json()["images"]
    assert (record["image"], record["status"], record["annotated"], record["predicted"]) == ("x/a", "ok", 3, 3)
    scores = [value for name, value in record.items() if isinstance(value, float) and "error" not in name]
    assert scores == [1] * 23


def test_an_image_without_a_prediction_counts_as_all_missed(tmp_path: Path) -> None:
    """Leaving out hard images must not raise a score."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "t" / "b.png", TRUTH[::-1])
    write(tmp_path / "p" / "a.png", TRUTH)
    result = compare(tmp_path)
    assert result.missing == ("b",)
    score = result.groups["all"].scores[0]
    assert (score.tp, score.fp, score.fn, score.ap_image_mean) == (3, 0, 3, 0.5)
    assert [row["status"] for row in result.rows()] == ["ok", "missing"]
    assert result.groups["all"].pooled["count_error"] == -3


def test_groups_come_from_a_column_of_the_index(tmp_path: Path) -> None:
    """A mean over modalities hides the one that fails."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    write(tmp_path / "t" / "b.png", TRUTH)
    write(tmp_path / "p" / "b.png", ONE)
    (tmp_path / "index.csv").write_text("id,kind\na,bright\nb,dark\n")
    assert find_index(tmp_path / "t", "kind") == tmp_path / "index.csv"
    assert find_index(tmp_path / "t", "other") is None, "an index that has no such column was made for something else"
    result = compare(tmp_path, tmp_path / "index.csv")
    assert list(result.groups) == ["all", "bright", "dark"]
    assert [row["group"] for row in result.rows()] == ["bright", "dark"]
    assert result.groups["bright"].pooled["ap_50"] == 1
    assert result.groups["dark"].pooled["ap_50"] == pytest.approx(1 / 3)
    (tmp_path / "index.csv").write_text("id,other\na,bright\n")
    with pytest.raises(InputMissingError, match="kind"):
        compare(tmp_path, tmp_path / "index.csv")
    with pytest.raises(InputMissingError, match="no such file"):
        compare(tmp_path, tmp_path / "nowhere.csv")


def test_an_index_may_tell_images_of_one_name_apart_by_their_folders(tmp_path: Path) -> None:
    """Wells have the same names on every plate; what the full name says goes before what the last part says."""
    for name in ("1/A01", "2/A01", "2/A02"):
        write(tmp_path / "t" / f"{name}.png", TRUTH)
        write(tmp_path / "p" / f"{name}.png", TRUTH)
    (tmp_path / "index.csv").write_text("id,kind\nA01,first\n2/A01,second\n")
    assert [row["group"] for row in compare(tmp_path, tmp_path / "index.csv").rows()] == ["first", "second", ""]


def test_a_group_called_all_is_kept_apart_from_all(tmp_path: Path) -> None:
    """Else its images would count twice."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    (tmp_path / "index.csv").write_text("id,kind\na,all\n")
    groups = compare(tmp_path, tmp_path / "index.csv").groups
    assert {name: summary.images for name, summary in groups.items()} == {"all": 1, "kind all": 1}


def test_the_record_has_every_image_every_group_and_both_averages(tmp_path: Path) -> None:
    """What a program reads must not have to be computed again, and must be JSON without NaN."""
    predictions = {"a": TRUTH, "b": ONE, "c": TRUTH * 0}
    for name, labels in predictions.items():
        write(tmp_path / "t" / f"{name}.png", TRUTH if name != "c" else TRUTH * 0)
        write(tmp_path / "p" / f"{name}.png", labels)
    record = json.loads(json.dumps(compare(tmp_path).as_json(), allow_nan=False))
    values = agreement(ONE, TRUTH).values()
    assert record["images"][1] == {"image": "b", "group": "", "status": "ok"} | values
    summary = record["groups"]["all"]
    assert summary["images"] == 3
    assert list(summary["pooled"]) == list(summary["image_mean"]) == list(values)
    assert (summary["pooled"]["pq"], summary["image_mean"]["pq"]) == pytest.approx((4 / 5, (1 + 1 / 2 + 1) / 3))
    assert [(t["threshold"], t["tp"]) for t in summary["thresholds"][::9]] == [(0.5, 4), (0.95, 4)]


def test_the_worst_images_come_worst_first_and_by_name(tmp_path: Path) -> None:
    """They are looked at first; a list that changed from run to run would be of no use."""
    for name, labels in {"a": TRUTH, "c": ONE, "b": ONE, "d": TRUTH * 0}.items():
        write(tmp_path / "t" / f"{name}.png", TRUTH)
        write(tmp_path / "p" / f"{name}.png", labels)
    assert [found.image for found in compare(tmp_path).worst(3)] == ["d", "b", "c"]
    assert compare(tmp_path).worst(0) == []


def test_two_images_of_one_name_are_refused_not_chosen_from(tmp_path: Path) -> None:
    """Which of a.png and a.tif was meant? Scoring either in silence would be a guess."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.png", TRUTH)
    write(tmp_path / "p" / "a.tif", TRUTH)
    with pytest.raises(UsageError, match="two images named a"):
        compare(tmp_path)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    """Other names, other shapes, colour pictures."""
    write(tmp_path / "t" / "a.png", TRUTH)
    write(tmp_path / "p" / "b.png", TRUTH)
    with pytest.raises(NothingToDoError, match="share no image name"):
        compare(tmp_path)
    write(tmp_path / "p" / "a.png", TRUTH[1:])
    with pytest.raises(ImageError, match=r"\(60, 83\)"):
        compare(tmp_path)
    (tmp_path / "p" / "a.png").write_bytes(
        imagecodecs.png_encode(np.random.default_rng(1).integers(0, 255, (61, 83, 3), np.uint8))
    )
    with pytest.raises(ImageError, match="colour image"):
        compare(tmp_path)


@pytest.mark.real_data
def test_kaggle_masks_agree_with_the_label_images_made_from_them(shared: Path) -> None:
    """One picture for each nucleus and one label image are two forms of the same annotation."""
    labels, masks = shared / "dsb2018" / "train" / "labels", shared / "dsb2018_kaggle_layout" / "stage1_train"
    result = evaluate(labels, masks, index=None, group="modality", progress=lambda *_: None)
    assert result.missing == ()
    summary = result.groups["all"]
    assert (summary.images, summary.pooled["annotated"], summary.pooled["pq"]) == (24, 537, 1)
