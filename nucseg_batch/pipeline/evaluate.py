"""Compares predicted with annotated label images: per image, per group of images, and over all of them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nucseg_batch.arrays.agreement import Agreement, Summary, agreement, summarise
from nucseg_batch.errors import ImageError, InputMissingError
from nucseg_batch.files.names import printable
from nucseg_batch.pipeline.label_images import LabelImage, find_label_images
from nucseg_batch.pipeline.pairing import pair

ALL = "all"
"""Name of the group of all images."""
INDEX_LEVELS = 2
"""Folders above TRUTH in which an index.csv is looked for."""


@dataclass(frozen=True)
class ImageResult:
    """The agreement of one annotated image with its prediction."""

    image: str
    """Name of the truth: its path below TRUTH without suffix."""
    group: str
    """What the index says of it; empty where it says nothing."""
    predicted: bool
    """Whether there is a prediction; without one nothing was found."""
    agreement: Agreement
    """How well they agree."""


@dataclass(frozen=True)
class Evaluation:
    """Agreement of two sets of label images."""

    images: tuple[ImageResult, ...]
    """One for each annotated image, by name."""
    groups: Mapping[str, Summary]
    """Values by group; `all` is always there, and first."""
    notes: tuple[str, ...]
    """Lines on how images were paired, where that needs saying."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Annotated images without a prediction; all their nuclei count as not found."""
        return tuple(result.image for result in self.images if not result.predicted)

    def worst(self, count: int) -> list[ImageResult]:
        """The images of the lowest mean average precision, the lowest first; of equals by name."""
        return sorted(self.images, key=lambda result: (result.agreement.mean_ap, result.image))[:count]

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain data.

        `groups` has, by name of group, `images` (how many), `pooled` and `image_mean` (values by name) and `thresholds`
        (counts and scores at each IoU threshold); `images` has a record for each image, as `rows`; `missing` names
        those without a prediction; `notes` are lines to read.
        """
        groups = {
            name: {
                "images": summary.images,
                "pooled": summary.pooled,
                "image_mean": summary.image_mean,
                "thresholds": [vars(score) for score in summary.scores],
            }
            for name, summary in self.groups.items()
        }
        images = [row | {"image": printable(row["image"])} for row in self.rows()]
        missing = [printable(name) for name in self.missing]
        return {"groups": groups, "images": images, "missing": missing, "notes": list(self.notes)}

    def rows(self) -> Iterator[dict[str, Any]]:
        """A record for each image: the columns of --csv.

        - `image`: path below TRUTH without suffix; `group`: what the index says of it, or empty;
        - `status`: `ok`, or `missing` where there is no prediction and all nuclei count as not found;
        - `annotated`, `predicted`: numbers of nuclei; `count_error` is predicted - annotated, `count_error_absolute` is
          without its sign, `count_error_relative` is that / annotated (None where there are none but some were found);
        - `mean_ap`, and `ap_50` to `ap_95`: average precision over, and at, IoU thresholds of .50 to .95;
        - `precision_50`, `recall_50`, `f1_50`, `precision_75`, `recall_75`, `f1_75`: at IoU thresholds of .50 and .75;
        - `pq`, `sq`, `rq`: panoptic quality and its factors; `aji`: aggregated Jaccard index;
        - `iou`, `dice`: of the foreground.

        `arrays.agreement` defines them all.
        """
        for result in self.images:
            status = "ok" if result.predicted else "missing"
            yield {"image": result.image, "group": result.group, "status": status} | result.agreement.values()


def evaluate(
    prediction: Path, truth: Path, *, index: Path | None, group: str, progress: Callable[[int, int], None]
) -> Evaluation:
    """Compares every annotated image with its prediction; `label_images` says what PRED and TRUTH may be.

    `index` is a CSV with columns `id` (an image's name, without suffix and with or without its folder) and `group`;
    images it does not name are in no group but `all`. `progress` is told how many images of all are done. Raises
    InputMissingError where PRED, TRUTH or the index is not there, ImageError for a label image that cannot be read or
    differs from its truth in shape, NothingToDoError where PRED or TRUTH holds no label image or no name is on both
    sides, and UsageError where a name is there twice.
    """
    truths = find_label_images(truth, "TRUTH")
    pairing = pair(find_label_images(prediction, "PRED"), truths)
    index_groups = _groups(index, group)
    results = []
    for done, (annotated, predicted) in enumerate(pairing.pairs, start=1):
        name = annotated.name
        kind = index_groups.get(name) or index_groups.get(PurePosixPath(name).name, "")
        results.append(ImageResult(name, kind, predicted is not None, _compare(annotated, predicted)))
        progress(done, len(truths))
    members: dict[str, list[Agreement]] = {ALL: [result.agreement for result in results]}
    for result in sorted(results, key=lambda result: result.group):
        if result.group:
            key = f"{group} {result.group}" if result.group == ALL else result.group
            members.setdefault(key, []).append(result.agreement)
    return Evaluation(tuple(results), {key: summarise(found) for key, found in members.items()}, pairing.notes)


def _compare(truth: LabelImage, prediction: LabelImage | None) -> Agreement:
    """The agreement of one image; without a prediction nothing was found."""
    annotated = truth.read()
    predicted = prediction.read() if prediction is not None else np.zeros(annotated.shape, np.int32)
    if predicted.shape != annotated.shape:
        raise ImageError(
            f"{truth.name}: the prediction is {predicted.shape} pixels and the truth {annotated.shape}; masks of the "
            "very images that were annotated are needed."
        )
    return agreement(predicted, annotated)


def find_index(truth: Path, group: str) -> Path | None:
    """The nearest index.csv in TRUTH or up to INDEX_LEVELS folders above it, if it has the columns id and `group`."""
    places = [truth.resolve(), *truth.resolve().parents]
    for place in places[: INDEX_LEVELS + 1]:
        path = place / "index.csv"
        if path.is_file():
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                header = next(csv.reader(file), [])
            return path if {"id", group} <= set(header) else None
    return None


def _groups(index: Path | None, group: str) -> dict[str, str]:
    """Groups by name of image."""
    if index is None:
        return {}
    if not index.is_file():
        raise InputMissingError(f"--index {index}: there is no such file.")
    with open(index, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        if not {"id", group} <= set(columns):
            found = ", ".join(columns) or "none at all"
            raise InputMissingError(f"--index {index}: it has no columns id and {group}, but {found}; see --group.")
        return {row["id"]: row[group] or "" for row in rows}
