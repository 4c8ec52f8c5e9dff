"""Tracks in the layout of the Cell Tracking Challenge, read back and judged by its measures."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from exporting import exported
from movies import movie, write_truth
from numpy.typing import NDArray
from small_runs import SmallRun, small_run

from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tracks import RunTracks

pytest.importorskip("laptrack")


def tracked_run(place: Path, monkeypatch: pytest.MonkeyPatch, frames: NDArray[np.uint8], axes: str = "TYX") -> SmallRun:
    run = small_run(place, monkeypatch, link="t", region=512)
    tifffile.imwrite(run.folder / "a.tif", frames, imagej=True, metadata={"axes": axes})
    run.segment()
    return run


def spots(*places: tuple[int, int] | None) -> NDArray[np.uint8]:
    """A movie of one nucleus at these places."""
    found = np.full((len(places), 47, 59), 10, np.uint8)
    for frame, place in zip(found, places, strict=True):
        if place is not None:
            frame[place[0] : place[0] + 9, place[1] : place[1] + 8] = 150
    return found


def lines(folder: Path) -> list[list[int]]:
    return [[int(word) for word in line.split()] for line in (folder / "res_track.txt").read_text().splitlines()]


def test_the_folder_of_a_sequence_is_counted_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a file for each frame."""
    run = tracked_run(tmp_path, monkeypatch, spots((5, 5), (6, 6), (7, 7)))
    assert "ctc: 1 folder written\n" in call("export", run.store, tmp_path / "to", "--format", "ctc").stdout
    assert len(list((tmp_path / "to" / "ctc" / "a" / "01_RES").iterdir())) == 4
    again = call("export", run.store, tmp_path / "to", "--format", "ctc", "--format", "roi").stdout
    assert "ctc: 0 folders written, 1 up to date\nroi: 1 file written\n" in again


def test_masks_have_the_number_of_the_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all frames, and each track has its line."""
    truth = movie(13, (97, 113), 9, speed=1.0, seed=6)
    run = tracked_run(tmp_path, monkeypatch, np.where(truth.tracks > 0, 150, 10).astype(np.uint8))
    exported(run, tmp_path / "out", "ctc")
    folder = tmp_path / "out" / "ctc" / "a" / "01_RES"
    assert sorted(path.name for path in folder.iterdir()) == [*(f"mask{t:03}.tif" for t in range(13)), "res_track.txt"]
    with FinishedRun(run.store) as finished:
        planes = list(finished.planes())
        tracks = RunTracks(run.store).of(planes[0])
    assert tracks is not None
    masks = open_masks(run.store)["a.tif"]
    seen: dict[int, list[int]] = {}
    for t, row in enumerate(planes):
        image = tifffile.imread(folder / f"mask{t:03}.tif")
        assert image.dtype == np.uint16
        assert np.array_equal(image, np.concatenate([[0], tracks.ids[row.key]])[masks[t]])
        for number in tracks.ids[row.key].tolist():
            seen.setdefault(number, []).append(t)
    expected = [[one, at[0], at[-1], tracks.parents.get(("", one), 0)] for one, at in sorted(seen.items())]
    assert lines(folder) == expected


def test_a_track_goes_on_under_a_new_number_after_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which comes from the old one, since a track of the format is in every frame from its first to its last."""
    run = tracked_run(tmp_path, monkeypatch, spots((5, 7), (5, 8), None, (6, 9), (7, 9)))
    assert RunLayout(run.store).tracks_csv.read_text().count(",1,1,,") == 4
    exported(run, tmp_path / "out", "ctc")
    folder = tmp_path / "out" / "ctc" / "a" / "01_RES"
    assert lines(folder) == [[1, 0, 1, 0], [2, 3, 4, 1]]
    assert [int(tifffile.imread(folder / f"mask{t:03}.tif").max()) for t in range(5)] == [1, 1, 0, 2, 2]


def test_a_frame_that_failed_is_an_empty_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the number of masks is that of the frames."""
    run = tracked_run(tmp_path, monkeypatch, spots((5, 7), (5, 8), None))
    table = RunLayout(run.store).images_csv
    rows = table.read_text().splitlines()
    rows[3] = "a.tif,failed,,,2," + "," * (rows[0].count(",") - 5)
    table.write_text("\n".join(rows) + "\n")
    exported(run, tmp_path / "out", "ctc")
    mask = tifffile.imread(tmp_path / "out" / "ctc" / "a" / "01_RES" / "mask002.tif")
    assert (mask.shape, int(mask.max())) == ((47, 59), 0)


def test_each_slice_is_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since its tracks are its own."""
    frames = np.stack([spots((5, 7), (5, 8)), spots((25, 7), (26, 8))], axis=1)
    run = tracked_run(tmp_path, monkeypatch, frames, "TZYX")
    exported(run, tmp_path / "out", "ctc")
    folder = tmp_path / "out" / "ctc" / "a"
    assert sorted(path.name for path in folder.iterdir()) == ["01_RES", "02_RES"]
    assert lines(folder / "02_RES") == [[1, 0, 1, 0]]
    assert tifffile.imread(folder / "02_RES" / "mask001.tif")[26, 8] == 1


def test_images_without_tracks_are_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an export that is there is kept."""
    run = tracked_run(tmp_path, monkeypatch, spots((5, 7), (5, 8)))
    assert exported(run, tmp_path / "out", "ctc").formats["ctc"].written == 1
    assert exported(run, tmp_path / "out", "ctc").formats["ctc"].kept == 1
    RunLayout(run.store).tracks_csv.unlink()
    refused = exported(run, tmp_path / "out", "ctc", overwrite=True).formats["ctc"]
    assert refused.reasons == ["a.tif: the run has no tracks; segment with --link t."]


@pytest.mark.long
def test_tracks_of_a_simulated_movie_are_valid_and_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 frames with divisions: the measure TRA of the Cell Tracking Challenge, and the rules of its layout."""
    evaluate = pytest.importorskip("ctc_metrics.scripts.evaluate")
    validate = pytest.importorskip("ctc_metrics.scripts.validate")
    truth = movie(100, (211, 223), 25, speed=2.0, seed=7)
    run = tracked_run(tmp_path, monkeypatch, np.where(truth.tracks > 0, 150, 10).astype(np.uint8))
    exported(run, tmp_path / "out", "ctc")
    result = tmp_path / "out" / "ctc" / "a" / "01_RES"
    write_truth(tmp_path / "01_GT", truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert validate.validate_sequence(str(result), threads=1) == {"Valid": 1}
    found = evaluate.evaluate_sequence(str(result), str(tmp_path / "01_GT"), metrics=["Valid", "DET", "TRA"], threads=1)
    assert len(truth.spans()) > 60
    assert found["TRA"] >= 0.95
