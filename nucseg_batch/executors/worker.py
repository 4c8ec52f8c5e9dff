"""What a process of a dask cluster does: units of a run, which it is told by number and finds in the run folder.

Each process loads the run and the model once. Two tasks are in flight at a time, so that one reads and writes while the
other is on the device, which serves one at a time. A unit on which a process has died is done while nothing else is in
hand in its process: whoever dies of it dies alone, and only it is blamed.

Nothing is raised: a `Report` holds the error, so that it reaches the user in one line and not through dask's logs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import platform
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from distributed import Status, WorkerPlugin
from distributed import Worker as DaskWorker

from nucseg_batch.errors import InputMissingError, NucsegError, OutputError
from nucseg_batch.executors import local
from nucseg_batch.executors.flat_fields import flat_fields
from nucseg_batch.executors.job import Job, planned
from nucseg_batch.executors.stop import SIGNALS
from nucseg_batch.executors.surroundings import machine
from nucseg_batch.executors.worker_state import AttemptsInFlight, Gate, SharedPredictor, WorkerProgress
from nucseg_batch.files.masks.store import remove_leftovers_of
from nucseg_batch.files.opened import ImageReader, State
from nucseg_batch.files.run.attempts import History
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker
from nucseg_batch.machine.own_process import claim
from nucseg_batch.pipeline.kernels_ahead import load_ahead
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, Unit

THREADS = 2
"""Tasks that a process has in flight at once."""
SEEN_SECONDS = 20.0
"""How long a worker waits for files that another machine has just written; network file systems take their time."""
LEAVING_SECONDS = 3.0
"""How long a process that is told to end waits for its units; dask kills it a little later."""
_log = logging.getLogger("distributed.nucseg_batch")


@dataclass(frozen=True)
class TaskContext:
    """What every task of a run is told."""

    token: str
    """Of the process that hands out the work."""
    store: str
    """OUT, as an absolute path."""
    plan_sha256: str
    """Of the plan with all that was added to it, so that a worker knows whether it sees the same OUT."""
    speed: tuple[tuple[str, Any], ...]
    """Options that only change how fast it goes."""


@dataclass(frozen=True)
class UnitOrder:
    """A unit that is to be done, in numbers."""

    label_array: int
    """Which label array of the plan."""
    number: int
    """Which of its units."""
    again: tuple[int, ...] | None = None
    """These planes only, as numbers in the unit; None for all."""
    before: int | None = None
    """When it was committed last, in nanoseconds; where that has changed it is done."""
    hopeless: bool = False
    """Whether so many processes died on it that its planes become failures without another look."""


@dataclass
class Report:
    """What came of a task."""

    lines: list[str] = field(default_factory=list)
    """For the user."""
    outcomes: list[tuple[int, int, int | Failure]] = field(default_factory=list)
    """Which of the orders, which plane of its unit, and that plane's nuclei, or why it failed."""
    error: Exception | None = None
    """What ended the task."""


def try_model(job: Job, environment: Mapping[str, str]) -> Report:
    """Loads a model before its run is begun, and says how it computes; the job's plan may be a part of it.

    A second line says why a GPU is not used, where there is one.
    """
    os.environ.update(environment)
    with _reported() as report:
        predictor = _predictor(job)
        report.lines.append(local.describe_compute(predictor))
        if line := local.unused_gpu_line(job.settings, predictor):
            report.lines.append(line)
    return report


def freeze_run_parameters(assignment: TaskContext, states: Mapping[str, State]) -> Report:
    """Fixes what all processes of a run must share; the caller holds the root lock."""
    with _reported() as report:
        job = _job(assignment)
        listener: Any = WorkerProgress(report.lines, report.outcomes)
        with ImageReader(job.begun.root, job.settings, states) as images:
            local.freeze_run_parameters(job, images, _predictor(job), listener)
    return report


def do_units(assignment: TaskContext, orders: Sequence[UnitOrder], states: Mapping[str, State]) -> Report:
    """Segments and commits units; those that were committed by an earlier try are only told of.

    A unit without an outcome was not begun, because the process was asked to stop.
    """
    with _at_work(assignment.token), _reported() as report:
        run = _run(assignment)
        with ImageReader(run.job.begun.root, run.job.settings, states, run.flat_fields) as images:
            run.do(orders, images, report, lambda: _leaving.is_set() or assignment.token in _stopped)
    return report


async def finish_in_flight(token: str, seconds: float) -> None:
    """Begins no further unit of a run in this process, and waits for those in flight; called in dask's own thread."""
    _stopped.add(token)
    await _rest(lambda: _active[token], seconds)


class WorkerSetup(WorkerPlugin):
    """Prepares a process for our tasks, and has it end in good order.

    A signal that ends the process lets its units be finished first, and what takes too long be forgotten, so that no
    image is blamed for it. environment: variables that it gets; log: a file for all that it prints, with the worker's
    name for `%n`; None where that is none of our business.
    """

    def __init__(self, environment: Mapping[str, str], log: str | None = None) -> None:
        self._environment = dict(environment)
        self._log = log
        self._previous: dict[int, Any] = {}
        self._ready_to_end = False

    def setup(self, worker: DaskWorker) -> None:
        """Called when a worker, or this plugin, comes new to the other."""
        os.environ.update(self._environment)
        if self._log is not None:
            claim()
            _redirect(self._log.replace("%n", str(worker.name)))
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)

    async def teardown(self, worker: DaskWorker) -> None:
        """Called when the worker ends, or this plugin is taken away."""
        if worker.status not in (Status.init, Status.running, Status.paused):
            _leaving.set()
            await _rest(_active.total, LEAVING_SECONDS)
            _forget()
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._ready_to_end:
            self._restore()
            os.kill(os.getpid(), number)  # it does now what it would have done
        else:
            threading.Thread(target=self._leave, args=(number,), name="leave", daemon=True).start()

    def _leave(self, number: int) -> None:
        _leaving.set()
        end = time.monotonic() + LEAVING_SECONDS
        while _active.total() and time.monotonic() < end:
            time.sleep(0.02)
        _forget()
        self._ready_to_end = True
        os.kill(os.getpid(), number)

    def _restore(self) -> None:
        while self._previous:
            number, previous = self._previous.popitem()
            if previous is not None:  # None was not set from Python and cannot be
                signal.signal(number, previous)


class _Run:
    """A run, loaded in this process."""

    def __init__(self, assignment: TaskContext) -> None:
        self.job = _job(assignment)
        self._journal: Journal = self.job.journal
        self._predictor = _predictor(self.job)
        self._journal.bind(machine(self._predictor))
        scales = _seen(self._journal.scales)
        if scales is None:
            raise OutputError(f"{self._journal.folder}: scales.json is missing or damaged; run the same command again.")
        self._scales = scales
        self.flat_fields = flat_fields(self.job)
        self.attempts = AttemptsInFlight(self._journal.folder)

    def do(self, orders: Sequence[UnitOrder], images: ImageReader, report: Report, stopped: Callable[[], bool]) -> None:
        """Does units: all at once, but those on which a process has died one by one and alone."""
        listener = WorkerProgress(report.lines, report.outcomes)
        fresh: list[UnitTask] = []
        suspects: list[UnitTask] = []
        for index, order in enumerate(orders):
            unit = Unit(self.job.plan.label_arrays[order.label_array], order.number)
            marker = self._journal.marker(unit)
            if marker is not None and self._journal.committed_ns(unit) != order.before:
                self.attempts.end(unit)
                report.outcomes += _outcomes(index, order, marker)
                continue
            task = self._task(order, unit, marker)
            listener.expect(index, task)
            (suspects if task.history.deaths else fresh).append(task)
        with _gate.shared():
            self._process(fresh, images, listener, stopped)
        for task in suspects:
            with _gate.alone():
                self._journal.remove_leftovers([task.unit])
                remove_leftovers_of(self.job.store, task.unit)
                self._process([task], images, listener, stopped)

    def _task(self, order: UnitOrder, unit: Unit, marker: Marker | None) -> UnitTask:
        history = self.attempts.history(unit)
        if order.hopeless:
            history = History(history.deaths, frozenset(range(unit.plane_count)))
        if order.again is None or marker is None:
            return UnitTask(unit, history=history)
        return UnitTask(unit, marker, frozenset(order.again), history)

    def _process(
        self, tasks: Sequence[UnitTask], images: ImageReader, listener: Any, stopped: Callable[[], bool]
    ) -> None:
        predictor: Any = self._predictor
        local.process(self.job, tasks, images, predictor, self._scales, self.attempts, listener, stopped)


_loading = threading.RLock()
_gate = Gate()
_runs: dict[TaskContext, _Run] = {}
_predictors: dict[tuple[Any, ...], Any] = {}
_leaving = threading.Event()
_stopped: set[str] = set()
_active: Counter[str] = Counter()
"""Tasks in flight, by token."""
_counting = threading.Lock()


@contextmanager
def _at_work(token: str) -> Iterator[None]:
    """Counts a task that is in flight; in a process that is about to end it waits for this, and is done elsewhere."""
    while _leaving.is_set():
        time.sleep(1)
    with _counting:
        _active[token] += 1
    try:
        yield
    finally:
        with _counting:
            _active[token] -= 1


@contextmanager
def _reported() -> Iterator[Report]:
    """A report, which also gets what the block raises."""
    report = Report()
    try:
        yield report
    except Exception as error:
        if not isinstance(error, NucsegError):
            _log.error("a task of nucseg-batch failed", exc_info=error)
        report.error = _portable(error)


def _portable(error: Exception) -> Exception:
    """An error that another process can be sent."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # errors of other libraries may need arguments that they do not tell
        _log.debug("an error cannot be pickled", exc_info=True)
    return RuntimeError(f"{type(error).__name__}: {error}")


def _run(assignment: TaskContext) -> _Run:
    """A run, loaded at its first task; only the latest is kept."""
    with _loading:
        if assignment not in _runs:
            _runs.clear()
            _runs[assignment] = _Run(assignment)
        return _runs[assignment]


def _job(assignment: TaskContext) -> Job:
    """The run at OUT; raises OutputError or InputMissingError where this machine does not see OUT or IN."""
    store = Path(assignment.store)
    journal = Journal(store)
    if not _seen(lambda: journal.exists() and journal.plan_sha256() == assignment.plan_sha256):
        raise OutputError(
            f"{store}: the worker on {platform.node()} does not see it, or sees another one; all workers need one "
            "file system with OUT and IN under the same paths."
        )
    job = planned(store, None, dict(assignment.speed))
    if "://" not in job.begun.root and not os.path.exists(job.begun.root):
        raise InputMissingError(
            f"{job.begun.root}: the worker on {platform.node()} does not see it; all workers need one file system "
            "with OUT and IN under the same paths."
        )
    return job


def _seen(look: Callable[[], Any]) -> Any:
    """What `look` returns as soon as that is something; else what it returned last."""
    end = time.monotonic() + SEEN_SECONDS
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def _predictor(job: Job) -> Any:
    """The model of a job on its device; only the latest is kept."""
    with _loading:
        key = (job.begun.fingerprint["--model (sha256)"], replace(job.settings, workers=None))
        if key not in _predictors:
            _predictors.clear()
            load_ahead(job.plan, job.settings, job.model)
            large = [Unit(label_array, 0) for label_array in job.plan.label_arrays if label_array.regional]
            _predictors[key] = SharedPredictor(local.load_predictor(job, large[:1]))
        return _predictors[key]


def _outcomes(index: int, order: UnitOrder, marker: Marker) -> list[tuple[int, int, int | Failure]]:
    """What the planes of a unit came to that is done."""
    planes = range(len(marker.planes)) if order.again is None else order.again
    found = [(plane, marker.planes[plane]) for plane in planes]
    return [(index, plane, one if isinstance(one, Failure) else one.nuclei) for plane, one in found]


async def _rest(count: Callable[[], int], seconds: float) -> None:
    """Waits until nothing is in flight, but no longer than that."""
    end = time.monotonic() + seconds
    while count() and time.monotonic() < end:
        await asyncio.sleep(0.02)


def _forget() -> None:
    """Units in flight were not what ends this process."""
    for run in list(_runs.values()):
        run.attempts.forget()


def _redirect(path: str) -> None:
    """Sends what this process prints to a file."""
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
