"""Volumes and tracks of a run as data frames, and what the provenance says of the library that linked them."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_runs import SmallRun, picture, small_run

import nucseg_batch
from nucseg_batch.api.tables import Library
from nucseg_batch.errors import InputMissingError, UsageError
from nucseg_batch.files.run_layout import RunLayout


def stack_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    run = small_run(place, monkeypatch, link="z")
    for name, nuclei in (("a.tif", 2), ("b.tif", 3)):
        slices = np.array([picture(nuclei), picture(nuclei), picture(0)])
        tifffile.imwrite(run.folder / name, slices, imagej=True, metadata={"axes": "ZYX"})
    run.segment()
    return run


def movie_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    pytest.importorskip("laptrack")
    run = small_run(place, monkeypatch, link="t")
    for name, nuclei in (("a.tif", 2), ("b.tif", 1)):
        frames = np.array([picture(nuclei)] * 3)
        tifffile.imwrite(run.folder / name, frames, imagej=True, metadata={"axes": "TYX"})
    run.segment()
    return run


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_volumes_are_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    pytest.importorskip(library)
    run = stack_run(tmp_path, monkeypatch)
    volumes = nucseg_batch.read_volumes(run.store, library=library)
    assert list(volumes["label"]) == [1, 2, 1, 2, 3]
    assert list(volumes["volume"]) == [40] * 5
    chosen = nucseg_batch.read_volumes(run.store, columns=["slices", "image"], pattern="b*", library=library)
    assert list(chosen.columns) == ["slices", "image"]
    assert list(chosen["slices"]) == [2, 2, 2]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tracks_are_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    pytest.importorskip(library)
    run = movie_run(tmp_path, monkeypatch)
    tracks = nucseg_batch.read_tracks(run.store, pattern="a*", library=library)
    assert list(tracks["t"]) == [0, 0, 1, 1, 2, 2]
    assert list(tracks["track_id"]) == [1, 2, 1, 2, 1, 2]


def test_columns_that_count_are_integers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where cells are empty, as that of the mother is."""
    tracks = nucseg_batch.read_tracks(movie_run(tmp_path / "t", monkeypatch).store, library="pandas")
    volumes = nucseg_batch.read_volumes(stack_run(tmp_path / "z", monkeypatch).store, library="pandas")
    assert {str(tracks.dtypes[name]) for name in ("t", "z", "label", "track_id", "parent_track_id")} == {"Int64"}
    assert {str(volumes.dtypes[name]) for name in ("t", "label", "volume", "slices", "bbox-4")} == {"Int64"}
    assert tracks["parent_track_id"].isna().all()


def test_a_run_without_them_says_how_to_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stack_run(tmp_path, monkeypatch)
    with pytest.raises(InputMissingError, match=r"out\.tracks\.csv is missing; `nucseg-batch segment --link t`"):
        nucseg_batch.read_tracks(run.store)
    with pytest.raises(UsageError, match=r"out\.volumes\.csv has no column area"):
        nucseg_batch.read_volumes(run.store, columns=["area"])
    RunLayout(run.store).volumes_csv.unlink()
    with pytest.raises(InputMissingError, match="--link z"):
        nucseg_batch.read_volumes(run.store)


def test_the_provenance_names_the_library_that_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in runs with tracks; with the version at that time, also when another one is installed later."""
    run = movie_run(tmp_path / "t", monkeypatch)
    version = metadata.version("laptrack")
    stack = stack_run(tmp_path / "z", monkeypatch)
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == "laptrack" else known(name))
    run.finish()
    made = [json.loads(RunLayout(one.store).provenance.read_text())["packages"] for one in (run, stack)]
    assert made[0]["laptrack"] == version
    assert "laptrack" not in made[1]
