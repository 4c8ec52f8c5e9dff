"""Which predicted nuclei match annotated ones, and the scores that count matches.

Matching is one to one, by intersection over union (IoU), and maximises the number of matched pairs, as in StarDist's
`matching` and the 2018 Data Science Bowl. With TP matched pairs, FP unmatched predictions and FN unmatched truths,
average precision at a threshold is TP / (TP + FP + FN) (Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7; StarDist
calls it accuracy), precision is TP / (TP + FP), recall is TP / (TP + FN) and F1, their harmonic mean, is
2 TP / (2 TP + FP + FN). All are 1 where there is nothing to find and nothing was found, and 0 where only one side is
empty. What does not count matches (PQ, AJI, pixels, counts) is in `agreement`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

THRESHOLDS: tuple[float, ...] = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Match:
    """Counts for one image at one threshold, or their sum over images."""

    threshold: float
    """IoU from which a pair may match."""
    tp: int
    """Matched pairs."""
    fp: int
    """Predictions without a partner."""
    fn: int
    """Truths without a partner."""

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP), the part of predictions that is right; without any, 1 if there is nothing to find, else 0."""
        total = self.tp + self.fp
        return self.tp / total if total else float(not self.fn)

    @property
    def recall(self) -> float:
        """TP / (TP + FN), the part of truths that is found; without any, 1 if nothing was found, else 0."""
        total = self.tp + self.fn
        return self.tp / total if total else float(not self.fp)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 where there is nothing to find and nothing was found."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0


@dataclass(frozen=True)
class Score:
    """Agreement over a set of images at one threshold, averaged in the two usual ways."""

    threshold: float
    """IoU from which a pair may match."""
    ap_image_mean: float
    """Mean over images of each image's average precision."""
    ap_pooled: float
    """Average precision of the counts of all images together."""
    precision_image_mean: float
    """Mean over images of each image's precision."""
    precision_pooled: float
    """Precision of the counts of all images together."""
    recall_image_mean: float
    """Mean over images of each image's recall."""
    recall_pooled: float
    """Recall of the counts of all images together."""
    f1_image_mean: float
    """Mean over images of each image's F1."""
    f1_pooled: float
    """F1 of the counts of all images together."""
    tp: int
    """Matched pairs in all images."""
    fp: int
    """Predictions without a partner in all images."""
    fn: int
    """Truths without a partner in all images."""


@dataclass(frozen=True)
class Overlaps:
    """Which predicted and annotated nuclei share pixels; all that scores need, however many nuclei there are."""

    prediction_area: NDArray[np.int64]
    """(predictions,) pixels of each predicted nucleus, in order of their labels."""
    truth_area: NDArray[np.int64]
    """(truths,) pixels of each annotated nucleus."""
    prediction: NDArray[np.intp]
    """For each pair that overlaps the place of its prediction among all, in order of their labels."""
    truth: NDArray[np.intp]
    """For each pair the place of its truth."""
    shared: NDArray[np.int64]
    """For each pair how many pixels both cover."""
    iou: NDArray[np.float64]
    """For each pair its intersection over union."""

    @property
    def predictions(self) -> int:
        """Predicted nuclei."""
        return self.prediction_area.size

    @property
    def truths(self) -> int:
        """Annotated nuclei."""
        return self.truth_area.size


def overlaps(prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> Overlaps:
    """Finds the pairs of nuclei of two label images, of any one shape, that share pixels.

    Numbers only tell nuclei apart: 0 is background, gaps are no nuclei. Raises ValueError where the two label
    images differ in shape.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"label images must have one shape, but are {prediction.shape} and {truth.shape}.")
    a, predictions = _numbered(prediction)
    b, truths = _numbered(truth)
    area_a, area_b = np.bincount(a, minlength=predictions + 1), np.bincount(b, minlength=truths + 1)
    both = (a > 0) & (b > 0)
    pairs, shared = np.unique(a[both] * (truths + 1) + b[both], return_counts=True)
    first, second = np.divmod(pairs, truths + 1)
    iou = shared / (area_a[first] + area_b[second] - shared)
    return Overlaps(area_a[1:], area_b[1:], first - 1, second - 1, shared, iou)


def _numbered(labels: NDArray[np.integer]) -> tuple[NDArray[np.intp], int]:
    """Labels as 0..n without gaps, flat, and n."""
    flat = labels.ravel()
    if not flat.size or int(flat.max()) > max(flat.size, 2**16):
        ids, numbers = np.unique(np.append(flat, flat.dtype.type(0)), return_inverse=True)
        return numbers[:-1].astype(np.intp), ids.size - 1
    flat = flat.astype(np.intp, copy=False)
    present = np.bincount(flat, minlength=1) > 0
    present[0] = True
    return (np.cumsum(present) - 1)[flat], int(present.sum()) - 1


def match(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], thresholds: Sequence[float] = THRESHOLDS
) -> list[Match]:
    """Matches the nuclei of one image, (height, width) each, at every threshold; ValueError where shapes differ."""
    return match_overlaps(overlaps(prediction, truth), thresholds)


def match_overlaps(found: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> list[Match]:
    """Matches the nuclei of one image, whose overlaps are known, at every threshold."""
    matches = []
    for threshold in thresholds:
        tp = _largest_matching(found, found.iou >= threshold, unique=threshold > 0.5)
        matches.append(Match(threshold, tp, found.predictions - tp, found.truths - tp))
    return matches


def _largest_matching(found: Overlaps, possible: NDArray[np.bool_], *, unique: bool) -> int:
    """How many pairs can match at once; above an IoU of one half no nucleus is in two pairs, so all can."""
    if unique or not possible.any():
        return int(possible.sum())
    shape = (found.predictions, found.truths)
    places = (found.prediction[possible].astype(np.int32), found.truth[possible].astype(np.int32))
    pairs = csr_array((possible[possible], places), shape=shape)
    return int((maximum_bipartite_matching(pairs, perm_type="column") >= 0).sum())


def score(images: Iterable[Sequence[Match]]) -> list[Score]:
    """Summarises the matches of several images, one Score for each threshold; no images give an empty list."""
    return [_score(column) for column in zip(*images, strict=True)]


def _score(images: Sequence[Match]) -> Score:
    pooled = pool_matches(images)
    both: dict[str, float] = {}
    for short, name in (("ap", "average_precision"), ("precision", "precision"), ("recall", "recall"), ("f1", "f1")):
        both[f"{short}_image_mean"] = float(np.mean([getattr(m, name) for m in images]))
        both[f"{short}_pooled"] = getattr(pooled, name)
    return Score(threshold=pooled.threshold, tp=pooled.tp, fp=pooled.fp, fn=pooled.fn, **both)


def pool_matches(images: Sequence[Match]) -> Match:
    """The counts of several images at one threshold, together; at least one image."""
    tp, fp, fn = (sum(getattr(m, name) for m in images) for name in ("tp", "fp", "fn"))
    return Match(images[0].threshold, tp, fp, fn)


def mean_average_precision(scores: Sequence[Score], *, pooled: bool = False) -> float:
    """AP(.5:.95): the mean over thresholds of the average precision, per-image mean or pooled."""
    return float(np.mean([s.ap_pooled if pooled else s.ap_image_mean for s in scores]))
