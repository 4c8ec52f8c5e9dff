from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.executors.executor import NeverStopping
from nucseg_batch.executors.local import LocalExecutor
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.run_job import RunSummary, run_job
from nucseg_batch.files.opened import State
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Unit


class LastFirst:
    """An executor that does one unit after the other, the last one first, and at most `units` of them."""

    def __init__(self, local: LocalExecutor, units: int) -> None:
        self._local = local
        self._units = units

    def load_model(self, units: Sequence[Unit]) -> str:
        return self._local.load_model(units)

    def freeze_parameters(self, states: Mapping[str, State]) -> None:
        self._local.freeze_parameters(states)

    def process(
        self, tasks: Sequence[UnitTask], states: Mapping[str, State], stopped: Callable[[], bool]
    ) -> StageTimer:
        for task in list(reversed(tasks))[: self._units]:
            self._local.process([task], states, stopped)
        return StageTimer()


def runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    run = small_run(place, monkeypatch)
    run.put("slide.tif", mosaic())
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 1, (40, 50 + 2 * number), 150 + number))
    return run


def last_first(run: SmallRun, units: int) -> RunSummary:
    job = run.prepared()
    done = ProgressCounter(run.notes, job.journal, job.options)
    return run_job(job, LastFirst(LocalExecutor(job, done), units), done, NeverStopping())


def test_an_executor_chooses_the_order_and_leaves_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever executor does a part of a run, the next call finds what is missing, and another one may do the rest."""
    local, other = runs(tmp_path / "local", monkeypatch), runs(tmp_path / "other", monkeypatch)
    whole = local.segment()
    first = last_first(other, 2)
    assert (first.new_planes, len(first.outcome.missing)) == (2, 4), "two of four regions are no plane yet"
    rest = last_first(other, 9)
    assert first.new_planes + rest.new_planes == whole.new_planes
    assert rest.outcome.missing == ()
    assert other.results() == local.results()
