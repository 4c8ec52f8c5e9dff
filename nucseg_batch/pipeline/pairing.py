"""Pairs annotated images with their predictions, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, Protocol, TypeVar

from nucseg_batch.errors import NothingToDoError, UsageError
from nucseg_batch.files.annotations import read_name
from nucseg_batch.plan import Assumption


class Named(Protocol):
    """What is paired: label images, or movies."""

    @property
    def name(self) -> str:
        """Path below PRED or TRUTH, without suffix."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names that mean it."""

    @property
    def lone(self) -> bool:
        """Whether it is a store of its own, whose name need not be an image's."""


Image = TypeVar("Image", bound=Named)
Other = TypeVar("Other", bound=Named)


@dataclass(frozen=True)
class Pairing(Generic[Image, Other]):
    """Which prediction belongs to which truth."""

    pairs: tuple[tuple[Other, Image | None], ...]
    """Each truth with its prediction; None where it has none."""
    notes: tuple[str, ...]
    """Lines that say how they were paired where it was not by their names, and what was left out."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed where no name is the same on both sides."""


def pair(predictions: Sequence[Image], truths: Sequence[Other]) -> Pairing[Image, Other]:
    """Pairs images whose names without suffix, or aliases, are the same, and of the others those with the same core.

    The core of a name is that without an ending such as `_masks` (`read_name`). Where nothing pairs by whole names they
    are paired by the last parts of their names if these are unique on both sides; and a store of one label image with
    the one image of the other side. Raises NothingToDoError where nothing pairs, and UsageError where two predictions
    may be meant for one truth, or two truths for one prediction.
    """
    found, notes, assumptions = _by_name(predictions, truths, _names), [], []
    used = {image.name for image in found.values()}
    unpaired = [truth for truth in truths if truth.name not in found]
    by_core = _by_name([image for image in predictions if image.name not in used], unpaired, _cores)
    _check_single(by_core)
    found |= by_core
    if not found:
        found = _by_last_part(predictions, truths, _last) or _by_last_part(predictions, truths, _last_core)
        if len(found) < len(truths):
            notes = ["no name is the same on both sides: images are matched by the last part of their names"]
    if not found and len(predictions) == len(truths) == 1 and (predictions[0].lone or truths[0].lone):
        found = {truths[0].name: predictions[0]}
        notes = []
        assumptions = [
            Assumption(
                kind="pairing",
                what=f"{predictions[0].name} is compared with {truths[0].name}",
                evidence="each side is one image",
                option="give both the same name",
                doubtful=True,
            )
        ]
    if not found:
        raise NothingToDoError(
            f"PRED ({len(predictions)} images, such as {predictions[0].name}) and TRUTH ({len(truths)}, such as "
            f"{truths[0].name}) share no image name; names are paths below PRED and TRUTH without suffix."
        )
    used = {image.name for image in found.values()}
    if len(used) < len(predictions):
        notes.append(f"{len(predictions) - len(used)} of {len(predictions)} predicted images have no annotation")
    return Pairing(tuple((truth, found.get(truth.name)) for truth in truths), tuple(notes), tuple(assumptions))


def _by_name(
    predictions: Sequence[Image], truths: Sequence[Other], names_of: Callable[[Named], set[str]]
) -> dict[str, Image]:
    """Predictions by the name of their truth."""
    known: dict[str, list[Image]] = {}
    for prediction in predictions:
        for name in names_of(prediction):
            known.setdefault(name, []).append(prediction)
    found = {}
    for truth in truths:
        meant = {image.name: image for name in names_of(truth) for image in known.get(name, [])}
        if len(meant) > 1:
            raise UsageError(f"PRED holds {' and '.join(sorted(meant))}, which both match {truth.name}; keep one.")
        if meant:
            found[truth.name] = next(iter(meant.values()))
    return found


def _check_single(found: Mapping[str, Named]) -> None:
    """Raises UsageError where one prediction has two truths."""
    truths: dict[str, list[str]] = {}
    for truth, prediction in found.items():
        truths.setdefault(prediction.name, []).append(truth)
    for name, both in truths.items():
        if len(both) > 1:
            raise UsageError(f"TRUTH holds {' and '.join(sorted(both))}, which both match {name}; keep one.")


def _by_last_part(
    predictions: Sequence[Image], truths: Sequence[Other], last: Callable[[Named], str]
) -> dict[str, Image]:
    """Predictions by the name of their truth; nothing where a last part is not unique on its side."""
    sides: tuple[Sequence[Named], ...] = (predictions, truths)
    for side in sides:
        if max(Counter(last(image) for image in side).values()) > 1:
            return {}
    known = {last(image): image for image in predictions}
    return {truth.name: known[last(truth)] for truth in truths if last(truth) in known}


def _names(image: Named) -> set[str]:
    return {image.name, *image.aliases}


def _cores(image: Named) -> set[str]:
    named = [read_name(name) for name in _names(image)]
    return {name for one in named for name in (one.stem, one.core)}


def _last(image: Named) -> str:
    return PurePosixPath(image.name).name


def _last_core(image: Named) -> str:
    return read_name(_last(image)).core
