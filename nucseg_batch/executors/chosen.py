"""Computes a job's units in as many processes of this machine as suit it: in this one, or in several of a dask cluster.

How many is decided when it is known what is to be done, see `processes`. Whether the backend can use a GPU is only
known when a process has loaded it: where several were started for a GPU that it cannot use, this process does the work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nucseg_batch.executors import processes
from nucseg_batch.executors.executor import Executor, NeverStopping, Stopping
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.local import LocalExecutor
from nucseg_batch.executors.progress import Progress, ProgressCounter
from nucseg_batch.executors.run_job import RunSummary, run_job
from nucseg_batch.files.opened import State
from nucseg_batch.machine.gpus import keep_visible
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Unit

if TYPE_CHECKING:
    from nucseg_batch.executors.cluster import DaskExecutor


def run(job: Job, progress: Progress, stop: Stopping | None = None, asked: int | None = None) -> RunSummary:
    """Does what a job still misses, see `run_job`; asked: in how many processes, None for as many as suit.

    Where this process does it alone, all GPUs but the one that it uses are hidden from it.
    """
    done = ProgressCounter(progress, job.journal, job.options)
    with contextlib.ExitStack() as stack:
        return run_job(job, ChosenExecutor(job, done, stack, asked), done, stop or NeverStopping())


class ChosenExecutor:
    """This process, or several; those are closed with `stack`."""

    def __init__(self, job: Job, done: ProgressCounter, stack: contextlib.ExitStack, asked: int | None) -> None:
        self._job = job
        self._done = done
        self._stack = stack
        self._asked = asked
        self._reason = ""
        self._computing = ""
        self._executor: Executor | None = None

    def load_model(self, units: Sequence[Unit]) -> str:
        """See Executor."""
        if self._executor is None:
            self._choose(units)
        return self._computing

    def freeze_parameters(self, states: Mapping[str, State]) -> None:
        """See Executor."""
        assert self._executor is not None
        self._done.log(self._reason)
        self._executor.freeze_parameters(states)

    def process(
        self, tasks: Sequence[UnitTask], states: Mapping[str, State], stopped: Callable[[], bool]
    ) -> StageTimer:
        """See Executor."""
        assert self._executor is not None
        return self._executor.process(tasks, states, stopped)

    def _choose(self, units: Sequence[Unit]) -> None:
        plan = processes.here(self._job.settings, units, self._asked)
        self._reason = f"{plan.count} process{'es' * (plan.count > 1)}: {plan.reason}"
        if plan.count > 1:
            closing = self._stack.enter_context(contextlib.ExitStack())
            many = _several(self._job, self._done, closing, plan)
            computing = many.load_model(units)
            if self._asked is not None or "gpu" in computing:
                self._executor, self._computing = many, f"{computing}, {plan.count} processes"
                return
            closing.close()
            self._reason = "1 process: the GPU cannot be used"
        keep_visible(0 if self._job.settings.device == "cpu" else 1)
        self._executor = LocalExecutor(self._job, self._done, told=plan.count > 1)
        self._computing = self._executor.load_model(units)


def _several(job: Job, done: ProgressCounter, stack: contextlib.ExitStack, plan: processes.ProcessPlan) -> DaskExecutor:
    """Processes of a dask cluster on this machine; imported here, since that takes a while."""
    from nucseg_batch.executors.cluster import DaskExecutor
    from nucseg_batch.executors.dask_pool import ClusterSettings

    return DaskExecutor(job, done, ClusterSettings(cluster="local", processes=plan.count), stack, plan)
