"""The plan of images that were added to a run is lost or damaged: nothing is silently left out, and it is mended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_runs import SmallRun, mosaic, picture, small_run
from zarr_examples import write_group, write_image

from nucseg_batch.errors import LostPlanError, MismatchError
from nucseg_batch.executors import job, local
from nucseg_batch.executors.lost_plans import discard_lost_plans
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.run_job import RunSummary
from nucseg_batch.executors.verification import status
from nucseg_batch.files.masks.store import is_complete
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run_layout import RunLayout


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Two images and a stack, and two portions that were added: with a large plane and a stack, and with one image."""
    run = small_run(tmp_path, monkeypatch, link="z")
    for name in ("b", "d"):
        run.put(f"{name}.tif", picture(3))
    put_stack(run, "stack1.tif")
    run.segment()
    run.put("c.tif", picture(4))
    run.put("large.tif", mosaic())
    put_stack(run, "stack2.tif")
    run.segment()
    run.put("a.tif", picture(5))
    run.segment()
    return run


def put_stack(run: SmallRun, name: str) -> None:
    """Three slices with two nuclei each."""
    stack = np.stack([picture(2)] * 3)
    tifffile.imwrite(run.folder / name, stack, imagej=True, metadata={"axes": "ZYX"})


def plan_file(run: SmallRun, number: int) -> Path:
    return run.journal.folder / f"plan-{number:06d}.json"


def tables(run: SmallRun) -> dict[str, bytes]:
    """All tables whose bytes do not depend on the portion that an image came in."""
    results = RunLayout(run.store, linked=True).results
    return {name: results[name].read_bytes() for name in ("nuclei.csv", "volumes.csv", "failures.csv")}


def rows(run: SmallRun) -> list[str]:
    """Images of images.csv, in order."""
    return [line.partition(",")[0] for line in RunLayout(run.store).images_csv.read_text().splitlines()[1:]]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("loss", ["deleted", "truncated"])
def test_every_command_refuses_a_run_of_which_a_later_plan_is_lost(run: SmallRun, number: int, loss: str) -> None:
    """Images must not vanish from the tables; the message names the plan and what to do, and nothing is written."""
    before = run.results()
    if loss == "deleted":
        plan_file(run, number).unlink()
    else:
        plan_file(run, number).write_bytes(plan_file(run, number).read_bytes()[:200])
    told = rf"lost or damaged \(plan-00000{number}.json\).*verify OUT.zarr --redo"
    for command in (run.segment, run.finish, run.verify, lambda: status(run.store, run.journal)):
        with pytest.raises(LostPlanError, match=told):
            command()
    assert run.results() == before


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("loss", ["deleted", "truncated"])
def test_what_is_left_is_discarded_and_the_images_are_added_again(run: SmallRun, number: int, loss: str) -> None:
    """Other portions keep their bytes, and the tables become those that were there before."""
    before, order = tables(run), rows(run)
    other = {path: path.read_bytes() for path in run.masks() if f"-added{number}/" not in path.as_posix()}
    assert other
    if loss == "deleted":
        plan_file(run, number).unlink()
    else:
        plan_file(run, number).write_bytes(b"{}")
    discard_lost_plans(run.store, run.notes.note)
    assert "adds these images again" in run.notes.text
    assert not is_complete(run.store)
    assert not list(run.store.glob(f"*-added{number}"))
    assert not list(run.journal.folder.rglob(f"*-added{number}-*"))
    planes = {1: 5, 2: 1}[number]
    assert run.finish().planes == 11 - planes
    assert run.segment().new_planes >= planes
    assert (tables(run), rows(run)) == (before, order)
    assert {path: path.read_bytes() for path in other} == other
    assert run.verify().damage == ()
    assert run.segment().new_planes == 0


def test_all_later_plans_may_be_lost(run: SmallRun) -> None:
    """The numbers of arrays that were used are not used again."""
    before = tables(run)
    for number in (1, 2):
        plan_file(run, number).unlink()
    with pytest.raises(LostPlanError, match=r"plan-000001.json, plan-000002.json"):
        run.segment()
    discard_lost_plans(run.store, run.notes.note)
    run.segment()
    assert tables(run) == before
    assert {one.portion for one in run.plan.label_arrays} == {0, 3}


def test_a_lost_plan_of_which_nothing_was_done_leaves_images_that_are_new(run: SmallRun) -> None:
    """Nothing tells of it but empty arrays, which are in the way of arrays of other lengths."""
    run.put("e.tif", picture(6))
    (run.folder / "f.tif").write_bytes((run.folder / "e.tif").read_bytes())
    write_plan(run.prepared(), run.notes)
    (run.folder / "f.tif").unlink()
    plan_file(run, 3).unlink()
    run.segment()
    array = json.loads((run.store / "40x50-added3/labels/nuclei/0/zarr.json").read_bytes())
    assert array["shape"] == [1, 40, 50]
    assert rows(run)[:5] == ["a.tif", "b.tif", "c.tif", "d.tif", "e.tif"]


def test_a_run_without_losses_is_left_alone(run: SmallRun) -> None:
    """Nothing is discarded, and nothing written."""
    times = run.times()
    discard_lost_plans(run.store, run.notes.note)
    assert run.times() == times


def test_what_a_run_without_a_plan_left_is_no_part_of_a_new_one(run: SmallRun) -> None:
    """Somebody deleted the store, the tables and the plan, and kept the rest."""
    (run.journal.folder / "plan.json").unlink()
    shutil.rmtree(run.store)
    for path in RunLayout(run.store, linked=True).results.values():
        path.unlink()
    for name in ("a", "b", "c"):
        (run.folder / f"{name}.tif").unlink()
    assert run.segment().new_planes == 11  # four of them regions
    assert rows(run) == ["d.tif", "large.tif", *["stack1.tif"] * 3, *["stack2.tif"] * 3]
    assert run.segment().new_planes == 0


def test_labels_in_place_of_which_the_plan_is_lost_are_left_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in a store that is not ours; the image is added when they are gone."""
    run = small_run(tmp_path, monkeypatch)
    run.folder = run.store = tmp_path / "plate.zarr"
    run.journal = Journal(run.store)

    def segment() -> RunSummary:
        run.notes.lines.clear()
        return local.run(job.prepare(run.store, run.store, None, run.settings, run.notes, in_place=True), run.notes)

    write_group(run.store)
    write_image(run.store / "a", picture(3), "yx")
    segment()
    write_image(run.store / "b", picture(4), "yx")
    segment()
    plan_file(run, 1).unlink()
    with pytest.raises(LostPlanError):
        segment()
    discard_lost_plans(run.store, run.notes.note)
    assert segment().new_planes == 0
    assert "b has label images called nuclei already; delete them to add the image" in run.notes.text
    assert (run.store / "b/labels/nuclei").exists()
    shutil.rmtree(run.store / "b/labels")
    assert segment().outcome.nuclei == 7


def test_a_damaged_first_plan_is_another_matter(run: SmallRun) -> None:
    """It says how the run was begun, without which there is none."""
    (run.journal.folder / "plan.json").write_bytes(b"{}")
    with pytest.raises(MismatchError, match="start over with --overwrite") as caught:
        discard_lost_plans(run.store, run.notes.note)
    assert not isinstance(caught.value, LostPlanError)
