"""Which planes are named and shown: a second pass over images.csv, when it is known what is usual."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nucseg_batch.results.report.outliers import KINDS, OutlierKind, OutlierLimits, judge, limits
from nucseg_batch.results.report.ranking import Finding, Ranking
from nucseg_batch.results.report.run_statistics import Progress, RunStatistics, ok_planes, size_of
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

SUSPICIOUS, BEST, TYPICAL, SPREAD = 12, 6, 6, 6
"""Pictures of each group, at most."""
DOUBTFUL = "Most suspicious"
"""Title of the first."""
OF_EACH_KIND = 2
"""Outliers of each kind that are among the suspicious ones."""
LOWEST = 0.1
"""Share of all planes, by confidence, that may be called suspicious though nothing else speaks against them."""


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that are shown together."""

    title: str
    """Its heading."""
    what: str
    """By what its pictures were chosen."""
    planes: tuple[Finding, ...]
    """What is shown, in order; their text says why."""


@dataclass(frozen=True)
class GallerySelection:
    """What is named and shown of a run."""

    outliers: dict[str, Ranking]
    """By the name of the kind."""
    groups: tuple[PictureGroup, ...]
    """The gallery."""


class _Middle:
    """How far planes are from the middle of the run."""

    def __init__(self, survey: RunStatistics, usual: OutlierLimits) -> None:
        of = survey.of_planes
        self._usual = usual
        self._nuclei = math.log2(of["nuclei"].median + 1) if "nuclei" in of else 0.0
        self._others = {
            name: (of[name].median, 4 * (of[name].spread() or 1.0))
            for name in ("confidence", "intensity_mean")
            if name in of
        }

    def distance(self, row: PlaneRow) -> float:
        """0 in the middle; doubling number or size of nuclei adds 1."""
        total = abs(math.log2(row.nuclei + 1) - self._nuclei)
        if row.nuclei and self._usual.middle > 0:
            total += abs(math.log2(size_of(row, self._usual.micrometres) / self._usual.middle))
        for name, (median, unit) in self._others.items():
            if name in row.values:
                total += abs(row.values[name] - median) / unit
        return total


class _Picks:
    """Candidates for the gallery, plane by plane."""

    def __init__(self, survey: RunStatistics, usual: OutlierLimits) -> None:
        confidence, counts = survey.of_planes.get("confidence"), survey.of_planes.get("nuclei")
        self._middle = _Middle(survey, usual)
        self._wanted = {math.floor((i + 0.5) * survey.planes / SPREAD) for i in range(SPREAD)}
        self._low_count = math.ceil(LOWEST * survey.planes)
        self._enough = max(3.0, counts.median / 2) if counts is not None else 3.0
        self.rated = confidence is not None
        self.suspects, self.best, self.typical = Ranking(SUSPICIOUS), Ranking(BEST * 2), Ranking(TYPICAL * 4)
        self.spread: list[Finding] = []

    def add(self, place: int, number: int, row: PlaneRow, weights: Sequence[float]) -> None:
        """Considers a plane. place: which of those with masks; weights: how odd it is, for each kind of outlier."""
        rated = row.values.get("confidence")
        if not self.rated and weights:
            self.suspects.add(Finding(number, row, sum(weights)))
        elif rated is not None:
            self.suspects.add(Finding(number, row, -rated))
        if not weights:
            self.typical.add(Finding(number, row, -self._middle.distance(row)))
            if rated is not None and row.nuclei >= self._enough:
                self.best.add(Finding(number, row, rated))
        if place in self._wanted:
            self.spread.append(Finding(number, row, 0.0))

    def suspicious(self, outliers: Mapping[str, Ranking]) -> tuple[str, list[Finding]]:
        """How the suspicious planes are chosen, and which they are."""
        clearest = [finding for kind in KINDS for finding in outliers[kind.name].first[:OF_EACH_KIND]]
        room = max(SUSPICIOUS - len({one.number for one in clearest}), SUSPICIOUS // 2)
        most = min(room, self._low_count) if self.rated else room
        chosen = list({one.number: one for one in (*clearest, *self.suspects.first[:most])}.values())
        if self.rated:
            chosen.sort(key=lambda one: (one.row.values.get("confidence", math.inf), one.number))
            return "lowest confidence first, with the clearest outliers of each kind", chosen
        weights = {finding.number: finding.weight for finding in self.suspects.first}
        chosen.sort(key=lambda one: (-weights.get(one.number, 0.0), one.number))
        return "the clearest outliers of each kind; this run has no confidence values", chosen


def choose(run: FinishedRun, survey: RunStatistics, progress: Progress = lambda done, total: None) -> GallerySelection:
    """Reads images.csv once more; memory does not grow with it."""
    usual = limits(survey)
    outliers = {kind.name: Ranking() for kind in KINDS} | {"border": survey.border}
    picks = _Picks(survey, usual)
    for place, (number, row) in enumerate(ok_planes(run)):
        found = judge(row, usual)
        for name, (weight, what) in found.items():
            outliers[name].add(Finding(number, row, weight, what))
        picks.add(place, number, row, [weight for weight, _ in found.values()])
        if place % 5000 == 0:
            progress(place, survey.planes)
    how, suspicious = picks.suspicious(outliers)
    middle = "nearest to the middle of the run in number, size and brightness of nuclei"
    spread = tuple(picks.spread)
    wishes = [
        (PictureGroup(DOUBTFUL, how, tuple(suspicious)), SUSPICIOUS),
        (PictureGroup("Best", "highest confidence, of images with enough nuclei", tuple(picks.best.first)), BEST),
        (PictureGroup("Typical", middle, tuple(picks.typical.first)), TYPICAL),
        (
            PictureGroup("Evenly spaced", "evenly spaced by name, without those above", spread),
            SPREAD,
        ),
    ]
    if survey.planes <= SPREAD:
        wishes = [(PictureGroup("All", "in the order of names", spread), SPREAD)]
    return GallerySelection(outliers, _groups(wishes, outliers))


def _groups(wishes: Iterable[tuple[PictureGroup, int]], outliers: Mapping[str, Ranking]) -> tuple[PictureGroup, ...]:
    """The gallery: of each group the first so many planes that no group before it has, with what is odd about them."""
    reasons: dict[int, list[str]] = {}
    for kind in KINDS:
        for finding in outliers[kind.name].first:
            reasons.setdefault(finding.number, []).append(_reason(kind, finding))
    shown: set[int] = set()
    groups = []
    for group, most in wishes:
        new = [one for one in group.planes if one.number not in shown][:most]
        shown |= {one.number for one in new}
        if new:
            told = tuple(replace(one, what="; ".join(reasons.get(one.number, ()))) for one in new)
            groups.append(replace(group, planes=told))
    return tuple(groups)


def _reason(kind: OutlierKind, finding: Finding) -> str:
    """Why a plane is an outlier, in one phrase."""
    title = kind.title.lower()
    told = finding.what and kind.name != "unsure"  # that stands below every picture
    return f"{title} ({finding.what})" if told else title
