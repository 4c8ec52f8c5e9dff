"""What someone should know before using the results, in order of weight: sentences from counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nucseg_batch.plan import Assumption
from nucseg_batch.results.report.gallery_selection import GallerySelection
from nucseg_batch.results.report.outliers import KINDS
from nucseg_batch.results.report.run_statistics import UNSURE, RunStatistics
from nucseg_batch.results.report.words import count, figure, percent

MANY = 0.05
"""Share of the planes that makes outliers of a kind worth a sentence."""
CUT = 0.2
"""Share of the nuclei that are cut, from which on it matters for sizes."""
NARROW = 10.0
"""Nuclei of fewer pixels across have coarse masks."""


@dataclass(frozen=True)
class Note:
    """One thing to know."""

    title: str
    """What is the matter."""
    words: str
    """What it means, and what to do."""
    link: str = ""
    """The section that has more."""


def notes(
    survey: RunStatistics, choice: GallerySelection, unread: int, shown: int, assumed: Sequence[Assumption] = ()
) -> list[Note]:
    """All that is worth saying; empty where everything looks well."""
    found = [*_incomplete(survey), *_assumed(assumed), *_images_gone(unread, shown)]
    return [*found, *_doubtful(survey, choice), *_of_sizes(survey)]


def _incomplete(survey: RunStatistics) -> list[Note]:
    found = []
    if survey.missing:
        words = "The run is not finished; run the same `nucseg-batch segment` command again to resume it."
        found.append(Note(f"{count(survey.missing, 'plane')} not done yet.", words))
    if survey.failed:
        share = percent(survey.failed, survey.failed + survey.planes)
        words = f"That is {share} of all; without masks, they are in none of the numbers below."
        found.append(Note(f"{count(survey.failed, survey.per)} failed.", words, "failures"))
    if survey.planes and not survey.nuclei:
        words = (
            "Is the right channel segmented (`--channel`), and are nuclei as large as was expected (`--diameter`)? "
            "`nucseg-batch inspect` shows what was read."
        )
        found.append(Note("No nuclei were found in any image.", words))
    return found


def _assumed(assumed: Sequence[Assumption]) -> list[Note]:
    """The assumptions that `--strict` would have refused."""
    return [
        Note("An assumption about the input is doubtful.", f"{one.text}.", "how") for one in assumed if one.doubtful
    ]


def _images_gone(unread: int, shown: int) -> list[Note]:
    if not unread:
        return []
    words = "Their pictures show the masks alone. Say where the images are now with `--images`."
    return [Note(f"{unread} of {shown} images could not be read again.", words, "gallery")]


def _doubtful(survey: RunStatistics, choice: GallerySelection) -> list[Note]:
    found = []
    for kind in KINDS:
        number = choice.outliers[kind.name].count
        gone = kind.name == "empty" and not survey.nuclei
        if number and number >= MANY * survey.planes and not gone:
            title = f"{kind.title}: {count(number, survey.per)} ({percent(number, survey.planes)})."
            found.append(Note(title, kind.why, "outliers"))
    rated = survey.of_nuclei.get("confidence")
    if rated is not None and survey.unsure >= MANY * rated.count:
        title = f"{percent(survey.unsure, rated.count)} of the nuclei have a confidence under {UNSURE:g}."
        words = "Column `confidence` of the nuclei table lets you leave them out."
        found.append(Note(title, words, "distributions"))
    return found


def _of_sizes(survey: RunStatistics) -> list[Note]:
    found = []
    if survey.nuclei and survey.cut >= CUT * survey.nuclei:
        words = (
            "Their areas and shapes are those of parts: leave them out where sizes matter (columns `bbox-0` to "
            "`bbox-3`)."
        )
        found.append(Note(f"{percent(survey.cut, survey.nuclei)} of the nuclei are cut by the border.", words))
    if survey.planes and survey.measured < survey.planes:
        unknown = survey.planes - survey.measured
        which = "" if unknown == survey.planes else f" of {count(unknown, 'plane')}"
        words = "Sizes are in pixels. To get micrometres, segment with `--pixel-size`."
        found.append(Note(f"The width of a pixel{which} is not known.", words))
    area = survey.of_nuclei.get("area")
    if area is not None:
        wide = math.sqrt(4 * area.median / math.pi)
        if wide < NARROW:
            words = "Masks of so few pixels are coarse: trust counts more than areas and shapes."
            found.append(Note(f"Nuclei are only {figure(wide)} pixels wide.", words))
    return found
