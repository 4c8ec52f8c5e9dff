"""Rows 7, 8, 10, 11 and 40 of the fault matrix: several processes at one output."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from faults.harness import rows
from faults.sweep import Sweep
from faults.tree import REGION, Driver, differences, planes_done, slow, tree, write_picture


def shared(driver: Driver, images: Path, folder: Path, count: int = 3) -> tuple[Path, dict[str, str]]:
    """A run planned in shares, and what one process leaves of the same run."""
    folder.mkdir(exist_ok=True)
    for name in ("once", "out"):
        driver.run("plan", images, folder / name / "out.zarr", "--shares", count, *REGION)
    driver.run("segment", "--run", folder / "once" / "out.zarr", code=3)
    return folder / "out" / "out.zarr", tree(folder / "once" / "out.zarr")


def status(driver: Driver, store: Path) -> dict[str, Any]:
    return json.loads(driver.run("status", store, "--json", code=None).output)


def test_a_second_process_at_one_output_is_told_who_is_there(
    sweep: Sweep, driver: Driver, images: Path, tmp_path: Path
) -> None:
    """Row 10: it ends with 75, so that a scheduler sends it in again, and disturbs nothing."""
    store = tmp_path / "out.zarr"
    first = driver.start("segment", images, store, *REGION, environment={"SLURM_JOB_ID": "77"}, pause=2).is_paused()
    second = driver.run("segment", images, store, *REGION, code=75)
    assert f"process {first.pid} on {platform.node()}, Slurm job 77" in second.errors
    assert second.segmented == 0
    assert len(second.errors.splitlines()) == 1
    driver.run("segment", images, store, "--overwrite", *REGION, code=75)
    first.go_on()
    first.wait(3)
    assert differences(store, sweep.reference) == []


def test_two_copies_of_one_share_do_not_meet(driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 7: a task that was sent in again while its first copy is still alive somewhere."""
    store, reference = shared(driver, images, tmp_path)
    first = driver.start("segment", "--run", store, "--share", 1, pause=1).is_paused()
    assert status(driver, store)["by_share"][1]["holder"] == f"process {first.pid} on {platform.node()}"
    driver.run("segment", "--run", store, "--share", 1, code=75)
    driver.run("segment", "--run", store, "--share", 0, code=None)
    driver.run("segment", "--run", store, code=75)
    first.go_on()
    first.wait(None)
    driver.run("segment", "--run", store, "--share", 2, code=None)
    assert differences(store, reference) == []


def test_two_copies_on_a_file_system_without_locks_write_the_same(driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 7 where nothing keeps them apart: both work to the end, and both are told."""
    store, reference = shared(driver, images, tmp_path)
    runs = [driver.start("segment", "--run", store, locks=False, pause=1).is_paused() for _ in range(2)]
    for run in runs:
        run.go_on()
    for run in runs:
        run.wait(3)
        assert "without locks" in run.errors
    assert differences(store, reference) == []


def test_a_process_that_begins_on_a_file_system_without_locks_leaves_others_files_alone(
    driver: Driver, images: Path, tmp_path: Path
) -> None:
    """A temporary file there may be one that another process is writing."""
    store, _ = shared(driver, images, tmp_path)
    writing = tmp_path / "out" / "out.run" / "units" / ".20x30-000000.json.elsewhere-7-1.partial"
    writing.write_text("half a")
    driver.run("segment", "--run", store, locks=False, code=3)
    assert writing.exists()
    driver.run("segment", "--run", store, code=3)
    assert not writing.exists()


def test_shares_at_once_leave_what_one_process_leaves(driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 10: whichever is last finishes."""
    store, reference = shared(driver, images, tmp_path)
    runs = [driver.start("segment", "--run", store, "--share", share, pause=1) for share in range(3)]
    for run in runs:
        run.is_paused()
    for run in reversed(runs):
        run.go_on()
    for run in runs:
        run.wait(None)
    assert sum(run.segmented for run in runs) == 11
    assert status(driver, store)["complete"]
    assert differences(store, reference) == []


def test_tasks_that_all_begin_the_run_plan_it_once(driver: Driver, images: Path, tmp_path: Path) -> None:
    """The simple form of a job array: nobody has planned, and the tasks do not talk."""
    store = tmp_path / "new" / "out.zarr"
    _, reference = shared(driver, images, tmp_path)
    runs = [driver.start("segment", images, store, "--share", f"{share}/3", *REGION) for share in range(3)]
    for run in runs:
        run.wait(None)
        assert run.code in (0, 3), run.errors
    assert differences(store, reference) == []


def test_another_number_of_shares_or_other_options_are_refused(driver: Driver, images: Path, tmp_path: Path) -> None:
    """Rows 10 and 18: 78, and what differs."""
    store, _ = shared(driver, images, tmp_path)
    before = tree(store)
    run = ("segment", images, store, *REGION)
    assert "3 shares, not 4" in driver.run(*run, "--share", "1/4", code=78).errors
    assert "has 3 shares, counted from 0" in driver.run("segment", "--run", store, "--share", 3, code=78).errors
    assert (
        "--threshold: not given in the run, 0.4 now"
        in driver.run(*run, "--share", "1/3", "--threshold", 0.4, code=78).errors
    )
    assert "--region: 64 in the run, 128 now" in driver.run("segment", images, store, "--region", 128, code=78).errors
    assert tree(store) == before


def test_a_task_that_is_sent_in_again_alone_does_its_own_share(driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 8: the scheduler then counts one task; what the plan counted stays."""
    store, reference = shared(driver, images, tmp_path)
    alone = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    driver.run("segment", "--run", store, code=None, environment=alone)
    done = [share["done"] for share in status(driver, store)["by_share"]]
    units = [share["units"] for share in status(driver, store)["by_share"]]
    assert done == [0, 0, units[2]]
    driver.run("segment", "--run", store, code=None, environment=alone | {"SLURM_ARRAY_TASK_ID": "0"})
    unfinished = driver.run("finish", store, code=3)
    assert "not done yet" in unfinished.output
    assert {row["status"] for row in rows(store, "images")} == {"ok", "failed", "missing"}
    driver.run("segment", "--run", store, code=None, environment=alone | {"SLURM_ARRAY_TASK_ID": "1"})
    assert differences(store, reference) == []


def test_locks_of_the_dead_hold_nobody_up(sweep: Sweep, driver: Driver, images: Path, tmp_path: Path) -> None:
    """Row 11: the file stays, the lock does not; nobody has to delete anything."""
    store = tmp_path / "out.zarr"
    run = driver.start("segment", images, store, *REGION, pause=2).is_paused()
    os.kill(run.pid, 9)
    run.wait(-9)
    (lock,) = (tmp_path / "out.run" / "locks").glob("share-*.lock")
    assert str(run.pid) in lock.read_text()
    lock.write_text("process 1 on a node that is no more\n" * 100)
    driver.run("segment", images, store, *REGION, code=3)
    assert differences(store, sweep.reference) == []


def tiny_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    kinds = [write_picture(folder / f"{height}.png", (height, 16), seed=height).read_bytes() for height in (16, 17, 18)]
    for number in range(3, count):
        (folder / f"{number:06d}.png").write_bytes(kinds[number % 3])
    return folder


def calls_of_finish(driver: Driver, folder: Path, count: int, shares: int) -> tuple[int, int]:
    """Calls that finishing a run of tiny images takes, and files that the run has."""
    store = folder / str(count) / "out.zarr"
    images = tiny_images(folder / f"in{count}", count)
    driver.run("plan", images, store, "--shares", shares, files=64)
    for share in (0, shares // 2, shares - 1):
        assert driver.run("segment", "--run", store, "--share", share, files=64).segmented > 0
    driver.run("segment", "--run", store, files=64)
    assert len(planes_done(store)) == count
    store.with_suffix(".run").joinpath("finished.json").unlink()
    finish = driver.run("finish", store, files=64, trace=True)
    return len(finish.calls), sum(value != "folder" for value in tree(store).values())


@pytest.mark.timeout(1200)
def test_many_shares_and_images_need_few_open_files(driver: Driver, tmp_path: Path) -> None:
    """Row 40 in small: 64 files may be open, fewer than shares and units are."""
    calls, files = calls_of_finish(driver, tmp_path, 272, 67)
    more_calls, more_files = calls_of_finish(driver, tmp_path, 408, 67)
    assert more_calls == calls
    assert more_files < 1.5 * files


@pytest.mark.timeout(3600)
@slow[0]
@slow[1]
def test_ten_thousand_images_in_three_hundred_shares(driver: Driver, tmp_path: Path) -> None:
    """Row 40."""
    calls, files = calls_of_finish(driver, tmp_path, 10_000, 300)
    assert calls < 50
    assert files < 10_000  # three for each unit, which here is of four images
