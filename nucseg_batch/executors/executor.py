"""What runs the units of a job: this process (`local`) or a dask cluster (`cluster`); and what stops it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from nucseg_batch.files.opened import State
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Unit


class Executor(Protocol):
    """Computes units of one job; `run_job` takes the locks, finds the tasks and finishes the run.

    Each plane and region that is done is counted by the `ProgressCounter` that the executor was made with.
    """

    def load_model(self, units: Sequence[Unit]) -> str:
        """Loads the model, once, and returns how it computes; writes nothing.

        Raises what loading a model raises, and DeviceError without a process that can do it.
        """
        ...

    def freeze_parameters(self, states: Mapping[str, State]) -> None:
        """Fixes what all processes of the run must share; under the root lock where that may be new.

        states: images that are not as they were planned, as they are now, by key.
        """
        ...

    def process(
        self, tasks: Sequence[UnitTask], states: Mapping[str, State], stopped: Callable[[], bool]
    ) -> StageTimer:
        """Segments and commits units until all are done, and begins no further one when `stopped` returns True.

        Returns how busy the stages of this process were.
        """
        ...


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
