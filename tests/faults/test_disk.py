"""Row 12 of the fault matrix: a disk that is full, at whatever point of a run; with room the run goes on as ever."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.harness import NOISE, small_disk
from faults.sweep import Sweep
from faults.tree import REGION, Driver, differences, tree

BLOCK = 4096
"""Bytes that a file takes on a disk in memory, at least."""
PARTS = [0.02, 0.15, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.97]
"""How much of the room that the run needs is there."""


@pytest.fixture(scope="module")
def needed(driver_of_module: Driver, images: Path) -> int:
    """Blocks that an undisturbed run takes."""
    with small_disk("16m") as disk:
        driver_of_module.run("segment", images, disk / "out.zarr", *REGION, code=3)
        free = os.statvfs(disk)
        return free.f_blocks - free.f_bfree


@pytest.fixture(scope="module")
def driver_of_module(drivers: list[Driver]) -> Driver:
    return drivers[0]


@pytest.mark.parametrize("part", PARTS)
def test_a_full_disk_stops_the_run_and_leaves_no_half_file(
    sweep: Sweep, driver: Driver, images: Path, needed: int, part: float
) -> None:
    """In the plan, the masks, the rows, the joining or the tables: 74 in a few lines; with room, the same bytes."""
    with small_disk(f"{round(needed * part) * BLOCK}") as disk:
        store = disk / "out.zarr"
        stopped = driver.run("segment", images, store, *REGION, code=74)
        assert len(stopped.errors.splitlines()) <= NOISE, stopped.errors
        assert "No space left on device" in stopped.errors
        left = tree(store)
        assert not [name for name in left if name.endswith(".partial")]
        half = {name for name in left if left[name] != sweep.reference.get(name)}
        assert half <= {".zarr/zarr.json", ".zarr/130x100/labels/nuclei/zarr.json", ".run/begun", *_locks(half)}
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        driver.run("segment", images, store, *REGION, code=3)
        assert differences(store, sweep.reference) == []


def _locks(names: set[str]) -> Iterator[str]:
    return (name for name in names if name.startswith((".run/locks/", ".run/begun/")))
