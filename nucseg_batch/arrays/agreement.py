"""How well the nuclei of an image, or of many, agree with their annotation: every value that `evaluate` reports.

The sums that all values come from are kept (`Agreement`), so that the agreement of many images is the sum of theirs:
a pooled value is that of all images seen as one, which weighs nuclei; an image mean weighs images. Definitions:

- average precision, precision, recall and F1 at IoU thresholds: see `metrics`; `mean_ap` is over thresholds .5 to .95.
- PQ, panoptic quality (Kirillov et al. 2019, arXiv:1801.00868), of pairs whose IoU is above one half: the sum of their
  IoU / (TP + FP / 2 + FN / 2). It is SQ, the mean IoU of these pairs, times RQ, their F1.
- AJI, aggregated Jaccard index (Kumar et al. 2017, doi:10.1109/TMI.2017.2677499): each truth takes the prediction of
  largest IoU (of equals the one with the lowest label); AJI is the sum of the shared pixels of these pairs / (the sum
  of their unions + the pixels of predictions that no truth took). As in that definition and in the authors' last
  program, several truths may take one prediction, and a truth that meets none adds its own pixels to the denominator.
- IoU and Dice of the foreground: shared / (either), and 2 shared / (sum of both), in pixels that belong to any nucleus.
- Count error: predicted - annotated nuclei; absolute: without its sign; relative: the absolute one / annotated nuclei.

Where there is nothing to find and nothing was found, agreement is perfect: every score is 1 and every count error 0.
Where only one side is empty every score is 0; SQ is 0 where no pair is above one half. The relative count error has no
value where nuclei were found in an image that has none, and is left out of the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.metrics import Match, Overlaps, Score, match_overlaps, overlaps, pool_matches, score

DETAILED = (0.5, 0.75)
"""IoU thresholds at which precision, recall and F1 are reported for each image."""


@dataclass(frozen=True)
class Agreement:
    """The sums that describe the agreement of one image, or of many together."""

    matches: tuple[Match, ...]
    """Matched and unmatched nuclei at each IoU threshold."""
    predicted: int
    """Predicted nuclei."""
    annotated: int
    """Annotated nuclei."""
    halves: int
    """Pairs whose IoU is above one half; a nucleus is in no more than one."""
    halves_iou: float
    """The sum of their IoU."""
    aji_shared: int
    """Pixels shared by truths and the predictions they took."""
    aji_union: int
    """Pixels of the unions of these pairs, of truths that met no prediction and of predictions that none took."""
    both: int
    """Pixels that are foreground in prediction and truth."""
    either: int
    """Pixels that are foreground in one or both."""

    @property
    def mean_ap(self) -> float:
        """Mean over thresholds of the average precision."""
        return float(np.mean([m.average_precision for m in self.matches]))

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the pairs above one half."""
        return self.halves_iou / self.halves if self.halves else float(self._empty)

    @property
    def rq(self) -> float:
        """Recognition quality: F1 of the pairs above one half."""
        return 1.0 if self._empty else 2 * self.halves / (self.predicted + self.annotated)

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return 1.0 if self._empty else 2 * self.halves_iou / (self.predicted + self.annotated)

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index."""
        return self.aji_shared / self.aji_union if self.aji_union else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union of the foreground."""
        return self.both / self.either if self.either else 1.0

    @property
    def dice(self) -> float:
        """Dice coefficient of the foreground."""
        return 2 * self.both / (self.both + self.either) if self.either else 1.0

    @property
    def count_error(self) -> int:
        """Predicted - annotated nuclei."""
        return self.predicted - self.annotated

    @property
    def count_error_relative(self) -> float | None:
        """The absolute count error / annotated nuclei; None where nuclei were found and there are none."""
        if not self.annotated:
            return None if self.predicted else 0.0
        return abs(self.count_error) / self.annotated

    @property
    def _empty(self) -> bool:
        return not self.predicted and not self.annotated

    def at(self, threshold: float) -> Match:
        """The counts at one of the thresholds."""
        return next(m for m in self.matches if m.threshold == threshold)

    def values(self) -> dict[str, float | int | None]:
        """Every value by name, always in the same order: counts and their errors, then scores."""
        found: dict[str, float | int | None] = {"annotated": self.annotated, "predicted": self.predicted}
        found |= {
            "count_error": self.count_error,
            "count_error_absolute": abs(self.count_error),
            "count_error_relative": self.count_error_relative,
            "mean_ap": self.mean_ap,
        }
        found |= {f"ap_{percent(m.threshold)}": m.average_precision for m in self.matches}
        for threshold in DETAILED:
            match = self.at(threshold)
            found |= {f"{name}_{percent(threshold)}": getattr(match, name) for name in ("precision", "recall", "f1")}
        return found | {name: getattr(self, name) for name in ("pq", "sq", "rq", "aji", "iou", "dice")}


@dataclass(frozen=True)
class Summary:
    """The agreement of several images, averaged in the two usual ways."""

    images: int
    """How many."""
    pooled: dict[str, float | int | None]
    """Values of all images seen as one, by name."""
    image_mean: dict[str, float | int | None]
    """Means of the images' values, by name; None where no image has the value."""
    scores: list[Score]
    """Counts and scores at each IoU threshold."""


def agreement(prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> Agreement:
    """Compares the label images of one image, (height, width) each; ValueError where their shapes differ."""
    return agreement_of(overlaps(prediction, truth))


def agreement_of(found: Overlaps) -> Agreement:
    """The agreement of one image, or of a stack, whose overlaps are known."""
    halves = found.iou > 0.5
    both = int(found.shared.sum())
    aji_shared, aji_union = _aji_sums(found)
    return Agreement(
        matches=tuple(match_overlaps(found)),
        predicted=found.predictions,
        annotated=found.truths,
        halves=int(halves.sum()),
        halves_iou=float(found.iou[halves].sum()),
        aji_shared=aji_shared,
        aji_union=aji_union,
        both=both,
        either=int(found.prediction_area.sum() + found.truth_area.sum()) - both,
    )


def _aji_sums(found: Overlaps) -> tuple[int, int]:
    """Numerator and denominator of the AJI, in pixels."""
    order = np.lexsort((found.prediction, -found.iou, found.truth))
    _, first = np.unique(found.truth[order], return_index=True)
    best = order[first]
    taken = found.prediction[best]
    unused = np.ones(found.predictions, bool)
    unused[taken] = False
    shared = int(found.shared[best].sum())
    area = found.truth_area.sum() + found.prediction_area[taken].sum() + found.prediction_area[unused].sum()
    return shared, int(area) - shared


def pool(images: Sequence[Agreement]) -> Agreement:
    """The agreement of several images seen as one; at least one image."""
    columns = zip(*(image.matches for image in images), strict=True)
    names = ("predicted", "annotated", "halves", "aji_shared", "aji_union", "both", "either")
    return Agreement(
        matches=tuple(pool_matches(column) for column in columns),
        halves_iou=math.fsum(image.halves_iou for image in images),
        **{name: sum(getattr(image, name) for image in images) for name in names},
    )


def summarise(images: Sequence[Agreement]) -> Summary:
    """Values of several images together, and the means of theirs; at least one image."""
    rows = [image.values() for image in images]
    means = {name: _mean(row[name] for row in rows) for name in rows[0]}
    return Summary(len(images), pool(images).values(), means, score(image.matches for image in images))


def _mean(values: Iterable[float | int | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def percent(threshold: float) -> int:
    """A threshold as names of values have it: 50 for 0.5."""
    return round(100 * threshold)
