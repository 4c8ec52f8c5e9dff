"""Threshold and smallest area of a trained network, chosen on the validation images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.metrics import Match, match, mean_average_precision, score
from nucseg_batch.network.model_file import Model, ModelInfo
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.callbacks import mean_scores, true_scale
from nucseg_batch.training.data import Sample

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))
"""Foreground thresholds that are tried."""
MIN_AREAS = (12, 30, 60)
"""Smallest areas of a nucleus, in pixels at the network's scale, that are tried with the best threshold."""
CLEAR_GAIN = 0.03
"""Gain in AP, times the root of the number of images, for which a fine-tuned model takes another value than its
start."""

Number = TypeVar("Number", int, float)


def tuned(
    model: Model, samples: list[Sample], settings: SegmentSettings, *, start: ModelInfo | None = None
) -> tuple[ModelInfo, list[NDArray[np.int32]]]:
    """The model's info with the threshold and then the smallest area that give the best AP(.5:.95) on `samples`.

    start: the model that training started from; its values are kept where others gain little (see CLEAR_GAIN), since a
    few images of one kind say little about other kinds. Also returns the labels found with the chosen values. The
    info's card holds the scores. Images are segmented at the scale that their annotation gives.
    """
    predictor = Predictor(model, settings)
    truths = [model.info.network.head.expected(s.truth) for s in samples]
    scales = [true_scale(s, predictor.diameter) for s in samples]
    heads = [predictor.heads(s.pixels, scale) for s, scale in zip(samples, scales, strict=True)]

    def tried(threshold: float, min_area: int) -> tuple[float, list[NDArray[np.int32]], list[list[Match]]]:
        found = [
            predictor.labels_of_heads(h, s.labels.shape, scale, threshold=threshold, min_area=min_area)
            for h, s, scale in zip(heads, samples, scales, strict=True)
        ]
        matches = [match(s.scored(one), truth) for one, s, truth in zip(found, samples, truths, strict=True)]
        return mean_scores(matches, samples)[1], found, matches

    gain = CLEAR_GAIN / math.sqrt(len(samples))
    usual = (None, None) if start is None else (start.threshold, start.min_area)
    threshold = _best(THRESHOLDS, usual[0], lambda one: tried(one, usual[1] or MIN_AREAS[0])[0], gain)
    min_area = _best(MIN_AREAS, usual[1], lambda one: tried(threshold, one)[0], gain)
    _, found, matches = tried(threshold, min_area)
    card: dict[str, Any] = {"threshold": threshold, "min_area": min_area, "images": len(samples)}
    kinds: dict[str, list[list[Match]]] = {"all": matches}
    several = len({s.collection for s in samples}) > 1
    for one, s in sorted(zip(matches, samples, strict=True), key=lambda pair: (pair[1].collection, pair[1].modality)):
        kinds.setdefault(f"{s.collection}, {s.modality}" if several else s.modality, []).append(one)
    for kind, some in kinds.items():
        scores = score(some)
        card[kind] = {"AP": round(mean_average_precision(scores), 4), "AP50": round(scores[0].ap_image_mean, 4)}
    return dataclasses.replace(model.info, threshold=threshold, min_area=min_area, card={"validation": card}), found


def _best(values: Sequence[Number], usual: Number | None, score: Callable[[Number], float], gain: float) -> Number:
    """The value with the best score, the first of equals; the usual one, if any, where that is not worse by `gain`."""
    scores: dict[Number, float] = {one: score(one) for one in (*values, *(() if usual is None else (usual,)))}
    best = max(scores.items(), key=lambda item: item[1])[0]
    return best if usual is None or scores[best] > scores[usual] + gain else usual
