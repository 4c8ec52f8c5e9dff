"""How a run stands, and whether what it wrote is still what it wrote.

Reads only, but for `forget`, and for what `verify` notes of what it read.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nucseg_batch.executors.coverage import Coverage, CoverageNotes, Kind, Result, Scope, Survey
from nucseg_batch.executors.job import Job, layout_of
from nucseg_batch.executors.pending import regions_done
from nucseg_batch.files.atomic_write import file_sha256
from nucseg_batch.files.masks.metadata import metadata_damage
from nucseg_batch.files.masks.store import MaskWriter, is_complete, set_complete, shards_written, volumes_written
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.locks import ALL, ROOT, held, holders, share_lock
from nucseg_batch.files.run.records import Marker, PlaneResult, RunSpec
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.files.run.track_records import TrackRecords
from nucseg_batch.plan import Failure, LargePlane, MovieGroup, StackGroup, Unit

WHOLE = Scope()
"""All of a run."""


@dataclass(frozen=True)
class ShareStatus:
    """How one share stands."""

    share: int
    """Its number."""
    units: int
    """Its units."""
    done: int
    """Units of these that have markers."""
    mpx: float
    """Its megapixels."""
    holder: str | None
    """Who is at it now; None for nobody, or where the file system has no locks."""


@dataclass(frozen=True)
class RunStatus:
    """How a run stands."""

    store: Path
    """OUT."""
    begun: RunSpec
    """What it was begun with."""
    shares: tuple[ShareStatus, ...]
    """Each share."""
    planes_done: int
    """Planes with a mask, or regions of large planes."""
    nuclei: int
    """Nuclei found; of large planes those of regions, before they are joined."""
    failures: int
    """Planes, or regions, that failed, and images that were refused while planning."""
    finishing: str | None
    """Who is writing what all shares have in common; None for nobody."""
    finished: bool
    """Whether the tables are written from all that is done now."""
    complete: bool
    """Whether every unit is done and the tables are written."""
    coverage: Coverage
    """How far it was verified."""

    def record(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            "store": str(self.store),
            "input": self.begun.root,
            "images": self.begun.plan.image_count,
            "planes": self.begun.plan.plane_count,
            "units": sum(share.units for share in self.shares),
            "units_done": sum(share.done for share in self.shares),
            "planes_done": self.planes_done,
            "nuclei": self.nuclei,
            "failed": self.failures,
            "finishing": self.finishing,
            "tables_written": self.finished,
            "complete": self.complete,
            "shares": len(self.shares),
            "by_share": [vars(share) for share in self.shares],
            "coverage": vars(self.coverage),
            "next": self.next_step,
            "fingerprint": self.begun.fingerprint,
        }

    @property
    def next_step(self) -> str | None:
        """The command that helps next, in one line; None if nothing is left to do, or other processes do it already."""
        several = len(self.shares) > 1
        if self.coverage.damaged:
            again = "segment its shares again" if several else "run the same `segment` again"
            return f"discard the damaged results with `nucseg-batch verify {self.store} --redo`, then {again}"
        undone = [share for share in self.shares if share.done < share.units]
        waiting = [share.share for share in undone if share.holder is None]
        if self.finishing or (undone and not waiting):
            return None
        if self.begun.lacks_discarded:
            return f"run the same `{'plan' if several else 'segment'}` again: it adds the images whose plan was lost"
        if undone:
            share = f" --share {waiting[0]}" if several else ""
            return f"continue with `nucseg-batch segment --run {self.store}{share}`"
        if not self.complete:
            return f"write the tables with `nucseg-batch finish {self.store}`"
        return self._after_failures()

    def _after_failures(self) -> str | None:
        """What helps in a complete run in which images failed; None if none did.

        Images that were refused while planning are not in the plan, so that they cannot be retried, only added.
        """
        if not self.failures:
            return None
        table = layout_of(self.store, self.begun.settings).results["failures.csv"]
        if self.failures > len(self.begun.plan.failures):
            retry = f"nucseg-batch segment --run {self.store} --retry-failed"
            return f"see {table}; try the failed images again with `{retry}`"
        again = "plan" if len(self.shares) > 1 else "segment"
        return f"see {table}; repair the images that cannot be used, and run the same `{again}` again to add them"


def status(store: Path, journal: Journal) -> RunStatus:
    """How the run at OUT stands; raises MismatchError where its plan cannot be read."""
    begun, held_by = journal.load(), holders(journal.folder)
    shares = []
    planes = nuclei = 0
    failures = len(begun.plan.failures)
    of_share: list[list[Unit]] = [[] for _ in range(begun.shares)]
    for number, unit in begun.plan.shared_out(begun.shares):
        of_share[number].append(unit)
    for number, units in enumerate(of_share):
        markers = [marker for unit in units if (marker := journal.marker(unit)) is not None]
        results = [plane for marker in markers for plane in marker.planes]
        good = [plane for plane in results if not isinstance(plane, Failure)]
        planes, nuclei = planes + len(good), nuclei + sum(plane.nuclei for plane in good)
        failures += len(results) - len(good)
        mpx = sum(unit.pixels for unit in units) / 1e6
        holder = held_by.get(share_lock(number), held_by.get(ALL))
        shares.append(ShareStatus(number, len(units), len(markers), mpx, holder))
    done = all(share.done == share.units for share in shares)
    noted = journal.finished()
    state = journal.state(begun.plan.units(), begun.plan.large_planes())
    finished = noted is not None and noted.state == state
    marked = begun.in_place or is_complete(store)
    survey = Survey(store, begun.plan, journal, layout_of(store, begun.settings), time.time())
    return RunStatus(
        store=store,
        begun=begun,
        shares=tuple(shares),
        planes_done=planes,
        nuclei=nuclei,
        failures=failures,
        finishing=held_by.get(ROOT),
        finished=finished,
        complete=done and finished and marked,
        coverage=survey.coverage(),
    )


@dataclass(frozen=True)
class Damage:
    """Something that is not what it was."""

    where: str
    """A unit, a large plane or a table."""
    what: str
    """What is wrong, in one line."""
    unit: Unit | None = None
    """The unit that must be done again, where it is one."""
    large: LargePlane | None = None
    """The large plane that must be joined again, where it is one."""
    stacks: StackGroup | None = None
    """The stacks whose nuclei must be joined again, where it is some."""
    movies: MovieGroup | None = None
    """The movies whose nuclei must be linked again, where it is some."""
    metadata: str | None = None
    """The file of metadata in the store that must be made again, where it is one."""


@dataclass(frozen=True)
class VerificationResult:
    """What was verified."""

    units: int
    """Units with markers, all of whose files were read."""
    missing: int
    """Units without."""
    damage: tuple[Damage, ...]
    """What is wrong."""
    results: int
    """Results that were read: units, large planes, stacks, movies, files of metadata and tables."""
    coverage: Coverage
    """How far the run is verified by this call and earlier ones."""


def verify(
    job: Job,
    step: Callable[[int, int], None],
    scope: Scope = WHOLE,
    *,
    now: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> VerificationResult:
    """Reads masks and rows of a run again, compares them with the markers, and notes in the run folder what was read.

    step: is called with how many results were read, and how many will be; scope: which are read; now: the time, in
    seconds since 1970; tell: takes lines for the user. What is damaged is read by every later call for a sample, or for
    what was not verified since a time, until it is mended.

    Raises OutputError where the run folder cannot be written to and the scope depends on what earlier calls noted. In
    other scopes `tell` says so.
    """
    survey = Survey(job.store, job.plan, job.journal, job.layout, time.time() if now is None else now)
    notes = CoverageNotes(survey, tell, needed=scope.sample is not None or scope.since is not None)
    chosen = survey.chosen(scope)
    damage: list[Damage] = []
    units = missing = read = 0
    try:
        for number, result in enumerate(chosen):
            step(number, len(chosen))
            state = survey.files_state(result)
            undone, found = _examined(job, survey, result)
            units += isinstance(result.item, Unit) and not undone
            missing += undone
            if found is not None:
                damage.append(found)
            read += not undone and notes.add(result, state, good=found is None)
    finally:
        notes.save()
    return VerificationResult(units, missing, tuple(damage), read, survey.coverage())


def _examined(job: Job, survey: Survey, result: Result) -> tuple[bool, Damage | None]:
    """Whether a result is a unit that is not done yet, and what is wrong with it; None where nothing is."""
    journal, noted, item = job.journal, survey.noted, result.item
    whole = noted is not None and not noted.missing
    match item:
        case Unit():
            marker = journal.marker(item)
            if marker is None and not whole:
                return True, None
            if marker is None:
                wrong: str | None = "its marker or its rows of nuclei.csv are missing or truncated"
            elif item.label_array.regional:
                wrong = _region_damage(item, marker, journal)
            else:
                wrong = _damage(job, item, marker)
            return False, Damage(item.name, wrong, unit=item) if wrong else None
        case LargePlane():
            wrong = _large_damage(job, item, noted is not None)
            return False, Damage(item.name, wrong, large=item) if wrong else None
        case StackGroup():
            wrong = _volume_damage(job, item, whole)
            return False, Damage(item.name, wrong, stacks=item) if wrong else None
        case MovieGroup():
            wrong = _track_damage(job, item, whole)
            return False, Damage(item.name, wrong, movies=item) if wrong else None
    if result.kind is Kind.METADATA:
        wrong = metadata_damage(job.store, result.name)
        return False, Damage(f"{job.store.name}/{result.name}", wrong, metadata=result.name) if wrong else None
    wrong = _table_damage(job, result.name, "" if noted is None else noted.tables[result.name])
    return False, Damage(result.name, wrong) if wrong else None


def forget(job: Job, damage: Sequence[Damage], tell: Callable[[str], None]) -> None:
    """Takes the markers of what is damaged away, so that `segment` does it again; LockedError where it is in use."""
    journal = job.journal
    names = [ROOT, *(share_lock(share) for share in job.shares)]
    with held(journal.folder, names, tell=tell):
        if not job.begun.in_place:
            set_complete(job.store, False)
        for one in damage:
            if one.unit is not None:
                journal.retract(one.unit)
            if one.large is not None:
                journal.retract_plane(one.large)
            if one.stacks is not None:
                StackRecords(journal).retract(one.stacks)
            if one.movies is not None:
                TrackRecords(journal).retract(one.movies)
            if one.metadata is not None:
                (job.store / one.metadata).unlink(missing_ok=True)
        journal.reopen()


def _damage(job: Job, unit: Unit, marker: Marker) -> str | None:
    """What is wrong with a unit of whole planes; None where nothing is."""
    now = shards_written(job.store, unit)
    if now.bytes != marker.shard_bytes:
        return f"its masks have {now.bytes} bytes on disk, not {marker.shard_bytes}"
    if now.sha256 != marker.sha256:
        return "checksum mismatch in its masks"
    if _sha256(job.journal.part(unit)) != marker.part_sha256:
        return "checksum mismatch in its rows of nuclei.csv"
    try:
        masks = MaskWriter(job.store).read(unit)
    except Exception as error:  # what zarr raises for damaged chunks is of many classes
        return f"its masks cannot be read ({type(error).__name__})"
    for plane, labels in zip(marker.planes, masks.reshape(-1, *masks.shape[-2:]), strict=True):
        nuclei = plane.nuclei if isinstance(plane, PlaneResult) else 0
        found = np.unique(labels[labels > 0])
        if found.size != nuclei or (nuclei and found[-1] != nuclei):
            return f"the mask of {plane.image} holds {found.size} nuclei, not {nuclei}"
    return None


def _table_damage(job: Job, name: str, digest: str) -> str | None:
    path = job.layout.results.get(name)
    if path is None or not path.exists():
        return "it is missing"
    return None if file_sha256(path) == digest else "it has changed since it was written"


def _region_damage(unit: Unit, marker: Marker, journal: Journal) -> str | None:
    if marker.failures:
        return None
    try:
        found = journal.region(unit)
    except OSError:
        return "its result is missing"
    return None if hashlib.sha256(found).hexdigest() == marker.sha256 else "what was found there is not as it was"


def _large_damage(job: Job, large: LargePlane, finished: bool) -> str | None:
    joined = job.journal.plane(large)
    if joined is None:
        done = finished and regions_done(large, job.journal)
        return (
            "its record or its rows of nuclei.csv are missing or truncated" if done else None
        )  # else its regions say more
    labels: set[int] = set()
    for unit, size, digest in zip(large.units, joined.shard_bytes, joined.sha256, strict=True):
        now = shards_written(job.store, unit)
        if (now.bytes, now.sha256) != (size, digest):
            return f"checksum mismatch in the masks of its region {unit.name}"
        try:
            masks = MaskWriter(job.store).read(unit)
        except Exception as error:  # as above
            return f"the masks of its region {unit.name} cannot be read ({type(error).__name__})"
        labels.update(np.unique(masks).tolist())
    if len(labels - {0}) != joined.result.nuclei:
        return f"its masks hold {len(labels - {0})} nuclei, not {joined.result.nuclei}"
    if _sha256(job.journal.plane_part(large)) != joined.part_sha256:
        return "checksum mismatch in its rows of nuclei.csv"
    return None


def _volume_damage(job: Job, group: StackGroup, finished: bool) -> str | None:
    """What is wrong with the volumes of stacks; None where nothing is, or they are not joined yet."""
    records = StackRecords(job.journal)
    linked, source = records.record(group), records.source_state(group)
    if linked is None or linked.source != source:
        lost = finished and source is not None
        return "the record or the rows of its volumes are missing, truncated or of other masks" if lost else None
    for unit, size, digest in zip(group.units, linked.shard_bytes, linked.sha256, strict=True):
        now = volumes_written(job.store, unit)
        if (now.bytes, now.sha256) != (size, digest):
            return f"checksum mismatch in the volumes of {unit.name}"
    return (
        "checksum mismatch in its rows of volumes.csv" if _sha256(records.part(group)) != linked.part_sha256 else None
    )


def _track_damage(job: Job, group: MovieGroup, finished: bool) -> str | None:
    """What is wrong with the tracks of movies; None where nothing is, or they are not linked yet."""
    records = TrackRecords(job.journal)
    linked, source = records.record(group), records.source_state(group)
    if linked is None or linked.source != source:
        lost = finished and source is not None
        return "the record or the rows of its tracks are missing, truncated or of other masks" if lost else None
    return "checksum mismatch in its rows of tracks.csv" if _sha256(records.part(group)) != linked.part_sha256 else None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""
