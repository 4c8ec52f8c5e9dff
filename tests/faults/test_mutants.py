"""The proof of the harness: mistakes that a program of this kind could make, and the check that finds each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from faults.sweep import Sweep
from faults.tree import REGION, Driver


def points_around(sweep: Sweep, name: str) -> list[tuple[int, int]]:
    """The point of the first call that names something, and a few after it."""
    (step,) = sweep.steps
    first = next(number for number, line in enumerate(step.calls, start=1) if name in line)
    return [(0, call) for call in range(first, first + 5)]


def test_the_harness_finds_nothing_where_nothing_is_wrong(sweep: Sweep) -> None:
    """Else what it finds below would mean nothing."""
    assert sweep.wrong(points_around(sweep, "20x30-000000.nuclei.csv")) == []


@pytest.mark.parametrize(
    ("mutant", "around", "found"),
    [
        ("marker_before_mask", "20x30-000000.nuclei.csv", "images were segmented instead of"),
        ("append_to_the_table", "out.images.csv", ".nuclei.csv"),
        ("resume_by_chunks", "20x30-000000.nuclei.csv", "20x30-000000.json"),
        ("time_in_attributes", "scales.json", "nuclei/zarr.json"),
    ],
)
def test_a_mistake_is_found_by_killing_and_going_on(sweep: Sweep, mutant: str, around: str, found: str) -> None:
    """A few points are enough for each."""
    wrong = replace(sweep, mutant=mutant).wrong(points_around(sweep, around))
    assert any(found in line for line in wrong), wrong


def test_shares_counted_by_the_scheduler_are_found(driver: Driver, images: Path, tmp_path: Path) -> None:
    """A task that is sent in again alone is told by the scheduler that it is the only one."""
    alone = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1"}
    segmented = {}
    for mutant in ("", "shares_of_the_scheduler"):
        store = tmp_path / f"out{mutant}.zarr"
        driver.run("plan", images, store, "--shares", 3, *REGION)
        again = driver.run("segment", "--run", store, code=None, environment=alone, mutant=mutant)
        others = [driver.run("segment", "--run", store, "--share", share, code=None) for share in (0, 2)]
        segmented[mutant] = again.segmented + sum(run.segmented for run in others)
    assert segmented[""] == 11
    assert segmented["shares_of_the_scheduler"] < 11
