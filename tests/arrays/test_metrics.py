from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nucseg_batch.arrays.metrics import THRESHOLDS, Match, match, mean_average_precision, overlaps, score


def iou_matrix(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of every prediction with every truth, zeros included, from the pairs that `overlaps` finds."""
    found = overlaps(prediction, truth)
    matrix = np.zeros((found.predictions, found.truths))
    matrix[found.prediction, found.truth] = found.iou
    return matrix


def row(text: str) -> np.ndarray:
    """A label image one pixel high: digits are labels, anything else is background."""
    return np.array([[int(c) if c.isdigit() else 0 for c in text]], np.int32)


def stripes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Touching nuclei of 1 to 4 pixels in a row, some of them background: many ties and shared halves."""
    size = shape[0] * shape[1]
    runs = np.repeat(np.arange(size), rng.integers(1, 5, size))[:size]
    ids = rng.permutation(size) + 1
    ids[rng.random(size) < 0.2] = 0
    return ids[runs].reshape(shape)


def exact_ious(prediction: np.ndarray, truth: np.ndarray) -> list[list[Fraction]]:
    """IoU by sets of places, without rounding: a list of truths for each prediction, in order of their ids."""
    a, b = (
        [set(np.flatnonzero(labels == i).tolist()) for i in np.unique(labels[labels > 0])]
        for labels in (prediction, truth)
    )
    return [[Fraction(len(p & t), len(p | t)) for t in b] for p in a]


def most_pairs(possible: list[list[bool]], taken: frozenset[int] = frozenset()) -> int:
    """Size of the largest one-to-one matching, by trying every partner (or none) for each row."""
    if not possible:
        return 0
    first, rest = possible[0], possible[1:]
    pairs = [1 + most_pairs(rest, taken | {j}) for j, fits in enumerate(first) if fits and j not in taken]
    return max([most_pairs(rest, taken), *pairs])


@pytest.mark.parametrize("threshold", ["0.2", "0.25", "0.3", "0.5", "0.55", "0.6", "0.75", "0.95"])
def test_counts_are_those_of_trying_every_assignment(threshold: str) -> None:
    """In exact fractions, so that an IoU equal to the threshold counts, also where the threshold has no exact float."""
    rng = np.random.default_rng(11)
    matched = 0
    for _ in range(60):
        prediction, truth = stripes(rng, (3, 5)), stripes(rng, (3, 5))
        exact = exact_ious(prediction, truth)
        tp = most_pairs([[iou >= Fraction(threshold) for iou in line] for line in exact])
        (found,) = match(prediction, truth, [float(threshold)])
        predictions, truths = (np.unique(labels[labels > 0]).size for labels in (prediction, truth))
        assert found == Match(float(threshold), tp, predictions - tp, truths - tp)
        matched += tp
    assert matched > 0


def test_two_halves_of_a_nucleus_are_one_match_although_both_reach_one_half() -> None:
    """At 0.5 exactly, and only there, a nucleus has two partners; counting pairs would find two nuclei in one."""
    np.testing.assert_array_equal(iou_matrix(row("111111"), row("111222")), [[0.5, 0.5]])
    assert match(row("111111"), row("111222"), [0.5]) == [Match(0.5, 1, 0, 1)]
    assert match(row("111222"), row("111111"), [0.5]) == [Match(0.5, 1, 1, 0)]


def test_matching_gives_up_the_best_pair_where_that_makes_more_pairs() -> None:
    """Taking the highest IoU first (1/2) leaves both others alone, which are 1/3 and 2/7 with its partners."""
    prediction, truth = row("111111222"), row("22111111.")
    np.testing.assert_allclose(iou_matrix(prediction, truth), [[1 / 2, 1 / 3], [2 / 7, 0]])
    assert match(prediction, truth, [0.25]) == [Match(0.25, 2, 0, 0)]


@pytest.mark.parametrize(("threshold", "tp"), [(0.59, 1), (0.6, 1), (0.61, 0)])
def test_an_iou_equal_to_the_threshold_matches(threshold: float, tp: int) -> None:
    """3 of 5 pixels are 0.6; the comparison includes its limit, as StarDist's does."""
    assert match(row("11111"), row("111.."), [threshold]) == [Match(threshold, tp, 1 - tp, 1 - tp)]


def test_iou_has_a_row_for_each_prediction_and_a_column_for_each_truth() -> None:
    """Areas 6 and 3 against 5, 2 and 1: were background counted as a nucleus or areas swapped, no number would hold."""
    prediction, truth = row("111111..222."), row(".11111.22..3")
    expected = [[5 / 6, 0, 0], [0, 1 / 4, 0]]
    np.testing.assert_allclose(iou_matrix(prediction, truth), expected, rtol=1e-15)
    np.testing.assert_allclose(iou_matrix(truth, prediction), np.transpose(expected), rtol=1e-15)


def test_scores_count_every_kind_of_error_as_defined() -> None:
    """3 / (3 + 2 + 5), 3 / (3 + 2), 3 / (3 + 5) and 2 * 3 / (2 * 3 + 2 + 5)."""
    counts = Match(0.5, tp=3, fp=2, fn=5)
    assert counts.average_precision == pytest.approx(0.3)
    assert (counts.precision, counts.recall) == pytest.approx((0.6, 0.375))
    assert counts.f1 == pytest.approx(6 / 13)


def test_unmatched_predictions_are_false_positives_and_unmatched_truths_are_missed() -> None:
    """Two found (one only to 3/4), one invented, three missed: AP 2 / 6 and F1 4 / 8."""
    prediction, truth = row("11.2222..333......"), row("11.222.....44.5.66")
    half, strict = match(prediction, truth, [0.5, 0.8])
    assert half == Match(0.5, tp=2, fp=1, fn=3)
    assert (half.average_precision, half.f1) == pytest.approx((1 / 3, 1 / 2))
    assert strict == Match(0.8, tp=1, fp=2, fn=4)


def test_nothing_found_where_nothing_is_counts_as_perfect() -> None:
    """An empty field segmented as empty must not lower the mean over images, nor divide by zero."""
    empty = np.zeros((5, 7), np.int32)
    assert iou_matrix(empty, empty).shape == (0, 0)
    for found in match(empty, empty):
        assert (found.tp, found.fp, found.fn) == (0, 0, 0)
        assert (found.average_precision, found.precision, found.recall, found.f1) == (1, 1, 1, 1)


def test_an_empty_answer_or_an_empty_truth_scores_zero() -> None:
    """Everything is then missed, or everything invented, at every threshold."""
    nuclei, empty = row("11.22.3"), row(".......")
    assert match(empty, nuclei) == [Match(t, 0, 0, 3) for t in THRESHOLDS]
    assert match(nuclei, empty) == [Match(t, 0, 3, 0) for t in THRESHOLDS]
    for found in (match(empty, nuclei)[0], match(nuclei, empty)[0]):
        assert (found.average_precision, found.precision, found.recall, found.f1) == (0, 0, 0, 0)


def test_images_without_pixels_hold_no_nuclei() -> None:
    """A crop may be empty; its labels have no largest one."""
    nothing = np.zeros((0, 7), np.int32)
    assert match(nothing, nothing, [0.5]) == [Match(0.5, 0, 0, 0)]


@pytest.mark.parametrize("shape", [(7, 5), (5, 8), (35,)], ids=str)
def test_label_images_of_different_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Some of these have as many pixels as the other image and would compare unlike places."""
    with pytest.raises(ValueError, match="one shape"):
        match(np.ones((5, 7), np.int32), np.ones(shape, np.int32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_scores_do_not_depend_on_how_nuclei_are_numbered(dtype: type) -> None:
    """Ids only tell nuclei apart: other orders, gaps and types give the same counts, and gaps are no nuclei."""
    rng = np.random.default_rng(3)
    prediction, truth = stripes(rng, (5, 7)), stripes(rng, (5, 7))
    expected = match(prediction, truth)
    assert expected[0].tp > 0
    renumber = np.append(0, 255 - 7 * rng.permutation(35))
    assert match(renumber[prediction].astype(dtype), truth.astype(dtype)) == expected
    assert match(prediction.astype(dtype), renumber[truth].astype(dtype)) == expected


def test_ids_may_be_far_above_the_number_of_pixels() -> None:
    """Counting up to an id of 10**9 would take gigabytes; ids one apart must still stay apart."""
    rng = np.random.default_rng(5)
    prediction, truth = stripes(rng, (5, 7)), stripes(rng, (5, 7))
    huge = np.where(truth > 0, truth + 10**9, 0)
    np.testing.assert_array_equal(iou_matrix(prediction, huge), iou_matrix(prediction, truth))
    np.testing.assert_array_equal(iou_matrix(huge, prediction), iou_matrix(truth, prediction))


def test_an_image_full_of_huge_ids_has_no_background() -> None:
    """Where 0 does not occur, the smallest id must not take its place."""
    np.testing.assert_array_equal(iou_matrix(row("1122") + 10**9, row("1122") + 10**9), np.eye(2))
    np.testing.assert_array_equal(iou_matrix(row("1122"), row("1122")), np.eye(2))


def test_every_threshold_has_its_match_in_the_order_asked_for() -> None:
    """A higher threshold never finds more; without a choice they are 0.5 to 0.95 in steps of 0.05."""
    rng = np.random.default_rng(7)
    found = match(stripes(rng, (7, 11)), stripes(rng, (7, 11)))
    assert [m.threshold for m in found] == pytest.approx(np.arange(50, 100, 5) / 100)
    counts = [m.tp for m in found]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    assert [m.threshold for m in match(row("1"), row("1"), [0.9, 0.3])] == [0.9, 0.3]


def test_an_image_mean_weighs_images_and_a_pooled_score_weighs_nuclei() -> None:
    """AP 1 and 1/7 have the mean 4/7, while 4 / (4 + 2 + 4) is 2/5; F1 likewise 1 and 1/4 against 8/14, and so on."""
    small, crowded = Match(0.5, 3, 0, 0), Match(0.5, 1, 2, 4)
    (found,) = score([[small], [crowded]])
    assert (found.ap_image_mean, found.ap_pooled) == pytest.approx((4 / 7, 2 / 5))
    assert (found.precision_image_mean, found.precision_pooled) == pytest.approx((2 / 3, 4 / 6))
    assert (found.recall_image_mean, found.recall_pooled) == pytest.approx((3 / 5, 4 / 8))
    assert (found.f1_image_mean, found.f1_pooled) == pytest.approx((5 / 8, 4 / 7))
    assert (found.threshold, found.tp, found.fp, found.fn) == (0.5, 4, 2, 4)


def test_thresholds_are_summed_up_apart_from_each_other() -> None:
    """The matches of one image are a row; scores are made of columns."""
    images = [[Match(0.5, 5, 1, 0), Match(0.7, 3, 3, 2)], [Match(0.5, 2, 0, 7), Match(0.7, 1, 1, 8)]]
    found = score(iter(images))
    assert [(s.threshold, s.tp, s.fp, s.fn) for s in found] == [(0.5, 7, 1, 7), (0.7, 4, 4, 10)]


def test_no_images_have_no_scores_and_images_with_unlike_thresholds_are_refused() -> None:
    """Dropping the thresholds that only some images have would hide a mistake of the caller."""
    assert score([]) == []
    with pytest.raises(ValueError, match="shorter"):
        score([[Match(0.5, 1, 0, 0), Match(0.7, 1, 0, 0)], [Match(0.5, 1, 0, 0)]])


def test_mean_average_precision_is_over_thresholds_in_either_way_of_averaging() -> None:
    """Image means 4/7 and 1/2 * (2/3 + 1/8) against pooled 2/5 and 3/11."""
    images = [[Match(0.5, 3, 0, 0), Match(0.7, 2, 1, 0)], [Match(0.5, 1, 2, 4), Match(0.7, 1, 3, 4)]]
    scores = score(images)
    assert mean_average_precision(scores) == pytest.approx((4 / 7 + (2 / 3 + 1 / 8) / 2) / 2)
    assert mean_average_precision(scores, pooled=True) == pytest.approx((2 / 5 + 3 / 11) / 2)


def test_labels_that_doubles_cannot_tell_apart_stay_apart() -> None:
    """64-bit ids of a stitched slide must not pass through floating point."""
    labels = np.array([[2**60 + 1, 2**60 + 2]], np.uint64)
    np.testing.assert_array_equal(iou_matrix(labels, labels), np.eye(2))


def test_a_plane_of_many_nuclei_is_matched_without_a_table_of_all_pairs() -> None:
    """40 000 nuclei on each side would be a table of 12.8 GB."""
    labels = np.arange(1, 40_001).reshape(200, 200)
    assert [m.tp for m in match(labels, labels[::-1, ::-1], [0.5, 0.9])] == [40_000, 40_000]
