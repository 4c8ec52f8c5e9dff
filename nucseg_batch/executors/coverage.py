"""Which results of a run a call of `verify` reads, and which were verified since they were written.

A result is what can be read and compared separately: a unit, a large plane, a group of stacks or movies, a file of
metadata in the store, or a table. Which results there are, and their order, depends on the plan and on the finished run
alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from nucseg_batch.errors import OutputError
from nucseg_batch.files.masks.store import shard_bytes, unit_files, volume_bytes, volume_files
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import FinishRecord
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.files.run.track_records import TrackRecords
from nucseg_batch.files.run.verified import Verified, VerifiedRecords
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import LargePlane, MovieGroup, Plan, StackGroup, Unit, movie_groups, stack_groups

SAVE_SECONDS = 60.0
"""How often what was verified is written down."""


class Kind(StrEnum):
    """What a result is."""

    UNIT = "unit"
    PLANE = "plane"
    STACKS = "stacks"
    MOVIES = "movies"
    METADATA = "metadata"
    TABLE = "table"


@dataclass(frozen=True)
class Result:
    """Something that is verified as a whole."""

    kind: Kind
    """What it is."""
    name: str
    """Name of the unit, plane, stacks, movies or table; path of metadata below the store."""
    item: Unit | LargePlane | StackGroup | MovieGroup | None = None
    """What of the plan it is of."""

    @property
    def key(self) -> str:
        """What records of verification call it; different for all results of a run."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Scope:
    """What a call of `verify` is to read; all of it by default. Conditions add up."""

    share: int = 0
    """Number of the share of all results, counted from 0: every `shares`th result from here."""
    shares: int = 1
    """How many shares there are."""
    sample: Fraction | None = None
    """Part of these results, above 0 and at most 1: those verified longest ago, or never, are taken."""
    since: float | None = None
    """Only those not verified since then, in seconds since 1970."""

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self.shares == 1 and self.sample is None and self.since is None


@dataclass(frozen=True)
class Coverage:
    """How far a run was verified, in one call or in many."""

    results: int
    """Results that there are to verify; without those that are not done yet."""
    verified: int
    """Results of these that were verified since they were written, and found good."""
    oldest: float | None
    """When the one of these was verified that was verified longest ago, in seconds since 1970; None without any."""
    damaged: int
    """Results that were found damaged, and neither found good nor written again since."""
    damaged_planes: int
    """Planes of the units and large planes among these."""
    damage_found: float | None
    """When `verify` last found one of these damaged, in seconds since 1970; None without any."""


def all_results(plan: Plan, noted: FinishRecord | None, *, tracked: bool = False) -> list[Result]:
    """All results of a run, done or not, in the order in which they are verified.

    tracked: whether the run links nuclei over time points.
    """
    return [
        *(Result(Kind.UNIT, unit.name, unit) for unit in plan.units()),
        *(Result(Kind.PLANE, large.name, large) for large in plan.large_planes()),
        *(Result(Kind.STACKS, group.name, group) for group in stack_groups(plan)),
        *(Result(Kind.MOVIES, group.name, group) for group in (movie_groups(plan) if tracked else ())),
        *(Result(Kind.METADATA, name) for name in (noted.metadata if noted is not None else ())),
        *(Result(Kind.TABLE, name) for name in (noted.tables if noted is not None else ())),
    ]


class Survey:
    """The results of a run, each with when it was written and when it was verified."""

    def __init__(self, store: Path, plan: Plan, journal: Journal, layout: RunLayout, now: float) -> None:
        self._store, self._journal, self._layout, self._now = store, journal, layout, now
        self._stacks, self._movies = StackRecords(journal), TrackRecords(journal)
        self.folder = journal.folder
        """The run folder."""
        self.noted = journal.finished()
        """What was noted when the tables were written."""
        self.records = VerifiedRecords(journal.folder)
        """What earlier calls verified."""
        self.results = all_results(plan, self.noted, tracked=layout.tracked)
        """All results, done or not."""
        whole = self.noted is not None and not self.noted.missing
        written = [self._written_ns(result) for result in self.results]
        self._written = {
            result.key: when or 0
            for result, when in zip(self.results, written, strict=True)
            if when is not None or whole or result.kind in (Kind.METADATA, Kind.TABLE)
        }

    def chosen(self, scope: Scope) -> list[Result]:
        """What of the results is to be read, in their order.

        A sample, and what was not verified since a time, are chosen from the results that are done. A share, or the
        whole, includes those that are not done, so that they are counted. Besides a sample, results of which files are
        missing or have another size or time are chosen.
        """
        share = self.results[scope.share :: scope.shares]
        if scope.sample is None and scope.since is None:
            return share
        done = [result for result in share if result.key in self._written]
        due = [result for result in done if scope.since is None or self._verified(result) < scope.since]
        if scope.sample is None:
            return due
        count = math.ceil(scope.sample * len(done))
        turns, verified = _turns(done), {result.key: self._verified(result) for result in due}
        taken = {result.key for result in due if self._is_changed(result)}
        others = [result for result in due if result.key not in taken]
        others.sort(key=lambda one: (self._found_damaged(one) is None, verified[one.key], turns[one.key]))
        taken |= {result.key for result in others[:count]}
        return [result for result in due if result.key in taken]

    def files_state(self, result: Result) -> tuple[int, int]:
        """Size of the files of a result together, in bytes, and when the latest was changed, in ns; 0 without any."""
        size = changed = 0
        for path in self._files(result):
            with contextlib.suppress(OSError):
                found = path.stat()
                size, changed = size + found.st_size, max(changed, found.st_mtime_ns)
        return size, changed

    def note(self, result: Result, state: tuple[int, int], *, good: bool) -> bool:
        """Notes that a result was read, and returns True; one that is not done yet is not noted.

        state: that of its files from before they were read.
        """
        if result.key not in self._written:
            return False
        self.records.add(result.key, Verified(self._now, self._written[result.key], good, *state))
        return True

    def coverage(self) -> Coverage:
        """How far the run was verified, and what of it was found damaged."""
        times = [self._verified(result) for result in self.results if result.key in self._written]
        good = [when for when in times if when > -math.inf]
        damage = [(result, when) for result in self.results if (when := self._found_damaged(result)) is not None]
        return Coverage(
            results=len(times),
            verified=len(good),
            oldest=min(good, default=None),
            damaged=len(damage),
            damaged_planes=len({place for result, _ in damage for place in _places(result)}),
            damage_found=max((when for _, when in damage), default=None),
        )

    def _verified(self, result: Result) -> float:
        """When a result was found good as it is now; minus infinity where it was not.

        A time that is still to come, as from a clock that was wrong, does not count.
        """
        entry = self._entry(result)
        if entry is None or not entry.good or entry.time > self._now:
            return -math.inf
        return entry.time if (entry.size, entry.changed_ns) == self.files_state(result) else -math.inf

    def _found_damaged(self, result: Result) -> float | None:
        """When a result was found damaged; None where it was not, or was found good or written again since.

        Other files in its place do not mend it by themselves: only reading them shows whether they are those that were
        written.
        """
        entry = self._entry(result)
        return entry.time if entry is not None and not entry.good else None

    def _entry(self, result: Result) -> Verified | None:
        """What was found of a result as it was written last; None where it was not read since."""
        entry = self.records.entry(result.key)
        return entry if entry is not None and entry.written_ns == self._written.get(result.key) else None

    def _is_changed(self, result: Result) -> bool:
        """Whether files of a result that is done are other ones than when they were read, or lack something.

        Files that were never read are compared with the size that was noted when they were written.
        """
        if (entry := self._entry(result)) is not None:
            return (entry.size, entry.changed_ns) != self.files_state(result)
        journal, store, item = self._journal, self._store, result.item
        match item:
            case Unit():
                marker = journal.marker(item)
                if marker is None or item.label_array.regional:
                    return marker is None or not (marker.failures or journal.has_region(item))
                return marker.shard_bytes != shard_bytes(store, item)
            case LargePlane():
                joined = journal.plane(item)
                return joined is None or any(
                    size != shard_bytes(store, unit) for unit, size in zip(item.units, joined.shard_bytes, strict=True)
                )
            case StackGroup():
                stacks = self._stacks.record(item)
                return stacks is None or any(
                    size != volume_bytes(store, unit) for unit, size in zip(item.units, stacks.shard_bytes, strict=True)
                )
            case MovieGroup():
                return self._movies.record(item) is None
        return self._written[result.key] == 0

    def _files(self, result: Result) -> list[Path]:
        """The files of a result, there or not."""
        journal, store, item = self._journal, self._store, result.item
        match item:
            case Unit() if item.label_array.regional:
                return [journal.region_file(item)]
            case Unit():
                return [journal.part(item), *unit_files(store, item)]
            case LargePlane():
                return [journal.plane_part(item), *(file for unit in item.units for file in unit_files(store, unit))]
            case StackGroup():
                return [self._stacks.part(item), *(file for unit in item.units for file in volume_files(store, unit))]
            case MovieGroup():
                return [self._movies.part(item)]
        return [self._path(result)]

    def _path(self, result: Result) -> Path:
        """The file of metadata, or the table, that a result is."""
        return self._layout.results[result.name] if result.kind is Kind.TABLE else self._store / result.name

    def _written_ns(self, result: Result) -> int | None:
        """When the record of a result was written, or of metadata and tables they themselves; None without one."""
        try:
            match result.item:
                case Unit():
                    return self._journal.committed_ns(result.item)
                case LargePlane():
                    return self._journal.plane_committed_ns(result.item)
                case StackGroup():
                    return self._stacks.committed_ns(result.item)
                case MovieGroup():
                    return self._movies.committed_ns(result.item)
            return self._path(result).stat().st_mtime_ns
        except (OSError, KeyError):
            return None


class CoverageNotes:
    """Notes what was read, and writes that down now and then, so that a call that is stopped was not for nothing.

    needed: whether OutputError is raised where that is not possible; otherwise `tell` says so.
    """

    def __init__(self, survey: Survey, tell: Callable[[str], None], *, needed: bool) -> None:
        self._survey, self._tell = survey, tell
        self._saved = time.monotonic()
        self._writable = True
        self.save()
        if needed and not self._writable:
            raise OutputError(
                f"--sample and --since record in {survey.folder} what was verified, but it cannot be written; make it "
                "writable, or use --share."
            )

    def add(self, result: Result, state: tuple[int, int], *, good: bool) -> bool:
        """Notes a result, as `Survey.note` does."""
        noted = self._survey.note(result, state, good=good)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()
        return noted

    def save(self) -> None:
        """Writes down what was noted."""
        if not self._writable:
            return
        try:
            self._survey.records.save()
        except OSError as error:
            self._writable = False
            self._tell(f"what was verified cannot be recorded in the run folder ({error.strerror})")
        self._saved = time.monotonic()


def _places(result: Result) -> list[tuple[str, tuple[int, ...]]]:
    """Label array and place of each plane with its mask and rows in a result; none for results derived from planes."""
    match result.item:
        case Unit() as unit:
            return [(unit.label_array.name, place) for place in unit.places]
        case LargePlane() as large:
            return [(large.label_array.name, large.place)]
    return []


def _turns(results: list[Result]) -> dict[str, float]:
    """An order for samples of results, as numbers from 0 to 1: any stretch of it has every kind in proportion.

    Results of a kind are in the order of a hash of their names, so that a sample comes from all over the run.
    """
    of_kind: dict[Kind, list[str]] = {}
    for result in results:
        of_kind.setdefault(result.kind, []).append(result.key)
    turns: dict[str, float] = {}
    for keys in of_kind.values():
        keys.sort(key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest())
        turns |= {key: (place + 0.5) / len(keys) for place, key in enumerate(keys)}
    return turns
