"""Images that came to a zarr store, or to a folder of stores, since a run was planned are added to it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from small_runs import SmallRun, picture, small_run
from zarr_examples import write_array, write_group, write_image, write_plate

from nucseg_batch.errors import MismatchError, NothingToDoError
from nucseg_batch.executors import finishing, job, local
from nucseg_batch.executors.planning import write_plan
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.watch import FolderWatch
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.masks.store import is_complete
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.settings import RunSettings


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Of which nothing is there yet."""
    return small_run(tmp_path, monkeypatch)


def at_once(run: SmallRun, place: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A run over all that is in the folder of another one by now."""
    fresh = small_run(place, monkeypatch)
    fresh.settings, fresh.folder = run.settings, run.folder
    fresh.segment()
    return fresh


def ome(group: Path) -> dict[str, Any]:
    """OME attributes of a group of format 3."""
    return dict(json.loads((group / "zarr.json").read_bytes())["attributes"]["ome"])


def tables(store: Path) -> list[bytes]:
    """Tables; of images in stores, the places of masks do not depend on when the images came."""
    return [RunLayout(store).results[name].read_bytes() for name in ("images.csv", "nuclei.csv", "failures.csv")]


def contents(store: Path) -> dict[str, bytes]:
    """All files of a store but its root, which says what the masks were made with."""
    files = (path for path in store.rglob("*") if path.is_file() and path != store / "zarr.json")
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def test_a_new_store_in_a_folder_of_stores_is_added(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store and tables are those of one run; what was done keeps its bytes, and nothing is done twice."""
    write_image(run.folder / "b.zarr", picture(3), "yx")
    run.segment()
    before = contents(run.store)
    write_image(run.folder / "a.zarr", picture(4, (30, 50)), "yx")
    run.put("file.tif", picture(2))
    summary = run.segment()
    assert (summary.new_planes, summary.outcome.nuclei) == (2, 9)
    assert sorted(run.reads) == ["a.zarr", "file.tif"]
    assert "2 images (a.zarr, ...): new; added to the run" in run.notes.text
    assert before.items() <= contents(run.store).items()
    fresh = at_once(run, tmp_path / "fresh", monkeypatch)
    masks, whole = open_masks(run.store), open_masks(fresh.store)
    assert list(masks) == ["a.zarr", "b.zarr", "file.tif"]
    assert all(np.array_equal(masks[name], whole[name]) for name in whole)
    assert RunLayout(run.store).results["nuclei.csv"].read_bytes() == tables(fresh.store)[1]
    assert run.segment().new_planes == 0
    assert run.verify().damage == ()


def test_wells_and_fields_of_a_growing_plate_are_added(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plate of OUT lists them when they have masks, and in the end is that of one run."""
    plate = write_plate(run.folder / "plate.zarr", ["A/1", "B/2"], 1, picture(3), "yx")
    run.folder = plate
    run.segment()
    before = {name: content for name, content in contents(run.store).items() if "/c/" in name}
    write_plate(tmp_path / "grown.zarr", ["A/1", "B/2", "B/3"], 2, picture(4), "yx")
    for name in ("zarr.json", "A/1/zarr.json", "B/2/zarr.json"):
        (plate / name).write_bytes((tmp_path / "grown.zarr" / name).read_bytes())
    for place in ("A/1/1", "B/2/1", "B/3"):
        (tmp_path / "grown.zarr" / place).rename(plate / place)
    write_plan(run.prepared(), run.notes)
    assert [well["path"] for well in ome(run.store)["plate"]["wells"]] == ["A/1", "B/2"]
    assert not is_complete(run.store)
    assert run.segment().new_planes == 4
    assert [well["path"] for well in ome(run.store)["plate"]["wells"]] == ["A/1", "B/2", "B/3"]
    assert [one["path"] for one in ome(run.store / "A/1")["well"]["images"]] == ["0", "1"]
    assert before.items() <= contents(run.store).items()
    fresh = at_once(run, tmp_path / "fresh", monkeypatch)
    assert contents(run.store) == contents(fresh.store)
    assert tables(run.store) == tables(fresh.store)
    planned = job.planned(run.store)
    finishing.finish(planned, ProgressCounter(run.notes, planned.journal), rewrite=True)
    assert contents(run.store) == contents(fresh.store)


def test_wells_that_were_listed_and_missing_are_added_when_they_are_there(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Microscopes list all wells when they begin; the failures of these are forgotten, one after the other."""
    plate = write_plate(run.folder / "plate.zarr", ["A/1", "A/2", "B/3"], 1, picture(3), "yx")
    run.folder = plate
    for well in ("A/2", "B/3"):
        (plate / well).rename(tmp_path / well.replace("/", ""))
    assert [failure.image for failure in run.segment().failures] == ["A/2", "B/3"]
    (tmp_path / "A2").rename(plate / "A/2")
    assert [failure.image for failure in run.segment().failures] == ["B/3"]
    (tmp_path / "B3").rename(plate / "B/3")
    assert run.segment().failures == ()
    assert tables(run.store) == tables(at_once(run, tmp_path / "fresh", monkeypatch).store)


def test_a_collection_lists_series_that_came_later(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its OME-XML, too, by which viewers find them."""
    store = write_group(run.folder / "many.zarr", {"bioformats2raw.layout": 3})
    run.folder = store
    for number in range(3):
        write_image(store / str(number), picture(number + 1), "yx")
        write_group(store / "OME", {"series": [str(one) for one in range(number + 1)]})
        run.segment()
    fresh = at_once(run, tmp_path / "fresh", monkeypatch)
    assert contents(run.store) == contents(fresh.store)
    assert tables(run.store) == tables(fresh.store)
    assert (run.store / "OME" / "METADATA.ome.xml").read_bytes().count(b"<Image ") == 3


def test_an_image_of_which_only_the_metadata_are_there_waits(run: SmallRun) -> None:
    """It would be taken for one without nuclei, and not be looked at again."""
    write_image(run.folder / "b.zarr", picture(3), "yx")
    run.segment()
    image = write_image(run.folder / "a.zarr", picture(4), "yx")
    (image / "0" / "c").rename(run.folder.parent / "c")
    assert run.segment().new_planes == 0
    assert "1 image (a.zarr): new; not in this run; none of its chunks is there yet" in run.notes.text
    (run.folder.parent / "c").rename(image / "0" / "c")
    assert run.segment().new_nuclei == 4


def test_report_and_refuse_leave_images_in_stores_out(run: SmallRun) -> None:
    """As they do with files."""
    write_image(run.folder / "b.zarr", picture(3), "yx")
    run.segment()
    write_image(run.folder / "a.zarr", picture(4), "yx")
    assert run.segment(new="report").new_planes == 0
    assert "1 image (a.zarr): new; not in this run; add them with --new add" in run.notes.text
    with pytest.raises(MismatchError, match=r"--new refuse: 1 image \(a.zarr\): new"):
        run.segment(new="refuse")


def test_time_points_that_came_later_are_told_and_left_out(run: SmallRun) -> None:
    """The mask of a movie is one array, which would not keep its bytes; what was segmented stays as it is."""
    movie = write_image(run.folder / "movie.zarr", np.stack([picture(3), picture(4)]), "tyx")
    run.segment()
    before = tables(run.store)
    write_array(movie / "0", np.stack([picture(3), picture(4), picture(5)]), overwrite=True)
    assert run.segment().new_planes == 0
    told = "1 image (movie.zarr): other time points or z-slices than when the run was planned; what is new is not in"
    assert told in run.notes.text
    assert tables(run.store) == before
    with pytest.raises(MismatchError, match=r"--new refuse: 1 image \(movie.zarr\): other time points"):
        run.segment(new="refuse")


def test_time_points_that_were_selected_may_be_fewer_than_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a movie that grows beyond them nothing is said."""
    run = small_run(tmp_path, monkeypatch, t="0:2")
    movie = write_image(run.folder / "movie.zarr", np.stack([picture(3), picture(4)]), "tyx")
    run.segment()
    write_array(movie / "0", np.stack([picture(3), picture(4), picture(5)]), overwrite=True)
    assert run.segment().new_planes == 0
    assert "time points" not in run.notes.text


def in_place(run: SmallRun, **options: Any) -> Any:
    """`segment --in-place` of the folder of a run."""
    given = RunSettings(**options)
    run.notes.lines.clear()
    task = job.prepare(run.folder, run.folder, None, run.settings, run.notes, in_place=True, options=given)
    return local.run(task, run.notes)


def test_labels_in_place_are_added_to_new_images(run: SmallRun, tmp_path: Path) -> None:
    """Labels that are there keep their bytes; an image that has other labels of that name is left out."""
    plate = write_plate(run.folder / "plate.zarr", ["A/1"], 1, picture(3), "yx")
    run.folder = plate
    in_place(run)
    before = {name: data for name, data in contents(plate / "A/1/0/labels").items() if "/0/" in name}
    write_plate(tmp_path / "grown.zarr", ["A/1", "B/2"], 2, picture(4), "yx")
    for name in ("zarr.json", "A/1/zarr.json"):
        (plate / name).write_bytes((tmp_path / "grown.zarr" / name).read_bytes())
    for place in ("A/1/1", "B"):
        (tmp_path / "grown.zarr" / place).rename(plate / place)
    write_group(plate / "B/2/1/labels", {"labels": ["nuclei"]})
    own = write_image(plate / "B/2/1/labels/nuclei", picture(1).astype(np.uint32), "yx")
    theirs = contents(own)
    summary = in_place(run)
    assert (summary.new_planes, summary.outcome.planes) == (2, 3)
    assert "B/2/1 has label images called nuclei already; delete them to add the image" in run.notes.text
    assert before.items() <= contents(plate / "A/1/0/labels").items()
    assert contents(own) == theirs
    for image in ("A/1/1", "B/2/0"):
        assert ome(plate / image / "labels")["labels"] == ["nuclei"]
        assert np.asarray(zarr.open_array(plate / image / "labels/nuclei/0", mode="r")[:]).max() == 4
    with open(RunLayout(plate).images_csv, newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["A/1/0", "A/1/1", "B/2/0"]
    assert in_place(run).new_planes == 0
    assert tables(plate)[2].count(b"\n") == 1


def test_a_watch_of_files_leaves_stores_of_the_run_as_they_are(run: SmallRun) -> None:
    """They were added without --watch, and are neither gone nor segmented again; others are not taken."""
    run.put("1.tif", picture(3))
    write_image(run.folder / "a.zarr", picture(4), "yx")
    run.segment()
    run.put("2.tif", picture(2))
    write_image(run.folder / "b.zarr", picture(5), "yx")
    watch = FolderWatch()
    with pytest.raises(NothingToDoError):
        watch.select(discover(str(run.folder)))
    run.notes.lines.clear()
    task = job.prepare(run.folder, run.store, None, run.settings, run.notes, select=watch.select)
    assert local.run(task, run.notes).new_planes == 1
    assert "not there any more" not in run.notes.text
    assert list(open_masks(run.store)) == ["1.tif", "2.tif", "a.zarr"]


def test_a_store_whose_masks_would_lie_where_others_are_is_left_out(run: SmallRun) -> None:
    """A folder that is called like an array of masks."""
    run.put("1.tif", picture(3))
    run.segment()
    write_image(run.folder / "40x50", picture(4), "yx")
    assert run.segment().new_planes == 0
    assert "masks of the run are in its place in OUT" in run.notes.text
    run.put("2.tif", picture(3))
    assert run.segment().new_planes == 1
