"""Makes of what the units left what a user reads: joined large planes, smaller levels, tables.

Any process may do it, at any time and again: it writes the same bytes, and nothing where nothing is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from nucseg_batch.errors import ImageError
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.progress import Counter
from nucseg_batch.executors.todo import planes_apart
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
from nucseg_batch.files.opened import Images
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.finish import Entry, collect, table_hashes, table_paths, write_tables
from nucseg_batch.files.run.locks import PATIENCE, ROOT, held, holders
from nucseg_batch.files.run.records import Finished, Marker, PlaneResult
from nucseg_batch.files.whole import remove_leftovers
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.pipeline.large_planes import join_plane
from nucseg_batch.plan import Failure, LargePlane


@dataclass(frozen=True)
class Outcome:
    """What became of a run, or of one share of it."""

    entries: tuple[Entry, ...]
    """Every plane, in order."""
    whole: bool = True
    """Whether this is the whole run and the tables are written, and not a share of it."""

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Planes and images without a mask."""
        return tuple(entry.outcome for entry in self.entries if isinstance(entry.outcome, Failure))

    @property
    def missing(self) -> tuple[Entry, ...]:
        """Planes that were not done yet."""
        return tuple(entry for entry in self.entries if entry.outcome is None)

    @property
    def planes(self) -> int:
        """Planes with a mask."""
        return sum(isinstance(entry.outcome, PlaneResult) for entry in self.entries)

    @property
    def images(self) -> int:
        """Images with a mask, or several."""
        return len({entry.image for entry in self.entries if isinstance(entry.outcome, PlaneResult)})

    @property
    def nuclei(self) -> int:
        """Nuclei in all masks."""
        return sum(entry.outcome.nuclei for entry in self.entries if isinstance(entry.outcome, PlaneResult))


def finish(job: Job, progress: Counter, job_name: str = "", *, own: Collection[str] = ()) -> Outcome:
    """Joins, lists and writes what a run has; units that are still missing are missing in the tables, too.

    job_name: what the scheduler calls this process's work; own: locks of shares that it holds. Raises LockedError where
    another process is at it for long, and OSError where the disk fails.
    """
    with held(job.journal.folder, [ROOT], job=job_name, patience=PATIENCE, tell=progress.tell) as locked:
        others = holders(job.journal.folder).keys() - {ROOT, *own}  # a share may be joining a plane of its own
        return _finish(job, progress, alone=locked and not others)


def _finish(job: Job, progress: Counter, *, alone: bool) -> Outcome:
    """The same, for a process that holds the root lock; alone: False where others may be writing."""
    journal, plan = job.journal, job.plan
    if alone:
        journal.remove_common_leftovers()
        for table in table_paths(job.store).values():
            remove_leftovers(table.parent, {table.name})
    units, planes = list(plan.units()), list(plan.large_planes())
    tables = all(path.exists() for path in table_paths(job.store).values())
    apart = planes_apart(planes, job.store, journal)
    levels = [stack for stack in plan.stacks if levels_missing(job.store, stack)]
    noted = journal.finished()
    if noted is not None and tables and not apart and not levels and noted.state == journal.state(units, planes):
        if not job.begun.in_place:
            set_complete(job.store, not noted.missing)  # a call that ended as the one before it may have taken it away
        return Outcome(tuple(collect(plan, journal)))
    if alone:
        remove_common_leftovers(job.store, plan)
        for stack in levels:
            remove_leftovers_of_levels(job.store, stack)
    join_planes(job, apart, progress, alone=alone)
    for stack in plan.stacks:
        build_levels(job.store, stack)
    entries = collect(plan, journal)
    missing = sum(entry.outcome is None for entry in entries)
    state = journal.state(units, planes)
    failed = _failed_groups(entries)
    if not job.begun.in_place:
        list_masks(job.store, plan, journal.mirror(), failed)
    elif not missing:
        register(job.store, plan, failed)
    write_tables(job.store, entries, job.table)
    if not job.begun.in_place:
        set_complete(job.store, not missing)
    if not missing:
        attempts = Attempts(journal.folder)
        for unit in units if attempts.begun() else ():
            attempts.end(unit)
        attempts.remove_folder()
    metadata = metadata_files(job.store, plan, in_place=job.begun.in_place)
    journal.finish(Finished(state, missing, table_hashes(job.store), metadata))
    return Outcome(tuple(entries))


def _failed_groups(entries: Iterable[Entry]) -> set[str]:
    """Groups of a store's structure that have no mask at all, because every plane of theirs failed."""
    outcomes: dict[str, bool] = {}
    for entry in entries:
        if entry.stack is not None and entry.stack.group is not None:
            failed = isinstance(entry.outcome, Failure)
            outcomes[entry.stack.name] = outcomes.get(entry.stack.name, True) and failed
    return {name for name, failed in outcomes.items() if failed}


def join_planes(job: Job, planes: Iterable[LargePlane], progress: Counter, *, alone: bool = True) -> None:
    """Joins the regions of large planes, all of which are done.

    alone: whether nobody else can be at it, so that what killed processes left may be deleted.
    """
    journal, writer = job.journal, MaskWriter(job.store)
    with Images(job.begun.root, job.begun.settings) as images:
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


def files_of(store: Path) -> tuple[Path, ...]:
    """What a finished run has: the store and the tables."""
    return store, *table_paths(store).values()
