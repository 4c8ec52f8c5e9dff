"""Does a job in this process: takes its locks, runs what is missing, and finishes the run when that was the last of it.

Keras is imported only when there is an image to segment; and the model is loaded before anything of a new run is
written, so that a call that cannot work leaves nothing behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nucseg_batch.errors import (
    InputMissingError,
    LockedError,
    MismatchError,
    UsageError,
)
from nucseg_batch.executors.batches import cache_folder, choose, described
from nucseg_batch.executors.existing import check_fingerprint
from nucseg_batch.executors.finishing import RunOutcome, all_done, files_of, finish, join_planes
from nucseg_batch.executors.garbage import spared
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.pending import find_tasks, planes_to_merge
from nucseg_batch.executors.progress import Progress, ProgressCounter
from nucseg_batch.executors.storage import storage_error
from nucseg_batch.executors.surroundings import machine
from nucseg_batch.files.masks.in_place import create_labels, remove_labels
from nucseg_batch.files.masks.store import (
    MaskWriter,
    create_store,
    is_complete,
    remove_leftovers_of,
    remove_store,
    set_complete,
)
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.finish import PlaneEntry, collect_large, collect_unit
from nucseg_batch.files.run.locks import ALL, JOBS, PATIENCE, ROOT, held, holders, share_lock
from nucseg_batch.files.run.timings import add_timings, now
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.machine.cores import available_cores
from nucseg_batch.machine.memory import keep_arenas_few
from nucseg_batch.pipeline.estimate_scale import choose_scales
from nucseg_batch.pipeline.large_planes import process_regions
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, Scales, Unit

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor


class Stopping(Protocol):
    """What a run needs to know of signals."""

    @property
    def asked(self) -> bool:
        """Whether the process was asked to stop."""
        ...

    def draining(self) -> AbstractContextManager[None]:
        """Holds a stop back until the work in the block, which looks at `asked`, has come to its end."""
        ...


class NeverStopping:
    """For callers that handle signals themselves."""

    asked = False

    def draining(self) -> AbstractContextManager[None]:
        """Does nothing."""
        return nullcontext()


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


def run(
    job: Job, progress: Progress, stop: Stopping | None = None, *, predictor: Predictor | None = None
) -> RunSummary:
    """Does what a job still misses and, where that was the last of its run, finishes this.

    predictor: the job's model, where it is loaded already.

    Raises LockedError where another process is at it, StorageError where the disk fails, and what loading a model
    raises; images that cannot be used are in the summary's failures.
    """
    started = time.monotonic()
    stop = stop or NeverStopping()
    worker = Worker(job, progress, stop, predictor)
    try:
        return worker.run(started)
    except OSError as error:
        raise storage_error(job.store, error) from error


class Worker:
    """One process at one job; a coordinator overrides `load_model`, `freeze_parameters` and `process`."""

    def __init__(self, job: Job, progress: Progress, stop: Stopping, predictor: Predictor | None = None) -> None:
        self._job = job
        self._stop = stop
        self._journal = job.journal
        self._attempts = Attempts(job.journal.folder)
        self._done = ProgressCounter(progress, job.journal, job.options)
        self._predictor = predictor
        self._scales = Scales()
        self._gauge = StageTimer()
        self._alone = True

    def run(self, started: float) -> RunSummary:
        """Takes the locks, does what is missing, and finishes."""
        job, options = self._job, self._job.options
        if job.overwrite:
            check_free(job)  # at once, and again under the locks
        if not job.resumed:
            self.load_model(list(job.units()))
        self._journal.make_place()
        name = job_name()
        locks = [share_lock(share) for share in job.shares]
        with held(self._journal.folder, locks, job=name, tell=self._done.tell) as locked:
            self._alone = locked
            if job.resumed and self._journal.plan_state() != job.plan_state:
                raise LockedError(f"{self._journal.folder} was just planned again; run the same command again.")
            if job.resumed:  # what is there already is kept, so nobody need wait for others
                make_store(job, self._done.progress)
            else:
                with self._root(name):
                    begin(job, self._done.progress)
            units = list(job.units())
            if locked:
                self._journal.remove_leftovers(units)
            tasks, changes = find_tasks(units, job, self._attempts)
            if tasks and job.known is None and not changes.present:
                raise InputMissingError(
                    f"IN {job.begun.root}: none of the images that are to be done is there; is its disk mounted here?"
                )
            for line in changes.lines():
                self._done.tell(line)
            seconds = self._segment(tasks, changes.states, name) if tasks else 0.0
            whole = options.share is None
            if not whole and not all_done(job):
                join_planes(job, planes_to_merge(job.own_planes(), job.store, self._journal), self._done, alone=locked)
                outcome = RunOutcome(tuple(self._own_entries(units)), whole=False)
            else:
                outcome = finish(job, self._done, name, own=[ALL, *locks])
        own = {plane.image.key for unit in units for plane in unit.planes} if not whole else None
        return RunSummary(
            outcome=outcome,
            failures=tuple(one for one in outcome.failures if own is None or one.image in own),
            new_planes=self._done.planes,
            new_pixels=self._done.pixels,
            new_nuclei=self._done.nuclei,
            seconds=time.monotonic() - started,
            stream_seconds=seconds,
            gauge=self._gauge,
            files=files_of(job.store) if outcome.whole else (job.store,),
        )

    def _root(self, name: str) -> AbstractContextManager[bool]:
        """The root lock, for a moment."""
        return held(self._journal.folder, [ROOT], job=name, patience=PATIENCE, tell=self._done.tell)

    def load_model(self, units: Sequence[Unit]) -> str:
        """Loads the model, once, and says how it computes; nothing is written, and what cannot work raises here."""
        if self._predictor is None:
            self._predictor = load_predictor(self._job, units)
        return describe_compute(self._predictor)

    def freeze_parameters(self, states: dict[str, tuple[int, int]]) -> None:
        """Fixes what all processes of the run must share; under the root lock where that may be new."""
        assert self._predictor is not None
        with ImageReader(self._job.begun.root, self._job.settings, states) as images:
            self._scales = freeze_run_parameters(self._job, images, self._predictor, self._done)

    def process(self, tasks: Sequence[UnitTask], states: dict[str, tuple[int, int]]) -> None:
        """Segments and commits units until all are done, or the process is asked to stop."""
        assert self._predictor is not None
        job, done, stop = self._job, self._done, self._stop
        with ImageReader(job.begun.root, job.settings, states) as images:
            self._gauge = process(
                job, tasks, images, self._predictor, self._scales, self._attempts, done, lambda: stop.asked
            )
        for line in (*described(self._predictor, tasks, self._scales, job.settings.channel), *self._gauge.lines()):
            done.progress.detail(line)

    def _segment(self, tasks: Sequence[UnitTask], states: dict[str, tuple[int, int]], name: str) -> float:
        """Does units, and returns for how many seconds."""
        job, done, journal = self._job, self._done, self._journal
        units = [task.unit for task in tasks]
        computing = self.load_model(units)
        for unit in units if self._alone else ():
            remove_leftovers_of(job.store, unit)
        done.tell(f"computing in {computing}, model {job.model.name}")
        planes = sum(1 if task.unit.label_array.regional else len(task.indices) for task in tasks)
        done.log(f"{len(units)} units, {planes} planes to do; {job.settings}; {job.options}")
        done_before = not job.begun.in_place and is_complete(job.store)
        settled = journal.scales() is not None
        with nullcontext(True) if settled and not done_before else self._root(name):
            if done_before:
                set_complete(job.store, False)
            self.freeze_parameters(states)
        done.start(planes, sum(task.pixels for task in tasks), describe_units(units))
        began = time.monotonic()
        with self._stop.draining(), spared():
            self.process(tasks, states)
        seconds = time.monotonic() - began
        done.log(f"{done.planes} planes segmented")
        return seconds

    def _own_entries(self, units: Sequence[Unit]) -> list[PlaneEntry]:
        entries = [one for unit in units if not unit.label_array.regional for one in collect_unit(unit, self._journal)]
        entries += [collect_large(large, self._journal) for large in self._job.own_planes()]
        return sorted(entries, key=lambda entry: entry.order)


def process(
    job: Job,
    tasks: Sequence[UnitTask],
    images: ImageReader,
    predictor: Predictor,
    scales: Scales,
    attempts: Attempts,
    done: ProgressCounter,
    stopped: Any,
) -> StageTimer:
    """Segments and commits units, of whole planes first and then regions; the same for every way to run a plan.

    Returns how busy the stages were, which the log and the timings in the run folder say too.
    """
    began, gauge = now(), StageTimer()
    shared: dict[str, Any] = {
        "images": images,
        "journal": job.journal,
        "attempts": attempts,
        "predictor": predictor,
        "settings": job.settings,
        "scales": scales,
        "tell": done.tell,
        "stopped": stopped,
        "gauge": gauge,
    }
    process_units(
        [task for task in tasks if not task.unit.label_array.regional],
        **shared,
        writer=MaskWriter(job.store),
        table=job.table,
        workers=job.settings.workers or min(8, max(1, available_cores() // 2)),
        advance=done.advance,
    )
    process_regions([task for task in tasks if task.unit.label_array.regional], **shared, advance=done.advance_region)
    for line in gauge.lines():
        job.journal.log(line)
    add_timings(job.store, began, gauge.totals())
    return gauge


def describe_compute(predictor: Predictor) -> str:
    """How a predictor computes, for the user."""
    return f"{predictor.precision} on {predictor.device}"


def load_predictor(job: Job, units: Sequence[Unit], *, choosing: bool = True) -> Predictor:
    """The model of a job on its device, with batches that suit it unless told not to choose these.

    Raises UsageError where it cannot do these units.
    """
    keep_arenas_few()
    from nucseg_batch.network.backend import keep_programs
    from nucseg_batch.network.model_file import load_model
    from nucseg_batch.network.predictor import Predictor

    model = load_model(job.model)
    large = next((unit.planes[0] for unit in units if unit.label_array.regional), None)
    if large is not None and model.info.task == "semantic":
        raise UsageError(
            f"--model {job.model.name} finds the foreground only, which is not done by regions: {large.name} has "
            f"{large.image.height} x {large.image.width} pixels; raise --region to have it done whole."
        )
    with suppress(RuntimeError):
        keep_programs(cache_folder() / "programs")
    predictor = Predictor(model, job.settings)
    if choosing and job.settings.batch_size is None:
        choose(predictor)
    return predictor


def begin(job: Job, progress: Progress) -> None:
    """Makes what a new run writes to, under its root lock: its plan, and then the store.

    A plan that another process has just made is taken over where it is the same.
    """
    journal = job.journal
    if job.overwrite:
        _remove_output(job)
    if journal.exists():
        earlier = journal.load()
        check_fingerprint(journal, earlier.fingerprint, job.begun.fingerprint)
        if (earlier.plan, earlier.shares) != (job.begun.plan, job.begun.shares):
            raise MismatchError(
                f"{journal.folder} was just planned by another process, for other images or another number of shares; "
                "run the same command again."
            )
    else:
        journal.create(job.begun, job.mirror, job.config)
        for one in job.begun.assumptions:
            journal.log(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")
    make_store(job, progress)


def make_store(job: Job, progress: Progress) -> None:
    """Makes what of the store, or of the labels in the input store, is not there yet."""
    if job.begun.in_place:
        create_labels(job.store, job.plan)
        return
    for note in create_store(job.store, job.plan, with_images=job.settings.with_images, mirror=job.mirror):
        progress.note(note)


def freeze_run_parameters(job: Job, images: ImageReader, predictor: Predictor, done: ProgressCounter) -> Scales:
    """Fixes what all processes of a run must share, under its root lock: how is computed, and at which scales."""
    journal = job.journal
    journal.bind(machine(predictor))
    scales = journal.scales()
    if scales is None:
        if predictor.sizes_alone and job.settings.diameter is None:
            scales = Scales(
                adapt="sized", reason="the scale of each image is estimated by the size network of the model"
            )
        else:
            tell = done.progress.note
            scales = choose_scales(job.plan, images, predictor.look, predictor.diameter, job.settings, tell)
        journal.keep_scales(scales)
    done.tell(scales.reason)
    return scales


def describe_units(units: Sequence[Unit]) -> str:
    """What progress counts."""
    regional = {unit.label_array.regional for unit in units}
    if regional == {True}:
        return "regions"
    single = all(unit.label_array.images[0].plane_count == 1 for unit in units)
    return "images" if single and regional == {False} else "planes" if regional == {False} else "planes and regions"


def job_name() -> str:
    """What the scheduler calls the job that this process belongs to; empty outside of one."""
    return next((f"{what} {os.environ[name]}" for what, name in JOBS if os.environ.get(name)), "")


def check_free(job: Job, own: Collection[str] = ()) -> None:
    """Raises LockedError where processes are at an output, but for those that hold these locks."""
    others = {name: who for name, who in holders(job.journal.folder).items() if name not in own}
    if others:
        name, who = next(iter(others.items()))
        raise LockedError(f"{job.journal.folder}: {name} is in use by {who}; stop that first, or give another OUT.")


def _remove_output(job: Job) -> None:
    """Deletes an earlier output, unless processes are at it."""
    check_free(job, own={ROOT, ALL, *(share_lock(share) for share in job.shares)})
    for path in RunLayout(job.store).results.values():
        path.unlink(missing_ok=True)
    job.journal.clear()
    if job.begun.in_place:
        remove_labels(job.store, job.plan)
    elif job.store.exists():
        remove_store(job.store)
