from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import zarr
from doubles import Threshold
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.verification import status
from nucseg_batch.files.masks.store import is_complete
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.locks import held, share_lock
from nucseg_batch.files.run_layout import RunLayout


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Four units of two images each, and two large planes of four regions; nothing is done."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(4):
        for other in "ab":
            run.put(f"{number}{other}.tif", picture(number + 1, (40, 50 + 2 * number), 150 + number))
    for other in "xy":
        run.put(f"slide-{other}.tif", mosaic())
    return run


def statuses(run: SmallRun) -> dict[str, str]:
    with open(RunLayout(run.store).tables["images"], newline="") as file:
        return {row["image"]: row["status"] for row in csv.DictReader(file)}


def test_finishing_again_writes_nothing(run: SmallRun) -> None:
    """Any process may do it at any time, also from a cron job: no file of a finished run is touched."""
    run.segment()
    before = run.times()
    run.finish()
    run.finish()
    assert run.times() == before
    assert run.segmenter.shown


def test_finishing_makes_the_same_of_the_same_whatever_is_lost(run: SmallRun) -> None:
    """Tables, levels and joined planes all follow from what the units left."""
    run.segment()
    before = run.everything()
    for path in RunLayout(run.store).tables.values():
        path.unlink()
    (plane, _) = sorted((run.journal.folder / "planes").glob("*.json"))
    plane.unlink()
    (run.journal.folder / "finished.json").unlink()
    run.finish()
    assert run.everything() == before


def test_what_is_not_done_is_listed_as_missing(run: SmallRun) -> None:
    """Half a run has its tables, too, and says of every plane whether it is in them."""
    run.segment(share=1, shares=4)
    assert not any(path.exists() for path in RunLayout(run.store).tables.values())
    outcome = run.finish()
    done = {plane.image.key for unit in run.plan.share(1, 4) for plane in unit.planes}
    assert 0 < len(outcome.missing) < 10
    found = statuses(run)
    assert sorted(found) == sorted(path.name for path in run.folder.iterdir())
    assert {image for image, status in found.items() if status == "ok"} <= done
    assert {image for image, status in found.items() if status == "missing"} == {
        entry.image for entry in outcome.missing
    }
    assert not is_complete(run.store)
    now = status(run.store, run.journal)
    assert (now.finished, now.complete) == (True, False)
    before = run.times()
    run.finish()
    assert run.times() == before


def test_a_run_in_shares_ends_with_the_bytes_of_one_without(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The share that finds everything done finishes; in what order they came, and how many, leaves no trace."""
    for share in (2, 0, 3, 1):
        before = status(run.store, run.journal).complete if run.journal.exists() else False
        assert not before
        summary = run.segment(share=share, shares=4)
        assert summary.outcome.whole is (share == 1)
    assert status(run.store, run.journal).complete
    alone = small_run(tmp_path / "alone", monkeypatch)
    for path in run.folder.iterdir():
        (alone.folder / path.name).write_bytes(path.read_bytes())
    alone.segment()
    assert alone.results() == run.results()


def test_a_share_joins_the_large_planes_that_are_all_its_own(run: SmallRun) -> None:
    """Joining a slide takes its time, and would else wait for one process at the very end."""
    slides = [plane for plane in run.prepared().plan.large_planes() if plane.plane.image.key.startswith("slide")]
    assert len(slides) == 2
    shares = 3
    plan = run.prepared(shares=shares).plan
    owners = {
        plane.name: [
            k for k in range(shares) if {u.name for u in plane.units} <= {u.name for u in plan.share(k, shares)}
        ]
        for plane in slides
    }
    assert sorted(map(len, owners.values())) == [0, 1], "one of them is divided between two shares"
    (mine,) = [plane for plane in slides if owners[plane.name]]
    (divided,) = [plane for plane in slides if not owners[plane.name]]
    (share,) = owners[mine.name]
    summary = run.segment(share=share, shares=shares)
    assert summary.outcome.planes > 0
    assert mine.plane.image.key not in {entry.image for entry in summary.outcome.missing}
    assert run.journal.plane(mine) is not None
    assert run.journal.plane(divided) is None
    array = zarr.open_array(run.store / "100x120" / "labels" / "nuclei" / "0", mode="r")
    assert np.asarray(array[mine.place]).any()
    assert not np.asarray(array[divided.place]).any()
    joined = run.times()
    for other in range(shares):
        run.segment(share=other, shares=shares)
    assert run.journal.plane(divided) is not None
    planes = [name for name in joined if mine.name in name]
    assert len(planes) >= 2
    assert {name: run.times()[name] for name in planes} == {name: joined[name] for name in planes}


def test_a_plan_alone_can_be_finished_and_has_nothing(run: SmallRun) -> None:
    """`plan`, then `finish`: everything is missing, nothing is wrong."""
    write_plan(run.prepared(shares=3), run.notes)
    assert run.journal.load().shares == 3
    before = run.everything()
    write_plan(run.prepared(shares=3), run.notes)
    assert run.everything() == before, "planning again changes nothing"
    outcome = run.finish()
    assert len(outcome.missing) == 10
    assert outcome.planes == 0
    assert set(statuses(run).values()) == {"missing"}


def test_tables_follow_when_a_unit_is_done_again(run: SmallRun) -> None:
    """The state of all markers says whether the tables are still theirs."""
    run.segment()
    run.put("2a.tif", picture(9, (40, 54), 199))
    run.segment(share=None)
    with open(RunLayout(run.store).tables["nuclei"], newline="") as file:
        assert sum(row["image"] == "2a.tif" for row in csv.DictReader(file)) == 9
    assert run.verify().damage == ()


def test_a_complete_run_holds_nothing_of_tries(run: SmallRun) -> None:
    """Notes of deaths are for what is still to be done."""
    planned = run.prepared()
    write_plan(planned, run.notes)
    attempts = Attempts(run.journal.folder)
    for unit in list(planned.units())[:3]:
        attempts.begin(unit)
    run.segment(Threshold())
    assert not (run.journal.folder / "begun").exists()


def test_finishing_leaves_what_another_process_is_writing(run: SmallRun) -> None:
    """A share may still join a slide of its own when the last of the others finishes the run: both come through."""
    for share in range(3):
        run.segment(share=share, shares=3)
    large = next(iter(run.plan.large_planes()))
    run.journal.retract_plane(large)
    shard = next(path for path in run.masks() if "100x120/labels/nuclei/0/c/0/" in path.as_posix())
    temporaries = [
        run.journal.plane_part(large).with_name(f".{run.journal.plane_part(large).name}.node-7-1.partial"),
        shard.with_name(f".{shard.name}.node-7-2.partial"),
    ]
    for path in temporaries:
        path.write_bytes(b"half")
    with held(run.journal.folder, [share_lock(2)], tell=run.notes.note):
        run.finish()
        assert all(path.exists() for path in temporaries)
    run.journal.retract_plane(large)
    run.finish()
    assert not any(path.exists() for path in temporaries)
