"""Whole runs with --link t over simulated movies: exact, restartable, the same bytes however they are done."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from movies import Movie, movie, tracked
from numpy.typing import NDArray
from small_runs import SmallRun, small_run
from zarr_examples import multiscales, write_array, write_group

from nucseg_batch.errors import DamageError, UsageError
from nucseg_batch.executors import job
from nucseg_batch.executors.verification import forget
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import units
from nucseg_batch.settings import SegmentSettings

pytest.importorskip("laptrack")

FRAMES, SHAPE = 11, (97, 113)


@pytest.fixture(scope="module")
def truth() -> Movie:
    return movie(FRAMES, SHAPE, 9, speed=1.0, seed=5)


def pixels(labels: NDArray[Any], value: int = 150) -> NDArray[np.uint8]:
    """Bright nuclei on dark ground, which a threshold finds."""
    return np.where(labels > 0, value, 10).astype(np.uint8)


def put(run: SmallRun, name: str, frames: NDArray[np.uint8]) -> None:
    tifffile.imwrite(run.folder / name, frames, imagej=True, metadata={"axes": "TZYX" if frames.ndim == 4 else "TYX"})


def movie_run(place: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie, **settings: Any) -> SmallRun:
    """Two movies of one shape, of which one has a frame without nuclei, and an image."""
    run = small_run(place, monkeypatch, link="t", **{"region": 128, **settings})
    put(run, "a.tif", pixels(truth.tracks))
    other = pixels(truth.tracks[::-1])
    other[4] = 10
    put(run, "b.tif", other)
    run.put("plane.tif", pixels(truth.tracks[0]))
    return run


def rows(run: SmallRun) -> list[dict[str, str]]:
    with open(RunLayout(run.store).tracks_csv, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_nucleus_of_a_movie_has_a_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    """In the order of nuclei.csv; other images have none."""
    run = movie_run(tmp_path, monkeypatch, truth)
    summary, found = run.segment(), rows(run)
    with open(RunLayout(run.store).tables["nuclei"], newline="", encoding="utf-8") as file:
        nuclei = [row for row in csv.DictReader(file) if row["image"] != "plane.tif"]
    shared = ("image", "t", "z", "label", "centroid-0", "centroid-1")
    assert [[row[name] for name in shared] for row in found] == [[row[name] for name in shared] for row in nuclei]
    masks, count = open_masks(run.store), 0
    for image in ("a.tif", "b.tif"):
        expected = tracked(masks[image])
        own = [row for row in found if row["image"] == image]
        assert [int(row["track_id"]) for row in own] == np.concatenate(expected.ids).tolist()
        parents = [int(row["parent_track_id"] or 0) for row in own]
        assert parents == [int(expected.parents[int(row["track_id"])]) for row in own]
        count += expected.parents.size - 1
    assert summary.outcome.tracks == count
    record = json.loads(RunLayout(run.store).provenance.read_text())
    assert record["output"]["tracks"] == count
    assert "tracks.csv" in record["output"]["sha256"]


def test_the_same_bytes_in_small_units_and_by_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """As from one process and units that hold whole movies."""
    tables = []
    for name, planes, shares in (("a", 1000, 1), ("b", 3, 1), ("c", 1, 3)):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(units, "SHARD_BYTES", 4 * SHAPE[0] * SHAPE[1] * planes)
        run = movie_run(tmp_path / name, monkeypatch, truth)
        for share in range(shares):
            given: dict[str, Any] = {"shares": shares, "share": share} if shares > 1 else {}
            run.segment(**given)
        tables.append(RunLayout(run.store).tracks_csv.read_bytes())
        assert run.verify().damage == ()
    assert tables[0] == tables[1] == tables[2]
    assert tables[0].count(b"\n") > 100


def test_movies_of_large_planes_are_compared_region_by_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Pixels that labels share are added up over regions."""
    run = movie_run(tmp_path, monkeypatch, truth, region=64)
    run.segment()
    assert len(run.units) > 4 * FRAMES
    masks = open_masks(run.store)
    for image in ("a.tif", "b.tif"):
        own = [int(row["track_id"]) for row in rows(run) if row["image"] == image]
        assert own == np.concatenate(tracked(masks[image]).ids).tolist()
    assert run.verify().damage == ()


def test_a_movie_is_linked_again_when_a_frame_of_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """As in a run that began with the changed one; without a change nothing is written."""
    run = movie_run(tmp_path, monkeypatch, truth)
    run.segment()
    table = RunLayout(run.store).tracks_csv
    before, time = table.read_bytes(), table.stat().st_mtime_ns
    run.segment()
    assert table.stat().st_mtime_ns == time
    changed = pixels(truth.tracks)
    changed[-1] = 10
    put(run, "a.tif", changed)
    run.segment()
    assert table.read_bytes() == b"".join(
        line for line in before.splitlines(keepends=True) if not line.startswith(f"a.tif,{FRAMES - 1},".encode())
    )


@pytest.mark.parametrize("ending", ["json", "tracks.csv"])
@pytest.mark.parametrize("damage", ["deleted", "other"])
def test_lost_and_damaged_records_are_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie, ending: str, damage: str
) -> None:
    """By verify, and then by the same call."""
    run = movie_run(tmp_path, monkeypatch, truth)
    run.segment()
    before = RunLayout(run.store).tracks_csv.read_bytes()
    (path,) = (run.journal.folder / "tracks").glob(f"*.{ending}")
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(content.replace(b"1", b"2"))
    damaged = run.verify().damage
    assert [one.movies is not None for one in damaged] == [True]
    forget(job.planned(run.store), damaged, lambda line: None)
    run.segment()
    assert path.read_bytes() == content
    assert RunLayout(run.store).tracks_csv.read_bytes() == before
    assert run.verify().damage == ()


def test_a_mask_that_is_not_that_of_its_rows_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Before tracks are written that belong to nothing."""
    run = movie_run(tmp_path, monkeypatch, truth)
    run.segment()
    next((run.journal.folder / "tracks").glob("*.json")).unlink()
    open_array(run.store / f"{FRAMES}t-97x113" / "labels" / "nuclei" / "0", mode="r+")[3, 0] = 0
    with pytest.raises(DamageError, match="mask of time point 3 does not hold the nuclei"):
        run.finish()


def test_slices_of_a_movie_have_tracks_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Numbered from 1 in each."""
    run = small_run(tmp_path, monkeypatch, link="t")
    both = np.stack([pixels(truth.tracks), pixels(truth.tracks[:, ::-1])], axis=1)
    put(run, "a.tif", both)
    run.segment()
    found = rows(run)
    assert [row["z"] for row in found] == sorted(row["z"] for row in found)
    for z in "01":
        assert {int(row["track_id"]) for row in found if row["z"] == z} == set(
            range(1, 1 + max(int(row["track_id"]) for row in found if row["z"] == z))
        )


def test_movies_of_a_store_are_linked_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    """With the axes of the store."""
    run = small_run(tmp_path, monkeypatch, link="t")
    store = run.folder / "movie.zarr"
    write_group(store, multiscales("tyx"))
    write_array(store / "0", pixels(truth.tracks))
    run.segment()
    assert len(rows(run)) > 50


def test_nothing_is_begun_without_time_points_or_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Told before anything is segmented."""
    run = small_run(tmp_path, monkeypatch, link="t")
    run.put("plane.tif", pixels(truth.tracks[0]))
    with pytest.raises(UsageError, match="no image has an axis t"):
        run.segment()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "laptrack" else find(name))
    with pytest.raises(UsageError, match=r"nucseg-batch\[tracks\]"):
        run.segment()
    assert not run.store.exists()
    assert SegmentSettings(link="t").link == "t"


def test_a_movie_that_is_added_to_a_run_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """And the tracks of the others stay; an image without time points can be added, too."""
    run = movie_run(tmp_path, monkeypatch, truth)
    run.segment()
    before = rows(run)
    put(run, "c.tif", pixels(truth.tracks))
    run.segment()
    found = rows(run)
    assert [row for row in found if row["image"] != "c.tif"] == before
    own = [{**row, "image": "a.tif"} for row in found if row["image"] == "c.tif"]
    assert own == [row for row in before if row["image"] == "a.tif"]
    run.put("later.tif", pixels(truth.tracks[1]))
    run.segment()
    assert rows(run) == found
    assert run.verify().damage == ()
