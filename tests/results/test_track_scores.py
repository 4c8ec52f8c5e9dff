"""Tracks against annotated ones, by the measures of the Cell Tracking Challenge."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from exporting import exported
from movies import Movie, movie, write_truth
from small_runs import Notes, SmallRun, small_run
from zarr_examples import multiscales, write_array, write_group

import nucseg_batch
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.executors import job, local
from nucseg_batch.results.track_scores import TrackEvaluation, evaluate_tracks
from nucseg_batch.settings import SegmentSettings

FRAMES, SHAPE = 13, (97, 113)


@pytest.fixture(autouse=True)
def libraries() -> None:
    pytest.importorskip("laptrack")
    pytest.importorskip("ctc_metrics")


@pytest.fixture(scope="module")
def truth() -> Movie:
    return movie(FRAMES, SHAPE, 9, speed=1.0, seed=6)


def movie_run(place: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie, *names: str) -> SmallRun:
    run = small_run(place, monkeypatch, link="t", region=512)
    for name in names:
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        frames = np.where(truth.tracks > 0, 150, 10).astype(np.uint8)
        tifffile.imwrite(run.folder / name, frames, imagej=True, metadata={"axes": "TYX"})
    run.segment()
    return run


def write_segmentation(folder: Path, truth: Movie, *times: int) -> None:
    for t in times:
        tifffile.imwrite(folder / "SEG" / f"man_seg{t:03}.tif", truth.tracks[t])


def compare(prediction: Path, truth: Path) -> TrackEvaluation:
    return evaluate_tracks(prediction, truth, progress=lambda *_: None)


def test_a_run_is_scored_against_the_layout_of_the_challenge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Nuclei are found by a threshold, and so right but for those that touch: tracks are nearly right."""
    run = movie_run(tmp_path, monkeypatch, truth, "x/a.tif", "b.tif")
    for name in ("x/a", "b"):
        write_truth(tmp_path / "t" / name / "01_GT", truth)
    write_segmentation(tmp_path / "t" / "b" / "01_GT", truth, 0, 5)
    before = sorted(tmp_path.rglob("*"))
    result = compare(run.store, tmp_path / "t")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left behind"
    assert [one.name for one in result.sequences] == ["b/01", "x/a/01"]
    first, second = result.sequences
    assert (first.frames, first.annotated, first.predicted) == (FRAMES, len(truth.spans()), True)
    assert second.measures["SEG"] is None, "the truth has no annotated segmentation"
    assert {name: first.measures[name] for name in ("DET", "TRA", "LNK")} == {
        name: second.measures[name] for name in ("DET", "TRA", "LNK")
    }
    assert all(0.9 < (first.measures[name] or 0) <= 1 for name in ("DET", "SEG", "TRA", "LNK"))
    assert result.mean["SEG"] == first.measures["SEG"]


def test_scores_are_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    """Of a result in which a track is gone and two are exchanged."""
    from ctc_metrics import evaluate_sequence

    write_truth(tmp_path / "t" / "01_GT", truth)
    write_segmentation(tmp_path / "t" / "01_GT", truth, 3)
    result = tmp_path / "p" / "01_RES"
    result.mkdir(parents=True)
    gone = truth.spans()[0][0]
    for t, frame in enumerate(truth.tracks):
        tifffile.imwrite(result / f"mask{t:03}.tif", np.where(frame == gone, 0, frame))
    lines = [f"{track} {a} {b} {0 if mother == gone else mother}\n" for track, a, b, mother in truth.spans()]
    (result / "res_track.txt").write_text("".join(line for line in lines if not line.startswith(f"{gone} ")))
    (found,) = compare(tmp_path / "p", tmp_path / "t").sequences
    expected = evaluate_sequence(str(result), str(tmp_path / "t" / "01_GT"), metrics=["DET", "SEG", "TRA", "LNK"])
    assert found.measures == {name: expected[name] for name in ("DET", "SEG", "TRA", "LNK")}
    assert 0.5 < (found.measures["TRA"] or 0) < 1
    assert (found.annotated, found.found) == (len(truth.spans()), len(truth.spans()) - 1)


def test_the_export_of_a_run_scores_as_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    run = movie_run(tmp_path, monkeypatch, truth, "a.tif")
    write_truth(tmp_path / "t" / "a" / "01_GT", truth)
    exported(run, tmp_path / "out", "ctc")
    assert compare(run.store, tmp_path / "t").sequences == compare(tmp_path / "out" / "ctc", tmp_path / "t").sequences


def test_the_export_of_an_ome_tiff_pairs_with_the_truth_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """Folders are named after the images, `a.ome` after `a.ome.tif`, whose truth is `a_GT`."""
    run = movie_run(tmp_path, monkeypatch, truth, "a.tif", "b.tif")
    for name in "ab":
        write_truth(tmp_path / "t" / f"{name}_GT", truth)
    exported(run, tmp_path / "out", "ctc")
    (tmp_path / "out" / "ctc" / "a").rename(tmp_path / "out" / "ctc" / "a.ome")
    assert [one.predicted for one in compare(tmp_path / "out" / "ctc", tmp_path / "t").sequences] == [True, True]


def test_the_layout_of_the_challenges_data_pairs_with_its_movies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """`01.tif` has its truth in `01_GT`; an image of that name with another suffix is another one."""
    run = movie_run(tmp_path, monkeypatch, truth, "01.tif", "02.tif", "02.tiff")
    write_truth(tmp_path / "t" / "01_GT", truth)
    (found,) = compare(run.store, tmp_path / "t").sequences
    assert found.predicted
    write_truth(tmp_path / "t" / "02_GT", truth)
    with pytest.raises(UsageError, match="both match 02"):
        compare(run.store, tmp_path / "t")


def test_each_slice_is_a_movie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    """Numbered from 01, as the export does."""
    run = small_run(tmp_path, monkeypatch, link="t", region=512)
    other = truth.tracks[:, ::-1]
    frames = np.where(np.stack([truth.tracks, other], axis=1) > 0, 150, 10).astype(np.uint8)
    tifffile.imwrite(run.folder / "a.tif", frames, imagej=True, metadata={"axes": "TZYX"})
    run.segment()
    write_truth(tmp_path / "t" / "a" / "01_GT", truth)
    write_truth(tmp_path / "t" / "a" / "02_GT", Movie(other, truth.parents))
    assert [(one.measures["DET"] or 0) > 0.9 for one in compare(run.store, tmp_path / "t").sequences] == [True, True]


def test_a_run_in_place_is_scored_by_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    """Which is that of the images; its only movie needs no name."""
    store = tmp_path / "movie.zarr"
    write_group(store, multiscales("tyx"))
    write_array(store / "0", np.where(truth.tracks > 0, 150, 10).astype(np.uint8))
    small_run(tmp_path, monkeypatch)
    settings = SegmentSettings(diameter=26.0, region=512, workers=2, link="t")
    local.run(job.prepare(store, store, None, settings, Notes(), in_place=True), Notes())
    write_truth(tmp_path / "t" / "01_GT", truth)
    (found,) = compare(store, tmp_path / "t").sequences
    assert 0.9 < (found.measures["TRA"] or 0) <= 1


def test_a_movie_without_a_prediction_scores_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    """And so does one in which nothing was found."""
    for name in ("01", "02", "03"):
        write_truth(tmp_path / "t" / f"{name}_GT", truth)
    (tmp_path / "p" / "02_RES").mkdir(parents=True)
    (tmp_path / "p" / "02_RES" / "res_track.txt").touch()
    for t in range(FRAMES):
        tifffile.imwrite(tmp_path / "p" / "02_RES" / f"mask{t:03}.tif", np.zeros(SHAPE, np.uint16))
    shutil.copytree(tmp_path / "t" / "03_GT" / "TRA", tmp_path / "p" / "03_RES")
    (tmp_path / "p" / "03_RES" / "man_track.txt").rename(tmp_path / "p" / "03_RES" / "res_track.txt")
    result = compare(tmp_path / "p", tmp_path / "t")
    assert [(one.predicted, one.measures["TRA"]) for one in result.sequences] == [(False, 0), (True, 0), (True, 1)]
    assert result.mean == {"DET": 1 / 3, "SEG": None, "TRA": 1 / 3, "LNK": 1 / 3}
    assert [one.name for one in result.worst(2)] == ["01", "02"]


def test_folders_that_are_given_themselves_need_no_names(tmp_path: Path, truth: Movie) -> None:
    """Which is said, as of stores of label images."""
    write_truth(tmp_path / "t" / "one_GT", truth)
    shutil.copytree(tmp_path / "t" / "one_GT" / "TRA", tmp_path / "p" / "other_RES")
    (tmp_path / "p" / "other_RES" / "man_track.txt").rename(tmp_path / "p" / "other_RES" / "res_track.txt")
    result = compare(tmp_path / "p" / "other_RES", tmp_path / "t" / "one_GT")
    assert result.mean["TRA"] == 1
    (assumed,) = result.as_json()["assumptions"]
    assert (assumed["kind"], assumed["doubtful"], assumed["what"]) == ("pairing", True, "other is compared with one")
    with pytest.raises(NothingToDoError, match="share no image name"):
        compare(tmp_path / "p", tmp_path / "t")


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, truth: Movie) -> None:
    write_truth(tmp_path / "t" / "01_GT", truth)
    result = tmp_path / "p" / "01_RES"
    shutil.copytree(tmp_path / "t" / "01_GT" / "TRA", result)
    (result / "man_track.txt").rename(result / "res_track.txt")
    (result / f"man_track{FRAMES - 1:03}.tif").unlink()
    with pytest.raises(ImageError, match=f"01: the prediction has {FRAMES - 1} time points and the truth {FRAMES}"):
        compare(tmp_path / "p", tmp_path / "t")
    for t in range(FRAMES):
        tifffile.imwrite(result / f"man_track{t:03}.tif", truth.tracks[t, :-3])
    with pytest.raises(ImageError, match=r"masks of the prediction are \(94, 113\) pixels"):
        compare(tmp_path / "p", tmp_path / "t")
    for t in range(FRAMES):
        tifffile.imwrite(result / f"man_track{t:03}.tif", truth.tracks[t])
    (result / "res_track.txt").write_text("1 0 2 0\n")
    with pytest.raises(ImageError, match=r"no valid result of the Cell Tracking Challenge \(.*track"):
        compare(tmp_path / "p", tmp_path / "t")


def test_places_without_movies_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie) -> None:
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", np.full((40, 50), 10, np.uint8))
    run.segment()
    with pytest.raises(InputMissingError, match=r"01_GT/TRA/man_track\.txt"):
        compare(run.store, tmp_path / "t")
    with pytest.raises(NothingToDoError, match=r"TRUTH .* no movie"):
        compare(run.store, run.folder)
    write_truth(tmp_path / "t" / "01_GT", truth)
    with pytest.raises(NothingToDoError, match="no tracks; segment with --link t"):
        compare(run.store, tmp_path / "t")


def test_the_command_prints_and_writes_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Movie
) -> None:
    run = movie_run(tmp_path, monkeypatch, truth, "a.tif")
    write_truth(tmp_path / "t" / "a" / "01_GT", truth)
    scores, rows = tmp_path / "s.json", tmp_path / "s.csv"
    told = call("evaluate", run.store, tmp_path / "t", "--tracks", "--json", scores, "--csv", rows).stdout
    assert "Evaluate sequence" not in told, "what the library prints is kept back"
    assert "mean of 1" in told
    record = json.loads(scores.read_text())
    (measured,) = compare(run.store, tmp_path / "t").sequences
    assert record["mean"] == {name.lower(): value for name, value in measured.measures.items()}
    with open(rows, newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["sequence"], row["status"], row["seg"]) == ("a/01", "ok", "")
    assert float(row["tra"]) == pytest.approx(record["mean"]["tra"], rel=1e-6)
    shown = nucseg_batch.evaluate_tracks(run.store, tmp_path / "t")
    assert shown.as_json() == record


def test_options_of_label_images_are_refused(tmp_path: Path) -> None:
    """They would change nothing."""
    for words, told in ((["--strict"], "--strict"), (["--group", "x"], "--group"), (["--volumes"], "--volumes")):
        done = call("evaluate", tmp_path, tmp_path, "--tracks", *words, code=2)
        assert told in done.stderr


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ctc_metrics" else find(name))
    with pytest.raises(UsageError, match=r"pip install 'nucseg-batch\[ctc\]'"):
        compare(tmp_path, tmp_path)
