"""Computes a job's units with the processes of a dask cluster: hands them out and counts; computes nothing here.

This process holds the run's locks, so the workers need none. Work is handed out a little ahead of need. A worker that
is lost costs what it had in flight. Units on which workers die are handed out again one by one, until what their tries
left in the run folder names the guilty images, which then become failures; see `worker` and `files.run.attempts`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Future, KilledWorker

from nucseg_batch.errors import DeviceError
from nucseg_batch.executors import processes
from nucseg_batch.executors.dask_pool import ClusterSettings, WorkerPool, environment, open_pool
from nucseg_batch.executors.device_watch import watched
from nucseg_batch.executors.executor import NeverStopping, Stopping
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.local import note_watched
from nucseg_batch.executors.processes import ProcessPlan
from nucseg_batch.executors.progress import Progress, ProgressCounter
from nucseg_batch.executors.run_job import RunSummary, run_job
from nucseg_batch.executors.worker import Report, TaskContext, UnitOrder, do_units, freeze_run_parameters, try_model
from nucseg_batch.files.opened import State
from nucseg_batch.files.retry import HOPELESS, STRIKES
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.timings import now
from nucseg_batch.files.run_layout import WORKER_LOG
from nucseg_batch.pipeline.kernels_ahead import typical_images
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, Plan, Unit
from nucseg_batch.settings import SPEED_OPTIONS, RunSettings, SegmentSettings

TASK_PIXELS = (2**18, 2**26)
"""Pixels of a task at least, where units are small, and at most, where they are not larger."""
REGIONS = 8
"""Regions of one plane in a task: what they share is found out once for each task."""
PARTS = 4
"""Into how many tasks a run is divided for each that workers can have in flight, where there is enough to do."""
AHEAD = 2
"""Tasks that are handed out for each that workers can have in flight, so that none waits."""
DRAINING = 0.6
"""Part of the grace in which workers end what is in flight; the rest is for closing the cluster."""
LOOK_SECONDS = 5.0
"""Time between two looks at who is there."""
WAITING_SECONDS = 30.0
"""After how long the user is told that no worker is there."""
STARTING_SECONDS = 300.0
"""How long processes of this machine may take to start; jobs may wait for days."""


def run(job: Job, progress: Progress, settings: ClusterSettings, stop: Stopping | None = None) -> RunSummary:
    """Does what a job still misses with other processes, see `run_job`.

    Raises what that raises, and DeviceError where there are no workers to do it.
    """
    done = ProgressCounter(progress, job.journal, job.options)
    with contextlib.ExitStack() as stack:
        return run_job(job, DaskExecutor(job, done, settings, stack), done, stop or NeverStopping())


@dataclass(frozen=True)
class Bundle:
    """Units that are one task."""

    orders: tuple[UnitOrder, ...]
    """The units."""
    states: dict[str, State]
    """Images of them that are not as they were planned, as they are now, by key."""


class DaskExecutor:
    """Workers of a dask cluster, which are called when they are needed first and closed with `stack`."""

    def __init__(
        self,
        job: Job,
        done: ProgressCounter,
        settings: ClusterSettings,
        stack: contextlib.ExitStack,
        plan: ProcessPlan | None = None,
    ) -> None:
        self._job = job
        self._done = done
        self._settings = settings
        self._stack = stack
        self._plan = plan
        share = job.options.share  # shares of one run may each have processes, on other machines
        self._prefix = "" if share is None else f"{share:05d}-"
        self._journal = job.journal
        self._attempts = Attempts(self._journal.folder)
        self._token = uuid.uuid4().hex[:12]
        self._pool: WorkerPool | None = None
        self._computing = ""
        self._told: set[str] = set()
        self._submitted = 0
        self._strikes = 0
        self._deaths: dict[str, int] = {}
        self._assignment = TaskContext(self._token, "", "", ())
        self._arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()

    def load_model(self, units: Sequence[Unit]) -> str:
        """See Executor; a worker loads it."""
        if not self._computing:
            job = _with_typical_images(self._job, units, self._settings_there())
            self._computing, *lines = self._ask(try_model, job, environment()).lines
            for line in lines:
                self._tell(line)
        return self._computing

    def freeze_parameters(self, states: Mapping[str, State]) -> None:
        """See Executor; a worker fixes them."""
        speed = {name: getattr(self._settings_there(), name) for name in SPEED_OPTIONS}
        self._assignment = TaskContext(
            token=self._token,
            store=os.path.abspath(self._job.store),
            plan_sha256=self._journal.plan_sha256(),
            speed=tuple(sorted(speed.items())),
        )
        for line in self._ask(freeze_run_parameters, self._assignment, states).lines:
            self._tell(line)

    def process(
        self, tasks: Sequence[UnitTask], states: Mapping[str, State], stopped: Callable[[], bool]
    ) -> StageTimer:
        """See Executor; work that workers have in flight when they are stopped is waited for."""
        pool = self._opened()
        bundles = deque(self._bundles(tasks, states, pool.expected))
        running: dict[str, tuple[Future, Bundle]] = {}
        gpus = sorted({gpu for gpu in self._plan.gpus if gpu}) if self._plan and "gpu" in self._computing else []
        began = now()
        with watched(gpus) as seen:
            try:
                self._hand_out(bundles, running, pool, stopped)
            finally:
                if running:
                    seconds = DRAINING * self._job.options.grace
                    pool.drain([future for future, _ in running.values()], seconds)
        note_watched(self._job, began, seen)
        return StageTimer()

    def _hand_out(
        self,
        bundles: deque[Bundle],
        running: dict[str, tuple[Future, Bundle]],
        pool: WorkerPool,
        stopped: Callable[[], bool],
    ) -> None:
        threads, looked = 0, -LOOK_SECONDS
        waiting = self._waiting(pool)
        while (bundles or running) and not stopped():
            moment = time.monotonic()
            if moment - looked >= LOOK_SECONDS:
                threads, looked = next(waiting), moment
            while bundles and len(running) < AHEAD * max(threads, 1):
                bundle = bundles.popleft()
                future = self._submit(do_units, self._assignment, bundle.orders, bundle.states)
                running[future.key] = future, bundle
                future.add_done_callback(self._arrived.put)
            with contextlib.suppress(queue.Empty):
                future = self._arrived.get(timeout=0.2)
                _, bundle = running.pop(future.key)
                bundles.extendleft(reversed(self._received(future, bundle)))

    def _received(self, future: Future, bundle: Bundle) -> list[Bundle]:
        """Counts what a task did; what is still to be done of it is returned."""
        try:
            report = _report(future)
        except KilledWorker:
            return self._after_deaths(bundle)
        for line in report.lines:
            self._tell(line)
        done = {index for index, _, _ in report.outcomes}
        for index, number, outcome in report.outcomes:
            self._count(self._unit(bundle.orders[index]), number, outcome)
        if report.error is not None:
            raise report.error
        if done:
            self._strikes = 0
        left = tuple(order for index, order in enumerate(bundle.orders) if index not in done)
        return [replace(bundle, orders=left)] if left else []

    def _count(self, unit: Unit, number: int, outcome: int | Failure) -> None:
        if unit.label_array.regional:
            self._done.count_region(unit, outcome)
        else:
            self._done.count_plane(unit.label_array.plane(unit.place(number)), outcome)

    def _after_deaths(self, bundle: Bundle) -> list[Bundle]:
        """The units of a task on which so many workers died that dask gave it up: each is now a task by itself.

        What became of each is in the run folder, so that the worker that gets it does it carefully.
        """
        learned, orders = False, []
        for order in bundle.orders:
            unit = self._unit(order)
            deaths = self._attempts.history(unit).deaths
            learned |= deaths > self._deaths.get(unit.name, 0)
            self._deaths[unit.name] = deaths
            if deaths >= HOPELESS and not order.hopeless:
                self._tell(f"{unit.name}: {deaths} processes died on it; it is given up")
                order = replace(order, hopeless=True)
            orders.append(order)
        self._strikes = 0 if learned else self._strikes + 1
        if self._strikes >= STRIKES:
            raise DeviceError(
                f"{self._settings.text}: worker after worker dies before it begins anything; look into their logs. "
                "Does the memory suffice?"
            )
        return [replace(bundle, orders=(order,)) for order in orders]

    def _ask(self, function: Callable[..., Report], *arguments: Any) -> Report:
        """Has one worker do something at once, and waits for it; raises what was wrong with it."""
        pool = self._opened()
        future = self._submit(function, *arguments)
        waiting, looked = self._waiting(pool), time.monotonic()
        while not future.done():
            time.sleep(0.05)
            if time.monotonic() - looked > LOOK_SECONDS:
                next(waiting)
                looked = time.monotonic()
        try:
            report = _report(future)
        except KilledWorker as error:
            raise DeviceError(
                f"{self._settings.text}: every worker that began to {function.__name__.replace('_', ' ')} died; look "
                "into their logs. Does the memory suffice?"
            ) from error
        if report.error is not None:
            raise report.error
        return report

    def _waiting(self, pool: WorkerPool) -> Iterator[int]:
        """How many tasks the workers can hold, counted at each step; warns the user if no worker comes."""
        seen = time.monotonic()
        while True:
            threads = pool.threads()
            seen = time.monotonic() if threads else seen
            if time.monotonic() - seen > WAITING_SECONDS:
                self._tell("waiting for workers: none is there")
            if self._settings.cluster == "local" and time.monotonic() - seen > STARTING_SECONDS:
                raise DeviceError(
                    f"{self._settings.text}: its processes do not start; {self._journal.folder} has logs."
                )
            yield threads

    def _submit(self, function: Callable[..., Report], *arguments: Any) -> Future:
        self._submitted += 1
        return self._opened().submit(function, *arguments, key=f"{function.__name__}-{self._submitted}")

    def _opened(self) -> WorkerPool:
        """The workers, called at the first call."""
        if self._pool is None:
            self._journal.make_place()
            self._stack.callback(self._tidy)
            settings = self._job.settings
            if self._plan is None and self._settings.cluster == "local":
                self._plan = processes.here(settings, None, self._settings.processes)
            pool = open_pool(
                self._settings,
                self._token,
                self._journal.folder,
                device=settings.device,
                plan=self._plan,
                prefix=self._prefix,
                tell=self._tell,
                log=self._log,
            )
            self._pool = self._stack.enter_context(pool)
        return self._pool

    def _settings_there(self) -> SegmentSettings:
        """The job's settings with what this pool adds to them."""
        settings = self._job.settings
        return replace(settings, workers=settings.workers or self._opened().readers)

    def _bundles(self, tasks: Sequence[UnitTask], states: Mapping[str, State], expected: int) -> Iterator[Bundle]:
        """Tasks for the workers, of about equally many pixels, of units that follow each other."""
        numbers = {id(label_array): number for number, label_array in enumerate(self._job.plan.label_arrays)}
        total = sum(task.pixels for task in tasks)
        most = min(max(total // (PARTS * expected), TASK_PIXELS[0]), TASK_PIXELS[1])
        group: list[UnitTask] = []
        pixels = 0
        for task in tasks:
            pixels += task.pixels
            if group and not _fit(group[-1].unit, task.unit, pixels, most, len(group)):
                yield self._bundle(group, numbers, states)
                group, pixels = [], task.pixels
            group.append(task)
        if group:
            yield self._bundle(group, numbers, states)

    def _bundle(self, group: Sequence[UnitTask], numbers: dict[int, int], states: Mapping[str, State]) -> Bundle:
        orders = []
        for task in group:
            before = None
            with contextlib.suppress(FileNotFoundError):
                before = self._journal.committed_ns(task.unit)
            again = tuple(task.indices) if task.kept is not None else None
            orders.append(UnitOrder(numbers[id(task.unit.label_array)], task.unit.number, again, before))
        keys = {plane.image.key for task in group for plane in task.unit.planes} if states else set()
        return Bundle(tuple(orders), {key: states[key] for key in keys & states.keys()})

    def _unit(self, order: UnitOrder) -> Unit:
        return Unit(self._job.plan.label_arrays[order.label_array], order.number)

    def _tell(self, line: str) -> None:
        """A line for the user, once; for the log, too, where there is a run."""
        if line not in self._told:
            self._told.add(line)
            if self._journal.exists():
                self._done.tell(line)
            else:
                self._done.progress.note(line)

    def _log(self, line: str) -> None:
        if self._journal.exists():
            self._journal.log(line)

    def _tidy(self) -> None:
        """Takes empty logs away, and an empty run folder."""
        with contextlib.suppress(OSError):
            for path in self._journal.folder.glob(WORKER_LOG.format(f"{self._prefix}*")):
                if path.stat().st_size == 0:
                    path.unlink()
            if not self._journal.exists():
                self._journal.folder.rmdir()


def _fit(last: Unit, unit: Unit, pixels: int, most: int, count: int) -> bool:
    """Whether a unit belongs into a task that ends with another and would have so many pixels with it."""
    if last.label_array.regional or unit.label_array.regional:
        same = last.label_array is unit.label_array and last.block[:-2] == unit.block[:-2]
        return same and count < REGIONS and pixels <= REGIONS * most
    return pixels <= most


def _report(future: Future) -> Report:
    """What a task came to; raises KilledWorker, and DeviceError for what else goes wrong between processes."""
    if future.status == "finished":
        try:
            report: Report = future.result()
            return report
        except (OSError, CancelledError) as error:
            raise DeviceError("the dask scheduler has disappeared; run the same command again to resume.") from error
    if future.status != "error":
        raise DeviceError("the dask scheduler has disappeared; run the same command again to resume.")
    reason = future.exception()
    if isinstance(reason, KilledWorker):
        raise reason
    if isinstance(reason, ImportError):
        raise DeviceError(f"a worker cannot run nucseg-batch ({reason}); install it there as it is here.")
    raise DeviceError(f"a worker failed ({type(reason).__name__}: {reason}).")


def _with_typical_images(job: Job, units: Sequence[Unit], settings: SegmentSettings) -> Job:
    """What of a job that is not begun shows whether its model can do it, and which compiled loops it needs."""
    arrays = {id(unit.label_array): unit.label_array for unit in units}
    plan = Plan(typical_images(arrays.values()), ())
    begun = replace(job.begun, plan=plan, files={})
    store = Path(os.path.abspath(job.store))
    return Job(store, begun, settings, RunSettings(), job.resumed)
