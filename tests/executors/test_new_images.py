"""Images that come to IN while a run goes on are added to it: what was done stays, and tables are those of one run."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.errors import LockedError, MismatchError
from nucseg_batch.executors import finishing, job, local
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.verification import status
from nucseg_batch.files.masks.store import is_complete
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.settings import RunSettings


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Three images of one shape, one of another and a large one, done."""
    run = small_run(tmp_path, monkeypatch)
    for number in (1, 3, 5):
        run.put(f"{number}.tif", picture(number + 1, value=150 + number))
    run.put("wide.tif", picture(7, (40, 90), value=170))
    run.put("large.tif", mosaic())
    run.segment()
    return run


def images(store: Path) -> list[dict[str, str]]:
    """The rows of images.csv without where the masks are."""
    with open(RunLayout(store).images_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if name not in ("mask", "index")} for row in rows]


def tables(store: Path) -> list[object]:
    """All that is the same for images that came at once and in portions."""
    layout = RunLayout(store).results
    return [images(store), layout["nuclei.csv"].read_bytes(), layout["failures.csv"].read_bytes()]


def at_once(run: SmallRun, place: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A run over all that is in the folder of another one by now."""
    fresh = small_run(place, monkeypatch)
    fresh.settings, fresh.folder = run.settings, run.folder
    fresh.segment()
    return fresh


def kept(run: SmallRun) -> dict[str, str]:
    """All that no later call may change: shards, arrays and what units left."""
    return {
        name: value
        for name, value in run.everything().items()
        if name.startswith(("out.zarr/", "out.run/units", "out.run/parts", "out.run/plan"))
        and name != "out.zarr/zarr.json"
    }


def add_some(run: SmallRun) -> None:
    """Images of a shape that there is, before, between and after others; a large one, one of a new shape, a bad one."""
    for number in (0, 2, 9):
        run.put(f"{number}.tif", picture(number % 4 + 1, value=160 + number))
    run.put("large2.tif", mosaic(step=15))
    run.put("tall.tif", picture(2, (60, 30)))
    (run.folder / "bad.tif").write_bytes(b"no image")


def test_new_images_are_added_and_what_was_done_keeps_its_bytes(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables are those of one run over all images, but for where the masks are."""
    before = kept(run)
    add_some(run)
    summary = run.segment()
    assert summary.outcome.planes == 10
    assert sorted(set(run.reads)) == ["0.tif", "2.tif", "9.tif", "large2.tif", "tall.tif"]
    assert [failure.image for failure in summary.failures] == ["bad.tif"]
    assert "(0.tif, ...): new; added to the run" in run.notes.text
    assert before.items() <= kept(run).items()
    fresh = at_once(run, tmp_path / "fresh", monkeypatch)
    assert tables(run.store) == tables(fresh.store)
    masks, whole = open_masks(run.store), open_masks(fresh.store)
    assert list(masks) == list(whole)
    assert all(np.array_equal(masks[name], whole[name]) for name in whole)
    times = run.times()
    assert (run.segment().new_planes, run.reads) == (0, [])
    assert run.times() == times
    assert run.verify().damage == ()


def test_several_portions_come_one_after_the_other(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has arrays of its own, whose names say which it is."""
    for number in (6, 4, 2):
        run.put(f"{number}.tif", picture(number, value=140 + number))
        assert run.segment().new_planes == 1
    names = [one.name for one in run.plan.label_arrays]
    assert [name for name in names if name.startswith("40x50")] == [
        "40x50",
        "40x50-added1",
        "40x50-added2",
        "40x50-added3",
    ]
    assert tables(run.store) == tables(at_once(run, tmp_path / "fresh", monkeypatch).store)


def test_an_unreadable_image_that_was_mended_is_added(run: SmallRun) -> None:
    """Its failure of the first plan no longer counts, once; and what is still bad is told once."""
    (run.folder / "bad.tif").write_bytes(b"no image")
    assert [failure.image for failure in run.segment().failures] == ["bad.tif"]
    assert [failure.image for failure in run.segment().failures] == ["bad.tif"]
    assert "new" not in run.notes.text
    run.put("bad.tif", picture(3))
    summary = run.segment()
    assert (summary.new_planes, summary.failures) == (1, ())
    assert "1 image (bad.tif): could not be used when the run was planned, and changed since; added" in run.notes.text
    assert [row["image"] for row in images(run.store)].count("bad.tif") == 1
    assert run.segment().new_planes == 0


def test_report_and_refuse_change_nothing(run: SmallRun) -> None:
    """As without new images, but for a line; or an error that names them."""
    run.put("new.tif", picture(3))
    before = run.times()
    assert run.segment(new="report").new_planes == 0
    assert "1 image (new.tif): new; not in this run; add them with --new add" in run.notes.text
    with pytest.raises(MismatchError, match=r"--new refuse: 1 image \(new.tif\): new"):
        run.segment(new="refuse")
    assert run.times() == before
    run.segment()
    assert run.segment(new="refuse").new_planes == 0


def test_shares_keep_their_units_and_plan_adds_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share alone adds nothing; after another plan each share does its part of what is new."""
    run = small_run(tmp_path, monkeypatch)
    for number in range(4):
        run.put(f"{number}.tif", picture(number + 1, (40 + number, 50)))
    write_plan(run.prepared(shares=3), run.notes)
    for share in (2, 0):
        run.segment(share=share)
    before = {unit.name: share for share, unit in run.plan.shared_out(3)}
    for number in range(4, 9):
        run.put(f"{number}.tif", picture(number % 3 + 1, (40 + number, 50)))
    assert run.segment(share=2).new_planes == 0
    assert "a share adds no images; add them with `nucseg-batch plan" in run.notes.text
    write_plan(run.prepared(shares=3), run.notes)
    after = {unit.name: share for share, unit in run.plan.shared_out(3)}
    assert before.items() <= after.items()
    assert {after[name] for name in after.keys() - before.keys()} == {0, 1, 2}
    found = status(run.store, run.journal)
    assert not found.complete
    done = [run.segment(share=share) for share in (0, 1, 2)]
    assert [one.outcome.whole for one in done] == [False, False, True]
    assert tables(run.store) == tables(at_once(run, tmp_path / "fresh", monkeypatch).store)


def test_a_planned_portion_makes_a_finished_run_unfinished(run: SmallRun) -> None:
    """Nobody may take the old tables for all of it."""
    assert is_complete(run.store)
    run.put("new.tif", picture(3))
    write_plan(run.prepared(), run.notes)
    assert not is_complete(run.store)
    assert not status(run.store, run.journal).complete
    assert [entry.image for entry in run.finish().missing] == ["new.tif"]
    local.run(job.planned(run.store), run.notes)
    assert status(run.store, run.journal).complete


def test_processes_that_read_the_plan_before_do_not_write_over_it(run: SmallRun) -> None:
    """Two calls may find the same images at the same time, and a third may be about to finish."""
    old = job.planned(run.store)
    run.put("new.tif", picture(3))
    first, second = run.prepared(), run.prepared()
    local.run(first, run.notes)
    with pytest.raises(LockedError, match="just planned again"):
        local.run(second, run.notes)
    with pytest.raises(LockedError, match="images were just added"):
        finishing.finish(old, ProgressCounter(run.notes, old.journal))
    assert run.journal.portions == 2


def test_images_that_need_other_columns_or_another_pattern_are_left_out(run: SmallRun, tmp_path: Path) -> None:
    """Rows that are written have no place for them; one line says what to do."""
    tifffile.imwrite(run.folder / "um.ome.tif", picture(3), metadata={"axes": "YX", "PhysicalSizeX": 0.5})
    two = np.stack([picture(3), picture(2)])
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(run.folder / "two.ome.tif", two, metadata=names)
    run.put("new.tif", picture(3))
    assert run.segment().new_planes == 1
    assert "1 image (um.ome.tif): new; not in this run; its pixel size is known" in run.notes.text
    assert "1 image (two.ome.tif): new; not in this run; the tables have no columns for channel DAPI" in run.notes.text
    given = RunSettings()
    run.put("other.tif", picture(3))
    task = job.prepare(run.folder, run.store, None, run.settings, run.notes, pattern="*.tif", options=given)
    assert task.added is None
    assert "the run was planned with no --pattern; give that to add images" in run.notes.text


def test_an_image_of_which_a_channel_was_segmented_is_not_taken_for_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A microscope writes the channels of one image one after the other."""
    run = small_run(tmp_path, monkeypatch, channel="w2")
    for well in ("A01", "A02"):
        for channel in (1, 2):
            run.put(f"{well}_w{channel}.tif", picture(channel + 1))
    run.put("A03_w2.tif", picture(3))
    run.segment()
    planned = {image.key for one in run.plan.label_arrays for image in one.images}
    run.put("A03_w1.tif", picture(2))
    run.segment()
    assert {image.key for one in run.plan.label_arrays for image in one.images} == planned


def test_an_image_whose_channel_of_nuclei_comes_later_fails_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails under the name of a file that was there, and is named after that of the nuclei when it is whole."""
    run = small_run(tmp_path, monkeypatch, channel="w2")
    for well in ("A01", "A02"):
        for channel in (1, 2):
            run.put(f"{well}_w{channel}.tif", picture(channel + 1))
    run.put("A03_w1.tif", picture(2))
    assert [failure.image for failure in run.segment().failures] == ["A03_w1.tif"]
    run.put("A03_w2.tif", picture(3))
    assert run.segment().failures == ()
    assert tables(run.store) == tables(at_once(run, tmp_path / "fresh", monkeypatch).store)
    assert run.segment().new_planes == 0
    assert "not in this run" not in run.notes.text


def test_stacks_are_added_with_their_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--link z: each portion has stacks of its own, and one table of volumes has all of them in order."""
    run = small_run(tmp_path, monkeypatch, link="z")
    for name in ("b", "d"):
        tifffile.imwrite(run.folder / f"{name}.tif", np.stack([picture(3)] * 3), imagej=True, metadata={"axes": "ZYX"})
    run.segment()
    for name in ("a", "c"):
        tifffile.imwrite(run.folder / f"{name}.tif", np.stack([picture(2)] * 3), imagej=True, metadata={"axes": "ZYX"})
    assert run.segment().outcome.volumes == 10
    fresh = at_once(run, tmp_path / "fresh", monkeypatch)
    volumes = [RunLayout(one.store, linked=True).volumes_csv.read_bytes() for one in (run, fresh)]
    assert volumes[0] == volumes[1]
    assert tables(run.store) == tables(fresh.store)


def test_the_flat_field_of_the_run_is_that_of_new_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is estimated once; an image of another size has none, and is left out."""
    run = small_run(tmp_path, monkeypatch, flatfield="estimate")
    for number in range(8):
        run.put(f"{number}.tif", picture(number % 4, value=150 + number))
    run.segment()
    fields = {path: path.read_bytes() for path in (run.journal.folder / "flatfield").rglob("*") if path.is_file()}
    run.put("new.tif", picture(3))
    run.put("wide.tif", picture(3, (40, 90)))
    assert run.segment().new_planes == 1
    assert "1 image (wide.tif): new; not in this run; the run has no flat field for it" in run.notes.text
    assert {path: path.read_bytes() for path in fields} == fields


def write_movie(run: SmallRun, *seeds: int) -> None:
    movie = np.stack([picture(seed) for seed in seeds])
    tifffile.imwrite(run.folder / "movie.tif", movie, imagej=True, metadata={"axes": "TYX"})


def test_time_points_that_came_to_a_file_are_told_and_left_out(run: SmallRun) -> None:
    """As an acquisition goes on: what was segmented stays as it is, and nobody takes the rest for done."""
    write_movie(run, 3, 4)
    run.segment()
    before = tables(run.store)
    write_movie(run, 3, 4, 5)
    assert run.segment().new_planes == 0
    assert "1 image (movie.tif): other time points or z-slices than when the run was planned" in run.notes.text
    assert tables(run.store) == before
    with pytest.raises(MismatchError, match=r"--new refuse: 1 image \(movie.tif\): other time points"):
        run.segment(new="refuse")


def test_an_image_that_became_a_movie_fails_and_is_told(run: SmallRun) -> None:
    """A mask of its first time point alone would pass for that of the image."""
    write_movie(run, 3)
    run.segment()
    write_movie(run, 4, 5)
    summary = run.segment()
    assert summary.new_planes == 0
    assert [failure.image for failure in summary.failures] == ["movie.tif"]
    assert "planned without time points, but it has 2" in summary.failures[0].message
    assert "movie.tif): changed after they were segmented, and are done again" in run.notes.text
    assert "1 image (movie.tif): other time points or z-slices than when the run was planned" in run.notes.text
