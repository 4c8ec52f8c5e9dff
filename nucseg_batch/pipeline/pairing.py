"""Pairs annotated images with their predictions, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nucseg_batch.errors import NothingToDoError, UsageError
from nucseg_batch.pipeline.label_images import LabelImage


@dataclass(frozen=True)
class Pairing:
    """Which prediction belongs to which truth."""

    pairs: tuple[tuple[LabelImage, LabelImage | None], ...]
    """Each truth with its prediction; None where it has none."""
    notes: tuple[str, ...]
    """Lines that say how they were paired where it was not by their names, and what was left out."""


def pair(predictions: Sequence[LabelImage], truths: Sequence[LabelImage]) -> Pairing:
    """Pairs images whose names without suffix, or aliases, are the same.

    Where none are, they are paired by the last parts of their names if these are unique on both sides; and a store of
    one label image with the one image of the other side. Raises NothingToDoError where nothing pairs, and UsageError
    where two predictions may be meant for one truth.
    """
    found, notes = _by_name(predictions, truths), []
    if not found:
        found = _by_last_part(predictions, truths)
        notes = ["no name is the same on both sides: images are matched by the last part of their names"]
    if not found and len(predictions) == len(truths) == 1 and (predictions[0].lone or truths[0].lone):
        found = {truths[0].name: predictions[0]}
        notes = [f"each side is one image: {predictions[0].name} is compared with {truths[0].name}"]
    if not found:
        raise NothingToDoError(
            f"PRED ({len(predictions)} images, such as {predictions[0].name}) and TRUTH ({len(truths)}, such as "
            f"{truths[0].name}) share no image name; names are paths below PRED and TRUTH without suffix."
        )
    used = {image.name for image in found.values()}
    if len(used) < len(predictions):
        notes.append(f"{len(predictions) - len(used)} of {len(predictions)} predicted images have no annotation")
    return Pairing(tuple((truth, found.get(truth.name)) for truth in truths), tuple(notes))


def _by_name(predictions: Sequence[LabelImage], truths: Sequence[LabelImage]) -> dict[str, LabelImage]:
    """Predictions by the name of their truth."""
    known: dict[str, list[LabelImage]] = {}
    for prediction in predictions:
        for name in _names(prediction):
            known.setdefault(name, []).append(prediction)
    found = {}
    for truth in truths:
        meant = {image.name: image for name in _names(truth) for image in known.get(name, [])}
        if len(meant) > 1:
            raise UsageError(f"PRED holds {' and '.join(sorted(meant))}, which both match {truth.name}; keep one.")
        if meant:
            found[truth.name] = next(iter(meant.values()))
    return found


def _by_last_part(predictions: Sequence[LabelImage], truths: Sequence[LabelImage]) -> dict[str, LabelImage]:
    """Predictions by the name of their truth; nothing where a last part is not unique on its side."""
    for side in (predictions, truths):
        if max(Counter(_last(image) for image in side).values()) > 1:
            return {}
    known = {_last(image): image for image in predictions}
    return {truth.name: known[_last(truth)] for truth in truths if _last(truth) in known}


def _names(image: LabelImage) -> set[str]:
    return {image.name, *image.aliases}


def _last(image: LabelImage) -> str:
    return PurePosixPath(image.name).name
