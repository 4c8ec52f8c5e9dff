"""Runs that were begun without --link are linked: as if they had been begun with it, and without being done again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from movies import Movie, movie
from small_runs import SmallRun, mosaic, picture, small_run
from zarr_examples import Version, write_group, write_image

from nucseg_batch.errors import LockedError, MismatchError, OutputError, UsageError
from nucseg_batch.executors import job, local, output, run_job
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.verification import status
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.locks import held, share_lock
from nucseg_batch.files.run_layout import RunLayout

pytest.importorskip("laptrack")

TRUTH = movie(7, (97, 113), 9, speed=1.0, seed=5)


def pixels(truth: Movie = TRUTH) -> Any:
    return np.where(truth.tracks > 0, 150, 10).astype(np.uint8)


def put(run: SmallRun, name: str, frames: Any) -> None:
    tifffile.imwrite(run.folder / name, frames, imagej=True, metadata={"axes": "TYX"})


def begun(place: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SmallRun:
    """A movie of large planes, one of small ones, and an image; the last two may be added later."""
    run = small_run(place, monkeypatch, region=100, **settings)
    put(run, "a.tif", pixels())
    put(run, "b.tif", pixels()[::-1, :80, :90].copy())
    run.put("plane.tif", pixels()[0])
    return run


def everything(run: SmallRun) -> dict[str, str]:
    """Hashes of the store, the tables and the run folder, without what says when."""
    return {name: digest for name, digest in run.everything().items() if "/locks/" not in name}


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_gets_the_tracks_that_it_would_have_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, finished: bool
) -> None:
    """All files are those of a run that was begun with --link t; nothing is read or segmented again."""
    run, other = begun(tmp_path / "later", monkeypatch), begun(tmp_path / "other", monkeypatch, link="t")
    other.folder = run.folder
    other.segment()
    run.segment()
    if not finished:
        for unit in run.units[::2]:
            run.journal.retract(unit)
    masks = {path: path.stat().st_mtime_ns for path in run.masks()}
    run.with_settings(link="t")
    done = run.segment()
    assert "movies of this run are linked; masks of planes stay as they are" in run.notes.text
    assert everything(run) == everything(other)
    assert RunLayout(run.store).tracks_csv.read_bytes().count(b"\n") > 100
    if finished:
        assert (done.new_planes, run.reads) == (0, [])
        assert {path: path.stat().st_mtime_ns for path in run.masks()} == masks
    assert run.verify().damage == ()
    assert status(run.store, run.journal).complete
    before = run.times()
    assert run.segment().new_planes == 0
    assert run.times() == before


@pytest.mark.parametrize("link", ["t", "z"])
def test_a_kill_before_the_plan_says_it_leaves_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Literal["t", "z"]
) -> None:
    """With or without --link, the next call goes on."""
    run, other = small_run(tmp_path / "run", monkeypatch), small_run(tmp_path / "other", monkeypatch, link=link)
    other.folder = run.folder
    axes = f"{link.upper()}YX"
    tifffile.imwrite(run.folder / "a.tif", pixels()[:3, :60, :62].copy(), imagej=True, metadata={"axes": axes})
    for one in (run, other):
        one.segment()
    before = RunLayout(run.store).images_csv.read_bytes()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    run.with_settings(link=link)
    with monkeypatch.context() as patched:
        patched.setattr(output, "replace_first", killed)
        with pytest.raises(KeyboardInterrupt):
            run.segment()
    assert not status(run.store, run.journal).complete
    run.with_settings(link=None)
    assert run.segment().new_planes == 0
    assert status(run.store, run.journal).complete
    assert RunLayout(run.store).images_csv.read_bytes() == before
    run.with_settings(link=link)
    run.segment()
    assert everything(run) == everything(other)
    assert run.verify().damage == ()


def test_a_kill_before_the_tracks_are_written_leaves_an_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the next call finishes, and also `finish`."""
    run = begun(tmp_path, monkeypatch)
    run.segment()
    run.with_settings(link="t")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_job, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            run.segment()
    now = status(run.store, run.journal)
    assert (now.complete, now.finished) == (False, False)
    assert not RunLayout(run.store).tracks_csv.exists()
    assert (run.finish().tracks or 0) > 10
    assert status(run.store, run.journal).complete


def test_a_run_to_which_images_were_added_is_linked_whole_and_then_gets_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that begins to link adds nothing, and says how to add."""
    run = small_run(tmp_path, monkeypatch, region=100)
    put(run, "a.tif", pixels())
    run.segment()
    put(run, "b.tif", pixels()[:, :80, :90].copy())
    run.segment()
    put(run, "c.tif", pixels()[:, :70, :91].copy())
    run.with_settings(link="t")
    run.segment()
    assert "1 image (c.tif): new; not in this run; add them with --new add" in run.notes.text
    images = {line.partition(b",")[0] for line in RunLayout(run.store).tracks_csv.read_bytes().splitlines()[1:]}
    assert images == {b"a.tif", b"b.tif"}
    run.segment()
    images = {line.partition(b",")[0] for line in RunLayout(run.store).tracks_csv.read_bytes().splitlines()[1:]}
    assert images == {b"a.tif", b"b.tif", b"c.tif"}
    assert run.verify().damage == ()


def test_a_share_cannot_begin_it_and_plan_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other shares would go on without; and none may be at work when it begins."""
    run = begun(tmp_path, monkeypatch)
    run.segment(shares=2)
    run.with_settings(link="t")
    with pytest.raises(UsageError, match="a share cannot have its run linked"):
        run.segment(share=1)
    with held(run.journal.folder, [share_lock(1)], tell=run.notes.note), pytest.raises(LockedError):
        write_plan(run.prepared(), run.notes)
    write_plan(run.prepared(), run.notes)
    for share in range(2):
        run.segment(share=share)
    assert status(run.store, run.journal).complete
    assert RunLayout(run.store).tracks_csv.exists()


def test_labels_in_a_store_stay_and_tables_beside_it_get_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path, monkeypatch)
    run.folder = run.store = tmp_path / "movie.zarr"
    run.journal = Journal(run.store)
    write_image(run.store, pixels(), "tyx")

    def segment() -> None:
        run.segmenter = type(run.segmenter)()
        local.run(job.prepare(run.store, run.store, None, run.settings, run.notes, in_place=True), run.notes)

    segment()
    store = {path: path.read_bytes() for path in run.store.glob("**/c/**/*") if path.is_file()}
    run.with_settings(link="t")
    segment()
    assert RunLayout(run.store).tracks_csv.exists()
    assert {path: path.read_bytes() for path in run.store.glob("**/c/**/*") if path.is_file()} == store
    assert run.verify().damage == ()


def test_what_stands_against_it_is_said_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No movie, a table of somebody else, other settings, or the way back."""
    planes = small_run(tmp_path / "planes", monkeypatch)
    planes.put("plane.tif", pixels()[0])
    run = begun(tmp_path / "run", monkeypatch)
    for one in (planes, run):
        one.segment()
        one.with_settings(link="t")
    before = [one.times() for one in (planes, run)]
    with pytest.raises(UsageError, match="no image has an axis t"):
        planes.segment()
    run.with_settings(min_area=3)
    with pytest.raises(MismatchError, match="--link: not given in the run, t now"):
        run.segment()
    run.with_settings(min_area=None)
    foreign = RunLayout(run.store).tracks_csv
    foreign.write_text("mine")
    with pytest.raises(OutputError, match="belongs to no run of ours"):
        run.segment()
    assert foreign.read_text() == "mine"
    foreign.unlink()
    assert [one.times() for one in (planes, run)] == before
    run.segment()
    run.settings = dataclasses.replace(run.settings, link=None)
    with pytest.raises(MismatchError, match="--link: t in the run, not given now"):
        run.segment()


def stack(counts: tuple[int, ...], shape: tuple[int, int] = (40, 50)) -> Any:
    return np.stack([picture(count, shape) for count in counts])


def put_stack(run: SmallRun, name: str, slices: Any) -> None:
    tifffile.imwrite(run.folder / name, slices, imagej=True, metadata={"axes": "ZYX"})


@pytest.mark.parametrize("step", [None, 1.5])
def test_a_run_gets_the_volumes_that_it_would_have_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float | None
) -> None:
    """Also of images that were added to it; the label images of volumes are listed, and masks are not written again."""
    run, other = small_run(tmp_path / "later", monkeypatch), small_run(tmp_path / "other", monkeypatch)
    other.folder = run.folder
    other.with_settings(link="z", z_step=step)
    put_stack(run, "a.tif", stack((3, 4, 2)))
    put_stack(run, "large.tif", np.stack([mosaic()] * 2))
    run.put("plane.tif", picture(5))
    for one in (run, other):
        one.segment()
    put_stack(run, "b.tif", stack((2, 2, 5)))
    for one in (run, other):
        one.segment()
    masks = {path: path.stat().st_mtime_ns for path in run.masks()}
    run.with_settings(link="z", z_step=step)
    done = run.segment()
    assert "--link z: stacks of this run are joined; masks of planes stay as they are" in run.notes.text
    assert (done.new_planes, run.reads) == (0, [])
    assert run.results() == other.results()
    assert RunLayout(run.store).volumes_csv.read_bytes() == RunLayout(other.store).volumes_csv.read_bytes()
    names = {path for path in everything(other) if not path.startswith("out.run/plan-")}
    assert {name: everything(run)[name] for name in names} == {name: everything(other)[name] for name in names}
    assert {path: path.stat().st_mtime_ns for path in run.masks()} == masks
    listed = json.loads((run.store / "3z-40x50" / "labels" / "zarr.json").read_bytes())["attributes"]["ome"]["labels"]
    assert listed == ["nuclei", "volumes"]
    assert run.verify().damage == ()
    assert status(run.store, run.journal).complete
    put_stack(run, "c.tif", stack((1, 2, 3)))
    run.segment()
    images = {line.partition(b",")[0] for line in RunLayout(run.store).volumes_csv.read_bytes().splitlines()[1:]}
    assert images == {b"a.tif", b"b.tif", b"c.tif", b"large.tif"}
    assert run.verify().damage == ()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_volumes_come_beside_those_in_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: Version
) -> None:
    """Unless somebody has such labels there already."""
    run = small_run(tmp_path, monkeypatch)
    run.folder = run.store = tmp_path / "stack.zarr"
    run.journal = Journal(run.store)
    write_image(run.store, stack((3, 4, 2)), "zyx", version=version)

    def segment() -> None:
        local.run(job.prepare(run.store, run.store, None, run.settings, run.notes, in_place=True), run.notes)

    segment()
    run.with_settings(link="z")
    write_group(run.store / "labels" / "volumes", version=version)
    with pytest.raises(OutputError, match="has label images called volumes already"):
        segment()
    shutil.rmtree(run.store / "labels" / "volumes")
    segment()
    assert RunLayout(run.store).volumes_csv.read_bytes().count(b"\n") > 3
    attributes = run.store / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")
    assert b'"volumes"' in attributes.read_bytes()
    assert run.verify().damage == ()


def test_a_run_is_linked_in_one_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a table of somebody else stays."""
    run = small_run(tmp_path, monkeypatch)
    put_stack(run, "a.tif", stack((3, 4, 2)))
    run.segment()
    run.with_settings(link="z")
    foreign = RunLayout(run.store).volumes_csv
    foreign.write_text("mine")
    with pytest.raises(OutputError, match=r"volumes\.csv belongs to no run of ours"):
        run.segment()
    foreign.unlink()
    run.segment()
    run.with_settings(link="t")
    with pytest.raises(MismatchError, match="has --link z, and a run is linked in one way"):
        run.segment()
