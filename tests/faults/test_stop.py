"""Rows 4 and 5 of the fault matrix: a run that is asked to stop ends in good order and goes on to the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from faults.harness import NOISE
from faults.sweep import STOPPED, Sweep
from faults.tree import REGION, Driver, differences, planes_done, tree

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
TWICE = 0.4
"""Seconds after which a second signal counts, and is no echo of the first; more are as good."""


def leftovers(store: Path) -> list[str]:
    return [name for name in tree(store) if name.endswith(".partial") or "/begun/" in name]


def markers(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (store.with_suffix(".run") / "units").iterdir()]


@pytest.mark.parametrize("sent", [*SIGNALS, signal.SIGUSR2], ids=lambda sent: sent.name)
def test_a_signal_in_a_batch_lets_it_be_finished(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """What is in hand is committed, no image is counted as failed, and nothing is done twice."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, *REGION, pause=2).is_paused()
    os.kill(run.pid, sent)
    run.is_stopping().go_on()
    run.wait(75 if sent == signal.SIGUSR2 else STOPPED[sent])
    assert len(run.errors.splitlines()) <= NOISE, run.errors
    assert "run the same command again" in run.errors
    assert leftovers(store) == []
    done = len(planes_done(store))
    assert 0 < run.segmented == done < 11
    again = driver.run("segment", images, store, *REGION, code=3)
    assert again.segmented == 11 - done
    assert differences(store, sweep.reference) == []


def test_a_signal_to_the_whole_group_of_processes_fails_no_image(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path
) -> None:
    """Row 5: schedulers send it to all processes of a job at once."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, *REGION, pause=3).is_paused()
    os.killpg(run.pid, signal.SIGTERM)
    run.is_stopping().go_on()
    run.wait(75)
    failed = {plane["image"] for marker in markers(store) for plane in marker["planes"] if "error" in plane}
    assert failed <= {"cut.png"}
    assert leftovers(store) == []
    done = len(planes_done(store))
    assert 0 < run.segmented == done < 11
    again = driver.run("segment", images, store, *REGION, code=3)
    assert again.segmented == 11 - done
    assert differences(store, sweep.reference) == []


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_a_second_signal_ends_it_at_once(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    """While the network is at work and will be for long."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, "--grace", 600, *REGION, pause=2).is_paused()
    os.kill(run.pid, sent)
    run.is_stopping()
    time.sleep(TWICE)
    os.kill(run.pid, sent)
    run.wait(STOPPED[sent])
    assert len(planes_done(store)) < run.segmented, "it waited for the network"
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []


def test_a_process_that_cannot_end_in_time_leaves(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """A scheduler kills what is not gone after its time; the process must be gone before."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, "--grace", 0.3, *REGION, pause=2).is_paused()
    os.kill(run.pid, signal.SIGTERM)
    run.wait(75)
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_a_signal_at_a_point_stops_it_in_good_order(sweep: Sweep, sent: signal.Signals) -> None:
    """Row 4 wherever it comes, also while planning and finishing: no temporary file is left, no unit is begun."""
    points = sweep.points(24)[SIGNALS.index(sent) :]
    assert sweep.wrong(points, sent) == []
