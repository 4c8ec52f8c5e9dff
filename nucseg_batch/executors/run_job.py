"""Does a job with an executor: takes its locks, finds what is missing, has it computed, and finishes the run.

The model is loaded before anything of a new run is written, so that a call that cannot work leaves nothing behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from nucseg_batch.errors import InputMissingError
from nucseg_batch.executors.executor import Executor, Stopping
from nucseg_batch.executors.finishing import RunOutcome, all_done, files_of, finish, join_planes
from nucseg_batch.executors.garbage import spared
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.linking import groups_to_link, link_groups, own_groups
from nucseg_batch.executors.output import add_images, begin, check_free, check_plan, make_store, start_linking
from nucseg_batch.executors.pending import find_tasks, planes_to_merge
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.storage import storage_error
from nucseg_batch.executors.surroundings import job_name
from nucseg_batch.files.masks.store import is_complete, remove_leftovers_of, set_complete
from nucseg_batch.files.opened import State
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.finish import PlaneEntry, collect_large, collect_unit
from nucseg_batch.files.run.locks import ALL, PATIENCE, ROOT, held, share_lock
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, Unit


@dataclass(frozen=True)
class RunSummary:
    """What a call came to."""

    outcome: RunOutcome
    """What became of every plane of the run, or of the share that this process did."""
    failures: tuple[Failure, ...]
    """Planes without a mask of those that were this process's to do; of a whole run also images refused while planning.
    """
    new_planes: int
    """Planes that this call segmented."""
    new_pixels: int
    """Pixels that this call segmented."""
    new_nuclei: int
    """Nuclei that it found in them; those of regions before these are joined."""
    seconds: float
    """Time from the finished plan to the end, loading the model included."""
    stream_seconds: float
    """Of these, the time from the first image read to the last unit written."""
    gauge: StageTimer
    """How busy the stages were in that time."""
    files: tuple[Path, ...]
    """The store and the tables; the tables only where the whole run is done."""


def run_job(job: Job, executor: Executor, done: ProgressCounter, stop: Stopping) -> RunSummary:
    """Does what a job still misses and, where that was the last of its run, finishes this.

    Raises LockedError where another process is at it, StorageError where the disk fails, and what loading a model
    raises; images that cannot be used are in the summary's failures.
    """
    try:
        return _Session(job, executor, done, stop).run()
    except OSError as error:
        raise storage_error(job.store, error) from error


class _Session:
    """One call at one job."""

    def __init__(self, job: Job, executor: Executor, done: ProgressCounter, stop: Stopping) -> None:
        self._job, self._executor, self._done, self._stop = job, executor, done, stop
        self._journal = job.journal
        self._job_name = job_name()
        self._gauge = StageTimer()
        self._stream_seconds = 0.0

    def run(self) -> RunSummary:
        """Takes the locks, does what is missing, and finishes."""
        job, started = self._job, time.monotonic()
        if job.overwrite:
            check_free(job)  # at once, and again under the locks
        if not job.resumed:
            self._executor.load_model(list(job.units()))
        self._journal.make_place()
        locks = [share_lock(share) for share in job.shares]
        with held(self._journal.folder, locks, job=self._job_name, tell=self._done.tell_once) as alone:
            self._make_output()
            units = list(job.units())
            if alone:
                self._journal.remove_leftovers(units)
            self._compute_missing(units, alone=alone)
            if job.options.share is None or (all_done(job) and not job.leaves_tables):
                outcome = finish(job, self._done, self._job_name, own=[ALL, *locks])
            else:
                join_planes(job, planes_to_merge(job.own_planes(), job.store, self._journal), self._done, alone=alone)
                link_groups(job, groups_to_link(job, own_groups(job)), self._done, alone=alone)
                outcome = RunOutcome(tuple(self._own_entries(units)), whole=False)
        return self._summary(outcome, units, time.monotonic() - started)

    def _make_output(self) -> None:
        """Makes the plan and the store of a new run; of one that is resumed what is new, and missing of its store."""
        job, progress = self._job, self._done.progress
        if job.starts_linking:
            with self._root():
                start_linking(job, progress)
            return
        if not job.resumed or job.added is not None:
            with self._root():
                begin(job, progress) if job.added is None else add_images(job, progress)
            return
        check_plan(job)
        make_store(job, progress)  # keeps what exists, so no lock is needed

    def _root(self) -> AbstractContextManager[bool]:
        """The root lock, for a moment."""
        return held(self._journal.folder, [ROOT], job=self._job_name, patience=PATIENCE, tell=self._done.tell_once)

    def _compute_missing(self, units: Sequence[Unit], *, alone: bool) -> None:
        """Has the units done that are not, or not as they should be."""
        job = self._job
        tasks, changes = find_tasks(units, job, Attempts(self._journal.folder))
        if tasks and job.known is None and not changes.present:
            raise InputMissingError(
                f"{job.begun.root}: none of the images that are to be done is there; is its disk mounted here?"
            )
        for line in changes.lines():
            self._done.tell(line)
        if tasks:
            self._compute(tasks, changes.states, alone=alone)

    def _compute(self, tasks: Sequence[UnitTask], states: Mapping[str, State], *, alone: bool) -> None:
        """Has units done, and measures how long that takes."""
        job, done, journal = self._job, self._done, self._journal
        units = [task.unit for task in tasks]
        computing = self._executor.load_model(units)
        for unit in units if alone else ():
            remove_leftovers_of(job.store, unit)
        done.tell(f"computing in {computing}, model {job.model.name}")
        planes = sum(1 if task.unit.label_array.regional else len(task.indices) for task in tasks)
        done.log(f"{len(units)} units, {planes} planes to do; {job.settings}; {job.options}")
        done_before = not job.begun.in_place and is_complete(job.store)
        settled = journal.scales() is not None
        with nullcontext(True) if settled and not done_before else self._root():
            if done_before:
                set_complete(job.store, False)
            self._executor.freeze_parameters(states)
        done.start(planes, sum(task.pixels for task in tasks), _describe_units(units))
        began = time.monotonic()
        with self._stop.draining(), spared():
            self._gauge = self._executor.process(tasks, states, lambda: self._stop.asked)
        self._stream_seconds = time.monotonic() - began
        done.log(f"{done.planes} planes segmented")

    def _own_entries(self, units: Sequence[Unit]) -> list[PlaneEntry]:
        entries = [one for unit in units if not unit.label_array.regional for one in collect_unit(unit, self._journal)]
        entries += [collect_large(large, self._journal) for large in self._job.own_planes()]
        return sorted(entries, key=lambda entry: entry.order)

    def _summary(self, outcome: RunOutcome, units: Sequence[Unit], seconds: float) -> RunSummary:
        job, done = self._job, self._done
        failures = outcome.failures
        if job.options.share is not None:
            own = {plane.image.key for unit in units for plane in unit.planes}
            failures = tuple(one for one in failures if one.image in own)
        return RunSummary(
            outcome=outcome,
            failures=failures,
            new_planes=done.planes,
            new_pixels=done.pixels,
            new_nuclei=done.nuclei,
            seconds=seconds,
            stream_seconds=self._stream_seconds,
            gauge=self._gauge,
            files=files_of(job) if outcome.whole else (job.store,),
        )


def _describe_units(units: Sequence[Unit]) -> str:
    """What progress counts."""
    regional = {unit.label_array.regional for unit in units}
    if regional == {True}:
        return "regions"
    single = all(unit.label_array.images[0].plane_count == 1 for unit in units)
    return "images" if single and regional == {False} else "planes" if regional == {False} else "planes and regions"
