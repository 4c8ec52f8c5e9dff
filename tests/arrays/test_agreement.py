from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nucseg_batch.arrays.agreement import Agreement, agreement, pool, summarise
from nucseg_batch.arrays.metrics import THRESHOLDS, match

SHAPE = (11, 17)
EMPTY = np.zeros(SHAPE, np.int32)
MANY = np.zeros(SHAPE, np.int32)
MANY[2:5, 3:8], MANY[7:9, 1:4], MANY[7:10, 9:15] = 1, 2, 3


def row(text: str) -> np.ndarray:
    """A label image one pixel high: digits are labels, anything else is background."""
    return np.array([[int(c) if c.isdigit() else 0 for c in text]], np.int32)


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """A label image of rectangles that hide parts of each other, with gaps between their numbers."""
    labels = np.zeros(SHAPE, np.int32)
    for number in rng.permutation(3 * count)[:count] + 1:
        y, x = rng.integers(0, SHAPE[0] - 1), rng.integers(0, SHAPE[1] - 1)
        labels[y : y + rng.integers(1, 6), x : x + rng.integers(1, 8)] = number
    return labels


def altered(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """A prediction of some truth: moved by a pixel, with nuclei missing, merged and invented."""
    found = np.roll(labels, rng.integers(-1, 2), axis=rng.integers(0, 2))
    ids = [int(i) for i in np.unique(found[found > 0])]
    if len(ids) > 2:
        found[found == ids[0]] = ids[1]
        found[found == ids[2]] = 0
    found[: rng.integers(0, 3), -3:] = 99
    return found


def random_images() -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and truths: alike, unrelated, and empty on either side or both."""
    rng = np.random.default_rng(29)
    truths = [boxes(rng, int(rng.integers(1, 14))) for _ in range(40)]
    related = [(altered(rng, truth), truth) for truth in truths]
    unrelated = [(boxes(rng, 7), truth) for truth in truths[:10]]
    return [*related, *unrelated, (EMPTY, truths[0]), (truths[0], EMPTY), (EMPTY, EMPTY), (truths[1], truths[1])]


IMAGES = random_images()


def objects(labels: np.ndarray) -> list[set[tuple[int, int]]]:
    """Each nucleus as the set of its pixels, in order of the labels."""
    found: dict[int, set[tuple[int, int]]] = {}
    for y, line in enumerate(labels.tolist()):
        for x, label in enumerate(line):
            if label:
                found.setdefault(label, set()).add((y, x))
    return [found[label] for label in sorted(found)]


def ratio(numerator: Fraction | int, denominator: Fraction | int, *, both_empty: bool) -> Fraction:
    """A score: 1 where both images are empty, 0 where nothing is to be divided."""
    if both_empty:
        return Fraction(1)
    return Fraction(numerator) / denominator if denominator else Fraction(0)


def reference(prediction: np.ndarray, truth: np.ndarray) -> dict[str, Fraction | int | None]:
    """All values that do not depend on IoU thresholds, by loops over nuclei as sets, from the papers' own formulas."""
    predicted, annotated = objects(prediction), objects(truth)
    empty = not predicted and not annotated
    ious = [Fraction(len(p & t), len(p | t)) for p in predicted for t in annotated]
    pairs = [iou for iou in ious if iou > Fraction(1, 2)]
    fp, fn = len(predicted) - len(pairs), len(annotated) - len(pairs)
    shared, union, used = 0, 0, set()
    for t in annotated:
        best, best_iou = None, Fraction(0)
        for number, p in enumerate(predicted):
            iou = Fraction(len(p & t), len(p | t))
            if iou > best_iou:
                best, best_iou = number, iou
        if best is None:
            union += len(t)
        else:
            shared, union = shared + len(predicted[best] & t), union + len(predicted[best] | t)
            used.add(best)
    union += sum(len(p) for number, p in enumerate(predicted) if number not in used)
    a, b = set().union(*predicted), set().union(*annotated)
    error = len(predicted) - len(annotated)
    relative = Fraction(abs(error), len(annotated)) if annotated else (0 if empty else None)
    return {
        "annotated": len(annotated),
        "predicted": len(predicted),
        "count_error": error,
        "count_error_absolute": abs(error),
        "count_error_relative": relative,
        "pq": ratio(sum(pairs), len(pairs) + Fraction(fp, 2) + Fraction(fn, 2), both_empty=empty),
        "sq": ratio(sum(pairs), len(pairs), both_empty=empty),
        "rq": ratio(len(pairs), len(pairs) + Fraction(fp, 2) + Fraction(fn, 2), both_empty=empty),
        "aji": ratio(shared, union, both_empty=empty),
        "iou": ratio(len(a & b), len(a | b), both_empty=empty),
        "dice": ratio(2 * len(a & b), len(a) + len(b), both_empty=empty),
    }


def test_values_are_those_of_loops_over_nuclei() -> None:
    """On images that are alike, unrelated and empty; IoU, PQ and AJI come from a sparse table instead of such loops."""
    shown = set()
    for prediction, truth in IMAGES:
        values, expected = agreement(prediction, truth).values(), reference(prediction, truth)
        for name, value in expected.items():
            assert values[name] == (None if value is None else pytest.approx(float(value), abs=1e-12)), name
        shown.add(0 < expected["pq"] < expected["sq"] < 1 and 0 < expected["aji"] < expected["iou"])
    assert shown == {True, False}


def test_values_at_thresholds_are_those_of_matching() -> None:
    """`match` is tested against every assignment; here names, thresholds and the mean must not be mixed up."""
    for prediction, truth in IMAGES:
        values, matches = agreement(prediction, truth).values(), match(prediction, truth)
        precisions = [m.average_precision for m in matches]
        assert [values[f"ap_{p}"] for p in range(50, 100, 5)] == precisions
        assert values["mean_ap"] == pytest.approx(sum(precisions) / len(THRESHOLDS))
        for percent, m in ((50, matches[0]), (75, matches[5])):
            names = [f"{name}_{percent}" for name in ("precision", "recall", "f1")]
            assert [values[name] for name in names] == [m.precision, m.recall, m.f1]


def test_panoptic_quality_leaves_out_pairs_of_exactly_one_half() -> None:
    """Its matching is unique only above one half, while AP at .5 includes the limit."""
    found = agreement(row("1111.22"), row("11...22"))
    assert found.at(0.5).tp == 2
    assert (found.halves, found.pq, found.sq, found.rq) == (1, 0.5, 1, 0.5)


def test_one_prediction_over_two_nuclei_is_taken_twice_by_the_aggregated_jaccard_index() -> None:
    """As in Kumar et al.: 3 + 2 shared pixels over unions of 6 and 6; were it used up, 3 over 6 + 2."""
    assert agreement(row("111111."), row("111.22.")).aji == pytest.approx(5 / 12)


def test_what_nobody_took_and_what_met_nothing_lower_the_aggregated_jaccard_index() -> None:
    """2 shared over 3 + a missed nucleus of 1 + an unused one of 2 + an invented one of 4."""
    assert agreement(row("11223333.."), row("111......4")).aji == pytest.approx(2 / 10)


def test_the_first_of_equal_predictions_is_taken_whatever_the_order_of_pairs() -> None:
    """1 and 2 share half of the nucleus each; 1 counts, and 2 is unused: 2 / (4 + 2)."""
    assert agreement(row("1122."), row("3333.")).aji == agreement(row("2211."), row("3333.")).aji == 2 / 6


def test_foreground_does_not_see_how_nuclei_are_divided() -> None:
    """4 pixels of both over 5 + 1; twice 4 over 5 + 5."""
    found = agreement(row("11234.."), row("1222.2."))
    assert (found.iou, found.dice) == pytest.approx((4 / 6, 8 / 10))


def test_empty_images_are_perfect_and_one_sided_ones_score_nothing() -> None:
    """An empty field must not divide by zero; how many nuclei too many there are has no ratio to none."""
    both, missed, invented = (agreement(p, t).values() for p, t in ((EMPTY, EMPTY), (EMPTY, MANY), (MANY, EMPTY)))
    counts = {name for name in both if name.startswith("count_error")} | {"annotated", "predicted"}
    assert {both[name] for name in counts} == {0}
    assert {both[name] for name in both.keys() - counts} == {1}
    for values in (missed, invented):
        assert {values[name] for name in values.keys() - counts} == {0}
    assert (missed["count_error"], missed["count_error_relative"]) == (-3, 1)
    assert (invented["count_error"], invented["count_error_relative"]) == (3, None)


def test_pooled_values_are_those_of_all_images_side_by_side() -> None:
    """Pooling sums counts and pixels, so that one wide image with all nuclei must have the same values."""
    prediction, truth, shift = [], [], 0
    for p, t in IMAGES:
        prediction.append(np.where(p > 0, p + shift, 0))
        truth.append(np.where(t > 0, t + shift, 0))
        shift += 200
    expected = agreement(np.hstack(prediction), np.hstack(truth)).values()
    pooled = pool([agreement(p, t) for p, t in IMAGES]).values()
    assert pooled == pytest.approx(expected, rel=1e-12)
    assert 0 < pooled["pq"] < 1


def test_image_means_weigh_images_and_leave_out_what_has_no_value() -> None:
    """Perfect, missed and invented: scores 1, 0, 0; relative errors 0, 1 and none."""
    images = [agreement(p, t) for p, t in ((MANY, MANY), (EMPTY, MANY), (MANY, EMPTY))]
    summary = summarise(images)
    assert summary.images == 3
    assert (summary.image_mean["pq"], summary.image_mean["mean_ap"]) == pytest.approx((1 / 3, 1 / 3))
    assert (summary.image_mean["count_error"], summary.image_mean["count_error_absolute"]) == (0, 2)
    assert (summary.image_mean["count_error_relative"], summary.pooled["count_error_relative"]) == (0.5, 0)
    assert summarise(images[2:]).image_mean["count_error_relative"] is None
    assert [(s.threshold, s.tp) for s in summary.scores] == [(t, 3) for t in THRESHOLDS]


def test_a_summary_names_its_values_as_an_image_does() -> None:
    """Tables put means and pooled values in one column."""
    found: Agreement = agreement(MANY, MANY)
    assert list(summarise([found]).pooled) == list(summarise([found]).image_mean) == list(found.values())


def test_label_images_of_different_shapes_are_refused() -> None:
    """Else unlike places would be compared."""
    with pytest.raises(ValueError, match="one shape"):
        agreement(MANY, MANY.T)
