"""Compares predicted with annotated label images: a run's masks, or a folder of label images, against such a folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from nucseg_batch.arrays.metrics import Match, Score, match, mean_average_precision, score
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.images import IMAGE_SUFFIXES, read_image
from nucseg_batch.files.mask_store import open_masks

T = TypeVar("T")
MAX_PIXELS = 2**31
"""Label images with more pixels are refused."""
INDEX_LEVELS = 2
"""Folders above TRUTH in which an index.csv is looked for."""


@dataclass(frozen=True)
class Evaluation:
    """Agreement of two sets of label images."""

    groups: Mapping[str, list[Score]]
    """Scores by group; `all` is always there."""
    counts: Mapping[str, int]
    """Images in each group."""
    missing: tuple[str, ...]
    """Annotated images without a prediction; all their nuclei count as not found."""

    def as_json(self) -> dict[str, Any]:
        """The evaluation as plain data, with both averages under their names."""
        groups = {
            name: {
                "images": self.counts[name],
                "AP_50_95_image_mean": mean_average_precision(scores),
                "AP_50_95_pooled": mean_average_precision(scores, pooled=True),
                "thresholds": [vars(s) for s in scores],
            }
            for name, scores in self.groups.items()
        }
        return {"groups": groups, "missing": list(self.missing)}


def evaluate(
    prediction: Path, truth: Path, *, index: Path | None, group: str, progress: Callable[[int, int], None]
) -> Evaluation:
    """Matches every annotated image with its prediction by name without suffix.

    `index` is a CSV with columns `id` (an image's name without folder and suffix) and `group`; images it does not name
    are in no group but `all`. Raises InputMissingError where PRED, TRUTH or the index is not there, ImageError for a
    label image that cannot be read, and NothingToDoError where no name is on both sides.
    """
    truths = _label_files(truth)
    predictions = _predictions(prediction)
    if not truths.keys() & predictions.keys():
        raise NothingToDoError(
            f"PRED {prediction} ({len(predictions)} images) and TRUTH {truth} ({len(truths)}) share no image name."
        )
    groups = _groups(index, group)
    matches: dict[str, list[list[Match]]] = {"all": []}
    missing = []
    for done, (name, path) in enumerate(sorted(truths.items()), start=1):
        annotated = _read_labels(path)
        if name in predictions:
            predicted = predictions[name]()
            if predicted.shape != annotated.shape:
                raise ImageError(f"{name}: the prediction is {predicted.shape} pixels and the truth {annotated.shape}.")
        else:
            missing.append(name)
            predicted = annotated * 0
        found = match(predicted, annotated)
        matches["all"].append(found)
        key = groups.get(PurePosixPath(name).name)
        if key:
            key = f"{group} {key}" if key == "all" else key
            matches.setdefault(key, []).append(found)
        progress(done, len(truths))
    ordered = {name: matches[name] for name in ["all", *sorted(matches.keys() - {"all"})]}
    return Evaluation(
        {name: score(found) for name, found in ordered.items()},
        {name: len(found) for name, found in ordered.items()},
        tuple(missing),
    )


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


def _predictions(path: Path) -> dict[str, Callable[[], Any]]:
    """How to get each prediction, by name without suffix."""
    if path.suffix == ".zarr":
        masks = open_masks(path)
        return _by_stem(list(masks), [partial(masks.__getitem__, key) for key in masks], path)
    return {name: partial(_read_labels, file) for name, file in _label_files(path).items()}


def _label_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputMissingError(f"{folder}: there is no such folder of label images.")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    return _by_stem([path.relative_to(folder).as_posix() for path in files], files, folder)


def _by_stem(keys: list[str], values: list[T], place: Path) -> dict[str, T]:
    """Values by name without suffix; UsageError where two differ in their suffix only."""
    found: dict[str, T] = {}
    for key, value in zip(keys, values, strict=True):
        if _stem(key) in found:
            raise UsageError(f"{place} holds two images named {_stem(key)}, with different suffixes; keep one of them.")
        found[_stem(key)] = value
    return found


def _stem(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(""))


def _read_labels(path: Path) -> Any:
    try:
        labels = read_image(path, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ImageError(f"{path}: it is {labels.dtype} of shape {labels.shape}; a label image is one integer plane.")
    if labels.min() < 0:
        raise ImageError(f"{path}: it has negative numbers; a label image has 0 for background, then 1, 2, ...")
    return labels


def _groups(index: Path | None, group: str) -> dict[str, str]:
    if index is None:
        return {}
    if not index.is_file():
        raise InputMissingError(f"--index {index}: there is no such file.")
    with open(index, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"id", group} <= rows[0].keys():
        raise InputMissingError(f"--index {index}: it has no columns id and {group}, but {', '.join(rows[0])}.")
    return {row["id"]: row[group] for row in rows}
