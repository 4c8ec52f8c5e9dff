"""What the report says and shows of volumes and tracks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from movies import movie
from numpy.typing import NDArray
from PIL import Image
from report_pages import Page, report_of
from small_runs import SmallRun, picture, small_run

import nucseg_batch
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report.linked_pictures import colour_number
from nucseg_batch.results.report.pictures import COLOURS
from nucseg_batch.results.report.tracks import tracks_section
from nucseg_batch.results.report.volumes import volumes_section
from nucseg_batch.results.run import FinishedRun


def stack_run(place: Path, monkeypatch: pytest.MonkeyPatch, *, micrometres: bool = False) -> SmallRun:
    """Two stacks, the second with more volumes, of which one is in the last slice alone."""
    run = small_run(place, monkeypatch, link="z")
    for name, counts in (("a.tif", (2, 2, 0)), ("b <i>.tif", (0, 1, 3, 3, 4))):
        slices = np.array([picture(count) for count in counts])
        metadata = {"axes": "ZYX", **({"spacing": 2.0, "unit": "um"} if micrometres else {})}
        resolution = (2, 2) if micrometres else None
        tifffile.imwrite(run.folder / name, slices, imagej=True, resolution=resolution, metadata=metadata)
    run.segment()
    return run


def movie_run(place: Path, monkeypatch: pytest.MonkeyPatch, frames: NDArray[np.uint8], axes: str = "TYX") -> SmallRun:
    pytest.importorskip("laptrack")
    run = small_run(place, monkeypatch, link="t", region=512)
    tifffile.imwrite(run.folder / "m.tif", frames, imagej=True, metadata={"axes": axes})
    run.segment()
    return run


def colours(drawn: bytes) -> NDArray[np.uint8]:
    """(height, width, 4)."""
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGBA"))


def test_volumes_are_counted_and_shown_through_their_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That with most of them, from its first slice with nuclei to its last one."""
    run = stack_run(tmp_path, monkeypatch, micrometres=True)
    with FinishedRun(run.store) as finished:
        found = volumes_section(finished)
    assert found is not None
    assert (found.count, found.stacks, found.single) == (6, 2, 1)
    assert [chart.title for chart in found.charts] == ["Volume", "Slices of a nucleus"]
    assert found.charts[0].unit == "volume of a nucleus (µm³)"
    assert sum(bar[-1] for bar in found.charts[1].bars) == 6
    assert [one.row.z for one in found.pictures] == [1, 2, 3, 4]
    text = Page(report_of(run.store)).text
    assert "6 volumes in 2 stacks; 1 (17 %) in a single slice only." in text
    assert "b <i>.tif, the stack with most volumes." in text


def test_a_volume_has_one_colour_in_all_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although its labels in the masks of nuclei are unrelated."""
    run = stack_run(tmp_path, monkeypatch)
    with FinishedRun(run.store) as finished:
        found = volumes_section(finished)
    assert found is not None
    assert found.charts[0].unit == "volume of a nucleus (voxels)", "the pixel size is not known"
    volumes = open_masks(run.store, label="volumes")["b <i>.tif"]
    for one in found.pictures:
        shown = colours(one.picture.drawn)
        factor = one.picture.part.enlarge
        expected = np.kron(volumes[one.row.depth], np.ones((factor, factor), np.uint32))
        assert np.array_equal(shown[..., 3] > 0, expected > 0)
        for volume in np.unique(expected[expected > 0]).tolist():
            colour = COLOURS[int(colour_number(np.array([volume], np.uint32))[0])]
            assert (shown[expected == volume][:, :3] == colour).all()


def test_tracks_are_counted_and_shown_over_the_first_and_last_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are those of the table; the last frame has the paths of all tracks, and so more colour than nuclei."""
    truth = movie(25, (127, 139), 12, speed=1.0, seed=6)
    run = movie_run(tmp_path, monkeypatch, np.where(truth.tracks > 0, 150, 10).astype(np.uint8))
    table = nucseg_batch.read_tracks(run.store, library="pandas")
    with FinishedRun(run.store) as finished:
        found = tracks_section(finished)
    assert found is not None
    spans = table.groupby("track_id")["t"].agg(["min", "max", "count"])
    length = spans["max"] - spans["min"] + 1
    assert (found.count, found.movies) == (len(spans), 1)
    assert found.divisions == table["parent_track_id"].dropna().nunique() > 0
    assert found.gaps == int((length > spans["count"]).sum())
    assert found.charts[0].words.startswith(f"Median {length.median():g};")
    first, last = found.pictures
    assert (first.row.t, last.row.t) == (0, 24)
    masks, factor = open_masks(run.store)["m.tif"], first.picture.part.enlarge
    for one, beyond in ((first, False), (last, True)):
        shown = colours(one.picture.drawn)[..., 3] > 0
        nuclei = np.kron(masks[one.row.time] > 0, np.ones((factor, factor), bool))
        assert shown[nuclei].all()
        assert bool((shown & ~nuclei).any()) is beyond
    text = Page(report_of(run.store)).text
    assert f"Tracks {len(spans)} nuclei linked over time points" in text
    assert f"{len(spans)} tracks in 1 movie, {found.divisions} divisions;" in text


def test_gaps_and_slices_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice is a movie, and its tracks are its own."""
    frames = np.array([[picture(2), picture(1)], [picture(0), picture(1)], [picture(2), picture(1)]])
    run = movie_run(tmp_path, monkeypatch, frames, "TZYX")
    with FinishedRun(run.store) as finished:
        found = tracks_section(finished)
    assert found is not None
    assert (found.count, found.movies, found.gaps, found.divisions) == (3, 2, 2, 0)
    assert [(one.row.t, one.row.z) for one in found.pictures] == [(0, 0), (2, 0)]


def test_runs_without_them_have_no_such_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those in which nothing was found."""
    run = stack_run(tmp_path / "z", monkeypatch)
    plain = small_run(tmp_path / "p", monkeypatch)
    plain.put("a.tif", picture(3))
    plain.segment()
    empty = movie_run(tmp_path / "e", monkeypatch, np.array([picture(0)] * 2))
    assert not Page(report_of(run.store)).of("section", id="tracks")
    for one in (plain, empty):
        page = Page(report_of(one.store))
        assert not page.of("section", id="volumes")
        assert not page.of("section", id="tracks")


def test_without_the_images_masks_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their colours on black, as elsewhere in the report; and without masks, numbers alone."""
    run = stack_run(tmp_path, monkeypatch)
    for path in run.folder.iterdir():
        path.unlink()
    with FinishedRun(run.store) as finished:
        found = volumes_section(finished)
    assert found is not None
    assert [one.picture.pixels for one in found.pictures] == [None] * 4
    assert len(Page(report_of(run.store)).of("figure", class_="shot")) > 4
    for marker in RunLayout(run.store).folder.glob("volumes/*.json"):
        marker.unlink()
    for unit in run.units:
        run.journal.retract(unit)
    with FinishedRun(run.store) as finished:
        found = volumes_section(finished)
    assert found is not None
    assert (found.count, found.pictures) == (6, [])
