"""What `status` says of damage that `verify` found, and what it says to do next."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.executors import local
from nucseg_batch.executors.job import planned
from nucseg_batch.executors.lost_plans import discard_lost_plans
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.verification import RunStatus, forget, status
from nucseg_batch.files.run.locks import ROOT, held, share_lock
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.settings import RunSettings


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A unit of three images, and a large plane of four regions; nothing is done yet."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(3):
        run.put(f"{number}.tif", picture(number + 2))
    run.put("slide.tif", mosaic())
    return run


def now(run: SmallRun) -> RunStatus:
    return status(run.store, run.journal)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def mask(run: SmallRun, name: str) -> Path:
    return next(path for path in run.masks() if name in path.as_posix())


def test_a_run_says_at_each_step_which_command_is_next(run: SmallRun) -> None:
    """Segmenting comes before writing the tables, and a complete run needs nothing."""
    write_plan(run.prepared(), run.notes)
    assert now(run).next_step == f"continue with `nucseg-batch segment --run {run.store}`"
    run.segment()
    assert now(run).next_step is None
    run.journal.reopen()
    assert now(run).next_step == f"write the tables with `nucseg-batch finish {run.store}`"
    run.finish()
    assert now(run).next_step is None


def test_a_complete_run_with_failed_images_says_how_to_retry_them(run: SmallRun) -> None:
    """It names the table with the reasons, and the command does what it says."""
    broken = run.folder / "1.tif"
    whole, state = broken.read_bytes(), broken.stat()
    write_plan(run.prepared(), run.notes)
    broken.write_bytes(b"x" * len(whole))
    os.utime(broken, ns=(state.st_atime_ns, state.st_mtime_ns))
    run.segment()
    table = run.store.with_suffix(".failures.csv")
    retry = f"`nucseg-batch segment --run {run.store} --retry-failed`"
    assert now(run).complete
    assert now(run).next_step == f"see {table}; try the failed images again with {retry}"
    broken.write_bytes(whole)
    os.utime(broken, ns=(state.st_atime_ns, state.st_mtime_ns))
    local.run(planned(run.store, RunSettings(retry_failed=True)), run.notes)
    assert (now(run).failures, now(run).next_step) == (0, None)


@pytest.mark.parametrize(("shares", "command"), [(None, "segment"), (2, "plan")])
def test_images_refused_while_planning_are_added_by_the_command_that_planned(
    run: SmallRun, shares: int | None, command: str
) -> None:
    """They are not in the plan, so `--retry-failed` would not try them."""
    broken = run.folder / "1.tif"
    whole = broken.read_bytes()
    broken.write_bytes(b"no image")
    run.segment(shares=shares)
    assert now(run).complete
    assert (now(run).next_step or "").startswith(f"see {run.store.with_suffix('.failures.csv')}; repair")
    assert f"run the same `{command}` again" in (now(run).next_step or "")
    broken.write_bytes(whole)
    if command == "plan":
        write_plan(run.prepared(), run.notes)
    run.segment()
    assert (now(run).failures, now(run).next_step) == (0, None)


def test_the_next_share_is_one_that_nobody_segments(run: SmallRun) -> None:
    """Of the others their processes say how they stand, and while tables are written, nothing else helps."""
    write_plan(run.prepared(shares=2), run.notes)
    assert (now(run).next_step or "").endswith("--share 0`")
    with held(run.journal.folder, [share_lock(0)], tell=run.notes.note):
        assert (now(run).next_step or "").endswith("--share 1`")
        with held(run.journal.folder, [share_lock(1)], tell=run.notes.note):
            assert now(run).next_step is None
    with held(run.journal.folder, [ROOT], tell=run.notes.note):
        assert now(run).next_step is None


def test_damage_is_counted_until_it_is_mended(run: SmallRun) -> None:
    """In results and in planes: three of one unit, and one large plane that two results are of; a table has none."""
    run.segment()
    before = run.everything()
    assert now(run).coverage.damaged == 0
    flip(mask(run, "40x50"))
    flip(next((run.journal.folder / "regions").glob("*.found")))
    flip(mask(run, "100x120"))
    run.store.with_suffix(".images.csv").open("a").close()
    flip(run.store.with_suffix(".images.csv"))
    assert now(run).coverage.damaged == 0, "nobody has read it yet"
    found = run.verify()
    coverage = now(run).coverage
    assert len(found.damage) == coverage.damaged == found.coverage.damaged == 4
    assert coverage.damaged_planes == 4
    assert coverage.damage_found == found.coverage.damage_found is not None
    assert f"`nucseg-batch verify {run.store} --redo`" in (now(run).next_step or "")
    forget(planned(run.store), found.damage, run.notes.note)
    assert now(run).coverage.damaged == now(run).coverage.damaged_planes == 0
    assert now(run).next_step == f"continue with `nucseg-batch segment --run {run.store}`"
    run.segment()
    assert (now(run).coverage.damaged, now(run).next_step) == (0, None)
    assert run.everything() == before


def test_a_file_from_a_copy_counts_as_damaged_until_it_is_read(run: SmallRun) -> None:
    """Its size and time do not show that it is the right one."""
    run.segment()
    path = mask(run, "40x50")
    content = path.read_bytes()
    flip(path)
    run.verify()
    path.write_bytes(content)
    assert now(run).coverage.damaged == 1
    assert run.verify().damage == ()
    assert (now(run).coverage.damaged, now(run).coverage.damage_found) == (0, None)


@pytest.mark.parametrize("finished", [False, True])
def test_images_that_were_discarded_are_added_before_anything_else(run: SmallRun, *, finished: bool) -> None:
    """`finish` would write tables without them, and `segment --run` looks for no images."""
    run.segment()
    run.put("late.tif", picture(5, (30, 41)))
    run.segment()
    (run.journal.folder / "plan-000001.json").unlink()
    discard_lost_plans(run.store, run.notes.note)
    run.journal.retract(run.units[0])
    if finished:
        run.finish()
    assert "the same `segment` again: it adds the images" in (now(run).next_step or "")
    run.segment()
    assert now(run).next_step is None
    run.put("later.tif", picture(6, (30, 41)))
    run.segment()
    run.journal.retract(run.units[0])
    assert now(run).next_step == f"continue with `nucseg-batch segment --run {run.store}`"


def test_shares_can_leave_the_tables_to_finish(run: SmallRun) -> None:
    """As jobs of a workflow do whose engine must see them come from another; the results are the same."""
    run.segment(shares=2)
    before = run.results()
    for unit in run.units:
        run.journal.retract(unit)
    tables = RunLayout(run.store).results.values()
    for table in tables:
        table.unlink()
    for share in (1, 0):
        local.run(replace(planned(run.store, RunSettings(share=share)), leaves_tables=True), run.notes)
    assert not any(table.exists() for table in tables)
    assert now(run).next_step == f"write the tables with `nucseg-batch finish {run.store}`"
    assert not now(run).complete
    run.finish()
    assert now(run).complete
    assert run.results() == before


def test_of_a_run_in_shares_a_new_plan_adds_what_was_discarded(run: SmallRun) -> None:
    """A share adds no images."""
    run.segment(shares=2)
    run.put("late.tif", picture(5, (30, 41)))
    write_plan(run.prepared(), run.notes)
    run.segment()
    (run.journal.folder / "plan-000001.json").unlink()
    discard_lost_plans(run.store, run.notes.note)
    assert "the same `plan` again: it adds the images" in (now(run).next_step or "")
    write_plan(run.prepared(), run.notes)
    assert "--share" in (now(run).next_step or "")
