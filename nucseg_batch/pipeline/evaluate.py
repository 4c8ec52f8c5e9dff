"""Compares predicted with annotated label images: per image, per group of images, and over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.agreement import Agreement, Summary, agreement, agreement_of, pool, summarise
from nucseg_batch.arrays.stack_overlaps import stack_overlaps
from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.errors import ImageError, InputMissingError
from nucseg_batch.files.annotations import (
    Annotation,
    AnnotationIndex,
    LabelImage,
    LabelStack,
    empty_stack,
    find_label_images,
    read_index,
)
from nucseg_batch.files.annotations import find_index as nearest_index
from nucseg_batch.files.names import printable
from nucseg_batch.pipeline.pairing import pair
from nucseg_batch.plan import Assumption, PlaneStatus, doubt_error, merged

ALL = "all"
"""Name of the group of all images."""
UNUSABLE_SHOWN = 10
"""Unusable label images that an error names."""


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
    """Lines on how images were paired and what was left out, where that needs saying."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of the label images and of how they pair."""
    volumes: bool = False
    """Whether volumes of z-stacks were compared: nuclei are then volumes, and pixels voxels."""

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
        those without a prediction; `notes` are lines to read; `assumptions` what was assumed of the label images;
        `compared` is `nuclei`, or `volumes` of z-stacks.
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
        return {"groups": groups, "images": images, "missing": missing, "notes": list(self.notes)} | {
            "assumptions": [asdict(one) for one in self.assumptions],
            "compared": VOLUMES if self.volumes else NUCLEI_LABEL,
        }

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
            status = PlaneStatus.OK if result.predicted else PlaneStatus.MISSING
            yield {"image": result.image, "group": result.group, "status": status} | result.agreement.values()


def evaluate(
    prediction: Path,
    truth: Path,
    *,
    index: Path | None,
    group: str,
    progress: Callable[[int, int], None],
    strict: bool = False,
    volumes: bool = False,
) -> Evaluation:
    """Compares every annotated image with its prediction; `files.annotations` says what PRED and TRUTH may be.

    volumes: label images are z-stacks in which a nucleus has one label in all slices, and are compared voxel by voxel,
    slice after slice. Time points of an image are compared one by one, and count together.

    `index` is a CSV with columns `id` (an image's name, without suffix and with or without its folder) and `group`;
    images it does not name are in no group but `all`. `progress` is told how many images of all are done. Raises
    InputMissingError where PRED, TRUTH or the index is not there, ImageError where label images cannot be read, are no
    labels or differ from their truth in shape, NothingToDoError where PRED or TRUTH holds no label image or no name is
    on both sides, UsageError where a name is there twice, and DoubtfulInputError where `strict` forbids what would be
    assumed.
    """
    label = VOLUMES if volumes else NUCLEI_LABEL
    truths, predictions = find_label_images(truth, "TRUTH", label), find_label_images(prediction, "PRED", label)
    compare = _compare_stacks if volumes else _compare
    pairing = pair(predictions.images, truths.images)
    groups = _Groups(index, group)
    results: list[ImageResult] = []
    unusable: list[str] = []
    assumed: dict[str, list[Assumption]] = {"TRUTH": [], "PRED": []}
    for done, (annotated, predicted) in enumerate(pairing.pairs, start=1):
        try:
            found = compare(annotated, predicted, assumed)
        except ImageError as error:
            unusable.append(str(error))
        else:
            results.append(ImageResult(annotated.name, groups.of(annotated), predicted is not None, found))
        progress(done, len(truths.images))
    if unusable:
        raise ImageError(_told(unusable, len(truths.images)))
    sides = [replace(one, example=f"{side} {one.example}") for side in assumed for one in merged(assumed[side])]
    known = (*pairing.assumptions, *sides)
    if strict and (refusal := doubt_error(known)):
        raise refusal
    members: dict[str, list[Agreement]] = {ALL: [result.agreement for result in results]}
    for result in sorted(results, key=lambda result: result.group):
        if result.group:
            key = f"{group} {result.group}" if result.group == ALL else result.group
            members.setdefault(key, []).append(result.agreement)
    notes = [f"PRED: {note}" for note in predictions.notes] + [f"TRUTH: {note}" for note in truths.notes]
    summaries = {key: summarise(found) for key, found in members.items()}
    return Evaluation(tuple(results), summaries, (*notes, *pairing.notes), known, volumes)


def _told(unusable: Sequence[str], count: int) -> str:
    """One line on all label images that cannot be used."""
    if len(unusable) == 1:
        return unusable[0]
    more = f"; and {len(unusable) - UNUSABLE_SHOWN} more" if len(unusable) > UNUSABLE_SHOWN else ""
    return f"{len(unusable)} of {count} images cannot be compared: {'; '.join(unusable[:UNUSABLE_SHOWN])}{more}"


def _compare(truth: LabelImage, prediction: LabelImage | None, assumed: Mapping[str, list[Assumption]]) -> Agreement:
    """The agreement of one image; without a prediction nothing was found. `assumed` gets what was assumed."""
    annotated = truth.read()
    predicted = prediction.read() if prediction is not None else Annotation(np.zeros(annotated.labels.shape, np.int32))
    if predicted.labels.shape != annotated.labels.shape:
        raise ImageError(
            f"{truth.name}: the prediction is {predicted.labels.shape} pixels and the truth {annotated.labels.shape}; "
            "masks of the very images that were annotated are needed."
        )
    assumed["TRUTH"].extend(replace(one, example=truth.name) for one in annotated.assumptions)
    if prediction is not None:
        assumed["PRED"].extend(replace(one, example=prediction.name) for one in predicted.assumptions)
    return agreement(predicted.labels, annotated.labels)


def _compare_stacks(
    truth: LabelImage, prediction: LabelImage | None, assumed: Mapping[str, list[Assumption]]
) -> Agreement:
    """The agreement of the volumes of one stack, or of the stacks of several time points."""
    annotated = _opened(truth)
    predicted = empty_stack(annotated) if prediction is None else _opened(prediction)
    if predicted.shape != annotated.shape:
        raise ImageError(
            f"{truth.name}: the prediction has {_size(predicted)}, and the truth {_size(annotated)}; masks of the very "
            "images that were annotated are needed."
        )
    times, depth, *_ = annotated.shape
    found = []
    for t in range(times):
        slices = (_slice(predicted, prediction or truth, t, z) for z in range(depth))
        pairs = ((one, _slice(annotated, truth, t, z)) for z, one in enumerate(slices))
        found.append(agreement_of(stack_overlaps(pairs)))
    agreed = pool(found)
    for side, image, stack, count in (
        ("TRUTH", truth, annotated, agreed.annotated),
        ("PRED", prediction, predicted, agreed.predicted),
    ):
        if image is not None:
            doubt = (_ONE_LABEL,) if count == 1 else ()
            assumed[side].extend(replace(one, example=image.name) for one in (*stack.assumptions, *doubt))
    return agreed


_ONE_LABEL = Assumption(
    kind="labels",
    what="its only label is read as one nucleus",
    evidence="a binary mask looks like that, too",
    option="provide label stacks with one number per nucleus",
    doubtful=True,
)


def _opened(image: LabelImage) -> LabelStack:
    if image.stack is None:
        raise ImageError(f"{image.name}: this is no label stack.")
    return image.stack()


def _slice(stack: LabelStack, image: LabelImage, t: int, z: int) -> NDArray[Any]:
    try:
        return stack.read(t, z)
    except ImageError as error:
        raise ImageError(f"{image.name}: {error}") from error


def _size(stack: LabelStack) -> str:
    times, depth, height, width = stack.shape
    over = f" at {times} time points" if times > 1 else ""
    return f"{depth} slice{'s' * (depth != 1)} of {height} x {width} pixels{over}"


def find_index(truth: Path, group: str) -> Path | None:
    """The nearest index.csv in TRUTH or the folders above it, if it has the columns id and `group`."""
    path = nearest_index(truth)
    return path if path is not None and {"id", group} <= set(read_index(path).columns) else None


class _Groups:
    """Groups of images, as an index says."""

    def __init__(self, path: Path | None, group: str) -> None:
        self._group = group
        self._index = None if path is None else _index(path, group)

    def of(self, image: LabelImage) -> str:
        """The group of an image, by its name or another name that means it; empty where the index says nothing."""
        if self._index is None:
            return ""
        rows = (self._index.row(name) for name in (image.name, *image.aliases))
        return next((row.get(self._group) or "" for row in rows if row), "")


def _index(path: Path, group: str) -> AnnotationIndex:
    if not path.is_file():
        raise InputMissingError(f"--index {path}: there is no such file.")
    index = read_index(path)
    if not {"id", group} <= set(index.columns):
        found = ", ".join(index.columns) or "none at all"
        raise InputMissingError(f"--index {path}: it has no columns id and {group}, but {found}; see --group.")
    return index
