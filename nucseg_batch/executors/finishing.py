"""Makes of what the units left what a user reads: joined large planes, smaller levels, tables.

Any process may do it, at any time and again: it writes the same bytes, and nothing where nothing is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from nucseg_batch.errors import ImageError, LockedError
from nucseg_batch.executors.flat_fields import flat_fields
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.linking import groups_to_link, link_groups, volume_count, write_volume_table
from nucseg_batch.executors.pending import planes_to_merge
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.provenance import provenance
from nucseg_batch.executors.tracking import link_movie_groups, movies_to_link, track_count, write_track_table
from nucseg_batch.files.atomic_write import remove_leftovers
from nucseg_batch.files.masks.in_place import register
from nucseg_batch.files.masks.metadata import metadata_files
from nucseg_batch.files.masks.pyramid import build_levels, levels_missing, remove_leftovers_of_levels
from nucseg_batch.files.masks.store import (
    MaskWriter,
    list_masks,
    remove_common_leftovers,
    remove_leftovers_of,
    set_complete,
)
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.finish import PlaneEntry, collect, result_hashes, table_hashes, write_tables
from nucseg_batch.files.run.locks import PATIENCE, ROOT, held, holders
from nucseg_batch.files.run.provenance import InputFingerprint, write_provenance
from nucseg_batch.files.run.records import FinishRecord, Marker, PlaneResult
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.pipeline.large_planes import join_plane
from nucseg_batch.plan import Failure, LargePlane, stack_groups


class RunOutcome:
    """What became of a run, or of one share of it: counts, and what is not as it should be."""

    def __init__(self, entries: Iterable[PlaneEntry] = (), whole: bool = True) -> None:
        """Counts every plane, given in order; what is well is not kept, since it may be millions.

        whole: whether this is the whole run and the tables are written, and not a share of it.
        """
        self.whole = whole
        self.planes = 0
        """Planes with a mask."""
        self.images = 0
        """Images with a mask, or several."""
        self.nuclei = 0
        """Nuclei in all masks."""
        self.volumes: int | None = None
        """Nuclei over the z-slices of stacks; None in a run that does not join these, and for a share."""
        self.tracks: int | None = None
        """Nuclei over the time points of movies likewise."""
        self._failures: list[Failure] = []
        self._missing: list[PlaneEntry] = []
        self._groups: dict[str, bool] = {}
        self._image: str | None = None
        for _ in self.counted(entries):
            pass

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Planes and images without a mask, in order."""
        return tuple(self._failures)

    @property
    def missing(self) -> tuple[PlaneEntry, ...]:
        """Planes that were not done yet, in order."""
        return tuple(self._missing)

    @property
    def empty_groups(self) -> set[str]:
        """Groups of a store's structure that have no mask at all: every plane of theirs failed, or is not done yet."""
        return {name for name, empty in self._groups.items() if empty}

    def counted(self, entries: Iterable[PlaneEntry]) -> Iterator[PlaneEntry]:
        """The same planes, which are counted as they pass."""
        for entry in entries:
            result, label_array = entry.outcome, entry.label_array
            if isinstance(result, PlaneResult):
                self.planes += 1
                self.images += entry.image != self._image
                self.nuclei += result.nuclei
                self._image = entry.image
            elif result is None:
                self._missing.append(entry)
            else:
                self._failures.append(result)
            if label_array is not None and label_array.group is not None:
                empty = not isinstance(result, PlaneResult)
                self._groups[label_array.name] = self._groups.get(label_array.name, True) and empty
            yield entry


def finish(
    job: Job, progress: ProgressCounter, job_name: str = "", *, own: Collection[str] = (), rewrite: bool = False
) -> RunOutcome:
    """Joins, lists and writes what a run has; units that are still missing are missing in the tables, too.

    job_name: what the scheduler calls this process's work; own: locks of shares that it holds; rewrite: whether tables
    are checked, and rewritten if they have changed. Raises LockedError if another process uses the run for long, and
    OSError if the disk fails.
    """
    with held(job.journal.folder, [ROOT], job=job_name, patience=PATIENCE, tell=progress.tell_once) as locked:
        if job.journal.portions != job.begun.portions:
            raise LockedError(f"{job.journal.folder}: images were just added; run the same command again.")
        others = holders(job.journal.folder).keys() - {ROOT, *own}  # a share may be joining a plane of its own
        return _finish(job, progress, alone=locked and not others, rewrite=rewrite)


def _finish(job: Job, progress: ProgressCounter, *, alone: bool, rewrite: bool) -> RunOutcome:
    """The same, for a process that holds the root lock; alone: False where others may be writing."""
    journal, plan = job.journal, job.plan
    if alone:
        journal.remove_common_leftovers()
        for table in job.layout.results.values():
            remove_leftovers(table.parent, {table.name})
    unmerged = planes_to_merge(plan.large_planes(), job.store, journal)
    unscaled = [label_array for label_array in plan.label_arrays if levels_missing(job.store, label_array)]
    unlinked = groups_to_link(job, stack_groups(plan))
    noted = (
        _still_finished(job, rewrite=rewrite) if not (unmerged or unscaled or unlinked or movies_to_link(job)) else None
    )
    if noted is not None:
        if not job.begun.in_place:
            if alone:
                remove_leftovers(job.store)
            set_complete(job.store, not noted.missing)  # a call that ended as the one before it may have taken it away
        outcome = RunOutcome(collect(plan, journal))
        outcome.volumes, outcome.tracks = volume_count(job), track_count(job)
        return outcome
    if alone:
        remove_common_leftovers(job.store, plan)
        for label_array in unscaled:
            remove_leftovers_of_levels(job.store, label_array)
    if (unmerged or unlinked) and not job.begun.in_place:
        set_complete(job.store, False)
    join_planes(job, unmerged, progress, alone=alone)
    if unmerged:
        unlinked = groups_to_link(job, stack_groups(plan))
    link_groups(job, unlinked, progress, alone=alone)
    link_movie_groups(job, movies_to_link(job), progress)
    for label_array in plan.label_arrays:
        build_levels(job.store, label_array)
    outcome, inputs, digests = RunOutcome(), InputFingerprint(), dict[str, bytes]()
    write_tables(job.layout, inputs.counted(outcome.counted(collect(plan, journal, digests))), job.table)
    outcome.volumes, outcome.tracks = write_volume_table(job), write_track_table(job)
    made = _record_provenance(job, outcome, inputs)
    state = journal.state(plan.units(), plan.large_planes(), digests)
    _describe_store(job, outcome, made)
    if not outcome.missing:
        _forget_attempts(job)
    metadata = metadata_files(job.store, plan, in_place=job.begun.in_place)
    journal.finish(FinishRecord(state, len(outcome.missing), result_hashes(job.layout), metadata))
    if not alone and journal.state(plan.units(), plan.large_planes()) != state:
        journal.reopen()  # another process has done units meanwhile, or has begun to do them again
        if not job.begun.in_place:
            set_complete(job.store, False)
    return outcome


def _still_finished(job: Job, *, rewrite: bool) -> FinishRecord | None:
    """What was noted when the tables were written; None where they are missing or older than a marker.

    rewrite: also where they have changed since.
    """
    noted = job.journal.finished()
    if noted is None or not all(path.exists() for path in job.layout.results.values()):
        return None
    if rewrite and noted.tables != result_hashes(job.layout):
        return None
    return noted if noted.state == job.journal.state(job.plan.units(), job.plan.large_planes()) else None


def _record_provenance(job: Job, outcome: RunOutcome, inputs: InputFingerprint) -> dict[str, Any]:
    """Writes the provenance beside the tables, and returns what of it the store gets."""
    made = provenance(job, inputs.sha256)
    found = {"images": outcome.images, "planes": outcome.planes, "nuclei": outcome.nuclei}
    joined = {"volumes": outcome.volumes, "tracks": outcome.tracks}
    found |= {name: count for name, count in joined.items() if count is not None}
    counts = {**found, "failures": len(outcome.failures), "missing": len(outcome.missing)}
    write_provenance(job.store, {**made, "output": {**counts, "sha256": table_hashes(job.layout)}})
    return made


def _describe_store(job: Job, outcome: RunOutcome, made: dict[str, Any]) -> None:
    """Lists in the store which masks are good, and whether all are there."""
    if not job.begun.in_place:
        list_masks(job.store, job.plan, job.journal.mirror(), outcome.empty_groups)
        set_complete(job.store, not outcome.missing, made)
    elif not outcome.missing:
        register(job.store, job.plan, outcome.empty_groups, made)


def _forget_attempts(job: Job) -> None:
    """Forgets who died on units, all of which are done now."""
    attempts = Attempts(job.journal.folder)
    for unit in job.plan.units() if attempts.begun() else ():
        attempts.end(unit)
    attempts.remove_folder()


def join_planes(job: Job, planes: Iterable[LargePlane], progress: ProgressCounter, *, alone: bool = True) -> None:
    """Joins the regions of large planes, all of which are done.

    alone: whether nobody else can be at it, so that what killed processes left may be deleted.
    """
    journal, writer, planes = job.journal, MaskWriter(job.store), list(planes)
    if not planes:
        return
    with ImageReader(job.begun.root, job.begun.settings, flat_fields=flat_fields(job)) as images:
        for large in planes:
            progress.tell(f"{large.plane.name}: joining {len(large.units)} regions")
            for unit in large.units if alone else ():
                remove_leftovers_of(job.store, unit)
            try:
                lost = join_plane(
                    large, images=images, journal=journal, writer=writer, table=job.table, settings=job.begun.settings
                )
            except ImageError as error:  # its pixels are stored, too, and cannot be read any more
                marker = journal.marker(large.units[0])
                failure = failure_of(large.plane, "read", error)
                journal.commit(large.units[0], Marker((failure,), 0, "", marker.seen if marker else (None,)), "")
                progress.tell(f"failed: {failure.image}: {failure.message}")
                continue
            if lost:
                progress.tell(
                    f"{large.plane.name}: {lost} pixels are background because neighbouring regions did not agree"
                )


def all_done(job: Job) -> bool:
    """Whether every unit of the run has a marker, of which the files are counted and not read."""
    return job.journal.marker_count() >= sum(1 for _ in job.plan.units())


def files_of(job: Job) -> tuple[Path, ...]:
    """What a finished run has: the store and the tables."""
    return job.store, *job.layout.results.values()
