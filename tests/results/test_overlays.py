"""Pictures of outlines on images: whose, how large, and what is said where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from numpy.typing import NDArray
from PIL import Image
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.results.overlays import Style, overlay_of, reduced
from nucseg_batch.results.picture import ON_BRIGHT, ON_DARK, overlay
from nucseg_batch.results.run import FinishedRun


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """Images in a folder of their own, a stack, and a plane that is done by regions."""
    run = small_run(tmp_path, monkeypatch)
    (run.folder / "plate").mkdir()
    run.put("plate/a.tif", picture(3))
    run.put("large.tif", mosaic((150, 170)))
    planes = np.array([picture(t + 1) for t in range(2)])
    tifffile.imwrite(run.folder / "stack.tif", planes, imagej=True, metadata={"axes": "TYX"})
    (run.folder / "bad.tif").write_bytes(b"II*\0 this is no image")
    run.segment()
    return run


def drawn(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {path.relative_to(folder).as_posix(): np.asarray(Image.open(path)) for path in folder.rglob("*.png")}


def yellow(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image == ON_DARK[0]).all(axis=2)


def test_each_plane_has_a_picture_with_lines_just_inside_its_nuclei(run: SmallRun, tmp_path: Path) -> None:
    """Names follow the images; what has no mask is told and left out."""
    told = call("overlay", run.store, tmp_path / "drawn").stdout
    pictures = drawn(tmp_path / "drawn")
    assert pictures.keys() == {"large.png", "plate/a.png", "stack_t000.png", "stack_t001.png"}
    assert "4 pictures in" in told
    assert "1 planes have no mask" in told
    with FinishedRun(run.store) as finished:
        mask = next(finished.mask(row) for row in finished.planes("a.tif"))
    lines = yellow(pictures["plate/a.png"])
    assert lines.sum() == 3 * (4 * 5 - 2 * 3)
    assert mask[lines].all()


def test_options_choose_images_and_how_they_look(run: SmallRun, tmp_path: Path) -> None:
    """Wider lines are more yellow, and numbers change what lies in a nucleus."""
    pictures = []
    for number, options in enumerate(([], ["--width", 2], ["--labels"])):
        call("overlay", run.store, tmp_path / str(number), "--pattern", "plate/*", *options)
        pictures += drawn(tmp_path / str(number)).values()
    plain, wide, numbered = pictures
    assert yellow(plain).sum() < yellow(wide).sum()
    assert (plain != numbered).any()
    call("overlay", run.store, tmp_path / "first", "--first", 2)
    assert len(drawn(tmp_path / "first")) == 2


def test_the_lowest_confidence_is_drawn_first(run: SmallRun, tmp_path: Path) -> None:
    """Nobody can look at 100 000 pictures."""
    table = run.store.with_suffix(".images.csv")
    lines = [line.split(",") for line in table.read_text().splitlines()]
    if "confidence" not in lines[0]:
        lines = [[*line, "confidence" if not number else ""] for number, line in enumerate(lines)]
    place = lines[0].index("confidence")
    for number, line in enumerate(lines[1:]):
        if line[1] == "ok":
            line[place] = "0.1" if line[0] == "plate/a.tif" else f"0.{5 + number}"
    table.write_text("".join(",".join(line) + "\n" for line in lines))
    call("overlay", run.store, tmp_path / "drawn", "--lowest", 1)
    assert drawn(tmp_path / "drawn").keys() == {"plate/a.png"}


def test_a_large_plane_is_reduced_window_by_window(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of a slide must not need the slide in memory."""
    monkeypatch.setattr("nucseg_batch.results.overlays.WINDOW", 33)
    with FinishedRun(run.store) as finished:
        row = next(finished.planes("large.tif"))
        sizes = []
        shown = FinishedRun.shown

        def counted(one: FinishedRun, *window: object) -> object:
            result = shown(one, *window)  # type: ignore[arg-type]
            sizes.append(result.pixels.size)
            return result

        monkeypatch.setattr(FinishedRun, "shown", counted)
        pixels, mask = reduced(finished, row, 3)
        assert max(sizes) <= 33 * 33
        assert pixels.shape == mask.shape == (50, 56)
        assert overlay_of(finished, row, Style(longest=64)).shape == (50, 56, 3)
        whole = finished.mask(row)[1::3, 1::3][:50, :56]
    assert (mask == whole).all()
    means = mosaic((150, 170))[:, :168].reshape(50, 3, 56, 3).mean(axis=(1, 3))
    assert (pixels == means.astype(np.uint8)).all()


def test_images_that_are_gone_are_told_with_what_to_do(run: SmallRun, tmp_path: Path) -> None:
    """Results outlive the disk that the images were on."""
    moved = run.folder.rename(tmp_path / "moved")
    errors = call("overlay", run.store, tmp_path / "drawn", code=66).stderr
    assert "--images" in errors
    assert "--with-images" in errors
    assert errors.count("\n") == 1
    call("overlay", run.store, tmp_path / "drawn", "--images", moved)
    assert len(drawn(tmp_path / "drawn")) == 4
    (moved / "plate" / "a.tif").unlink()
    assert "1 planes were left out" in call("overlay", run.store, tmp_path / "drawn", "--images", moved, code=3).stdout


def test_outlines_are_seen_on_stained_tissue_too() -> None:
    """Yellow is lost on a bright ground."""
    mask = np.zeros((41, 53), np.uint8)
    mask[10:30, 12:40] = 1
    dark, bright = (overlay(np.where(mask, inside, ground), mask) for inside, ground in ((200, 9), (60, 230)))
    assert tuple(dark[10, 20]) == ON_DARK[0]
    assert tuple(bright[10, 20]) == ON_BRIGHT[0]
    assert tuple(bright[20, 20]) == (0, 0, 0)


def test_pictures_of_masks_that_are_gone_are_deleted_and_nothing_else(run: SmallRun, tmp_path: Path) -> None:
    """Old outlines would be taken for those of the run; a picture that somebody put there is his."""
    out = tmp_path / "drawn"
    call("overlay", run.store, out)
    Image.fromarray(picture(2)).save(out / "mine.png")
    before = run.store.with_suffix(".images.csv").stat().st_mtime_ns - 10**9
    for path in out.rglob("*.png"):
        os.utime(path, ns=(before, before))
    call("overlay", run.store, out, "--pattern", "large.tif")
    assert sorted(path.name for path in out.rglob("*.png")) == ["large.png", "mine.png"]
