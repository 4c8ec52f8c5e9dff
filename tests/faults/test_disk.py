"""Row 12 of the fault matrix: a disk that is full, at whatever point of a run; with room the run goes on as ever."""

from __future__ import annotations

import contextlib
import os
import shutil
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


def test_a_finished_run_needs_no_room(driver: Driver, images: Path, sweep: Sweep) -> None:
    """Nothing is left to do, so that only the name of the process in its locks is missing; a line says so, once."""
    with small_disk("16m") as disk:
        store = disk / "out.zarr"
        driver.run("segment", images, store, *REGION, code=3)
        _fill(disk)
        for command in (("segment", images, store, *REGION), ("segment", "--run", store), ("finish", store)):
            again = driver.run(*command, code=3)
            assert again.errors.count("its locks are held, but do not name this process") == 1, again.errors
            assert again.segmented == 0
        assert differences(store, sweep.reference) == []


def test_a_finished_run_needs_no_room_to_say_that_an_image_is_gone(
    driver: Driver, images: Path, tmp_path: Path
) -> None:
    """The line goes to the user; it has no room in the log. An image that must be segmented again ends with 74."""
    own = Path(shutil.copytree(images, tmp_path / "in"))
    gone = sorted(own.glob("*.png"))[0]
    with small_disk("16m") as disk:
        store = disk / "out.zarr"
        driver.run("segment", own, store, *REGION, code=3)
        content = gone.read_bytes()
        gone.unlink()
        _fill(disk)
        again = driver.run("segment", own, store, *REGION, code=3)
        assert "not there any more; what was made of them is kept" in again.errors, again.errors
        gone.write_bytes(content[:-20] + bytes(20))
        stopped = driver.run("segment", own, store, *REGION, code=74)
        assert "No space left on device" in stopped.errors


def _fill(disk: Path) -> None:
    """Takes all the room that is left."""
    with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(BLOCK))


def _locks(names: set[str]) -> Iterator[str]:
    return (name for name in names if name.startswith((".run/locks/", ".run/begun/")))
