from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_pages import Page, made_run, rate, report_of, rewrite, rows_of
from small_runs import mosaic, picture, small_run

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report import report_text, write_report
from nucseg_batch.results.report.run_statistics import read_statistics
from nucseg_batch.results.run import FinishedRun


def test_numbers_are_those_of_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that says something else than the tables is worse than none."""
    run = made_run(tmp_path, monkeypatch, 17)
    planes, nuclei = rows_of(run.store, "images"), rows_of(run.store, "nuclei")
    with FinishedRun(run.store) as finished:
        found = read_statistics(finished)
    areas = np.array([float(row["area"]) for row in nuclei])
    counts = np.array([int(row["nuclei"]) for row in planes])
    cut = sum(int(r["bbox-0"]) == 0 or int(r["bbox-1"]) == 0 for r in nuclei)
    cut += sum(int(r["bbox-2"]) == 40 or int(r["bbox-3"]) == 50 for r in nuclei)
    assert (found.images, found.planes, found.nuclei, found.cut) == (17, 17, len(nuclei), cut)
    assert found.of_nuclei["area"].median == pytest.approx(np.median(areas), rel=1 / 16384)
    assert found.of_nuclei["area"].mean == pytest.approx(areas.mean())
    assert found.of_planes["nuclei"].histogram(np.arange(14)).tolist() == np.histogram(counts, range(14))[0].tolist()
    text = Page(report_of(run.store)).text
    assert f"Images 17 {17 * 40 * 50 / 1e6:g} megapixels Nuclei {len(nuclei)}" in text
    assert f"No nuclei: {sum(counts == 0)} images" in text


def test_bars_hold_every_nucleus_that_the_table_has_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bar tells its own numbers, which must be those of a count by hand."""
    run = made_run(tmp_path, monkeypatch, {"a.tif": mosaic(), "b.tif": picture(5), "c.tif": picture(3, value=240)})
    values = np.array([float(row["intensity_mean"]) for row in rows_of(run.store, "nuclei")])
    bars = re.findall(r"<title>([\d.,]+) to ([\d.,]+): ([\d,]+) nuclei</title>", report_of(run.store))
    by_hand = 0
    for low, high, count in bars:
        between = (values >= float(low)) & (values < float(high))
        by_hand += between.sum() == int(count)
    assert len(bars) > 3
    assert by_hand >= len(bars) - 1  # of another histogram, and the last bar has its far edge, too


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two reports can then be compared, and one that was sent can be checked."""
    run = made_run(tmp_path, monkeypatch, 9)
    assert report_of(run.store) == report_of(run.store)


def test_pictures_are_sorted_by_confidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least certain images come first among the suspicious ones; the best are the most certain of enough nuclei."""
    run = made_run(tmp_path, monkeypatch, 61)
    values = rate(run.store)
    page = report_of(run.store)
    order = [[int(number) for number in re.findall(r'id="p(\d+)"', part)] for part in page.split("<h3>")]
    titles = [part.partition("<")[0] for part in page.split("<h3>")]
    suspicious = [values[number] for number in order[titles.index("Most suspicious")]]
    rated = [value for value in suspicious if not np.isnan(value)]
    assert rated[0] == np.nanmin(values)
    assert rated == sorted(rated)
    best = [values[number] for number in order[titles.index("Best")]]
    assert best == sorted(best, reverse=True)
    assert min(best) > max(rated)
    assert titles[1:5] == ["Most suspicious", "Best", "Typical", "Evenly spaced"]
    shown = [number for numbers in order for number in numbers]
    assert len(shown) == len(set(shown))


def test_columns_that_older_runs_lack_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody segments again for a report."""
    run = made_run(tmp_path, monkeypatch, 9)
    for name in ("images", "nuclei"):
        table = RunLayout(run.store).tables[name]
        lines = [line.split(",") for line in table.read_text().splitlines()]
        kept = [
            i for i, column in enumerate(lines[0]) if column not in ("confidence", "sharpness", "saturated_fraction")
        ]
        table.write_text("".join(",".join(line[i] for i in kept) + "\n" for line in lines))
    (tmp_path / "out.provenance.json").unlink()
    text = Page(report_of(run.store)).text
    assert "without columns for confidence, focus, saturation" in text
    assert "nucseg-batch" in text
    assert "All settings are the defaults" not in text  # the small run has a diameter


def test_failures_are_grouped_by_reason_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand truncated files are one thing to know, not a thousand lines."""
    run = small_run(tmp_path, monkeypatch)
    run.put("good.tif", picture(3))
    for number in range(23):
        (run.folder / f"cut{number:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(number))
    (run.folder / "text.tif").write_text("no image at all")
    run.segment()
    page = Page(report_of(run.store))
    assert "24 images failed" in page.text
    assert "and 13 more" in page.text
    assert page.text.count("cut00.png") == 1
    assert "cut12.png" not in page.text


def test_a_run_whose_images_are_gone_shows_its_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are kept longer than images; where these moved, --images says it."""
    run = made_run(tmp_path, monkeypatch, 5)
    there = report_of(run.store)
    moved = run.folder.rename(tmp_path / "moved")
    gone = report_of(run.store)
    assert "images could not be read again" in gone
    assert "data:image/jpeg" not in gone
    assert gone.count("data:image/png") == 5
    assert report_of(run.store, moved) == there
    assert there.count("data:image/jpeg") == 5


def test_without_the_run_folder_results_can_still_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is safe to delete when the run is done; the provenance beside the tables still has the settings."""
    run = made_run(tmp_path, monkeypatch, 9)
    shutil.rmtree(tmp_path / "out.run")
    text = Page(report_of(run.store)).text
    assert "out.run is missing" in text
    assert "Width of nuclei 26 pixels --diameter" in text


def test_a_run_without_any_nucleus_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No histogram, no median and no size must stand in the way of the one thing to know."""
    run = made_run(tmp_path, monkeypatch, {f"{name}.tif": np.full((41, 53), 7, np.uint16) for name in "abc"})
    page = Page(report_of(run.store))
    assert "No nuclei were found in any image." in page.text
    assert len(page.of("button", class_="view")) == 3
    assert "nan" not in page.text.lower().replace("provenance", "")


def test_stacks_are_shown_plane_by_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each plane has a mask of its own, so each is judged."""
    run = small_run(tmp_path, monkeypatch)
    stack = np.stack([np.stack([picture(t + z) for z in range(3)]) for t in range(2)])
    import tifffile

    tifffile.imwrite(run.folder / "movie.tif", stack, imagej=True, metadata={"axes": "TZYX"})
    run.segment()
    page = Page(report_of(run.store))
    assert "Planes 6 time points and z-slices" in page.text
    assert "movie.tif (t=1, z=2)" in page.text
    assert "Nuclei per plane" in page.text


def test_volumes_are_counted_beside_their_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Nuclei` counts a nucleus once in each slice; a run that joins none has no such line."""
    for name, link in (("linked", "z"), ("plain", None)):
        run = small_run(tmp_path / name, monkeypatch, axes="ZYX", link=link)
        run.put("a.tif", np.stack([picture(count) for count in (3, 2, 1, 1, 0)]))
        run.segment()
        text = Page(report_of(run.store)).text
        assert "Nuclei 7" in text
        assert ("Volumes 3 nuclei joined over z-slices" in text) is (link == "z")
        assert ("Volumes" in text) is (link == "z")


def test_a_large_plane_is_shown_in_parts_without_being_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slide of gigapixels only what is shown may be read."""
    monkeypatch.setattr("nucseg_batch.results.report.pictures.REGION", 64)
    monkeypatch.setattr("nucseg_batch.results.report.windows.SIDE", 64)
    monkeypatch.setattr("nucseg_batch.results.report.windows.WHOLE", 64)
    run = made_run(tmp_path, monkeypatch, {"slide.tif": mosaic((300, 341))})
    windows: list[tuple[slice, slice]] = []
    shown = FinishedRun.shown

    def noted(self: FinishedRun, row, rows=slice(None), columns=slice(None)):
        windows.append((rows, columns))
        return shown(self, row, rows, columns)

    monkeypatch.setattr(FinishedRun, "shown", noted)
    page = Page(report_of(run.store))
    assert len(page.of("button", class_="view")) == len(windows) == 13
    assert all(rows.stop - rows.start <= 64 and columns.stop - columns.start <= 64 for rows, columns in windows)
    assert "Other parts" in page.text


def test_a_page_of_many_images_is_as_large_as_one_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 000 images must fit into a page that a browser opens: more rows add digits, and nothing else."""
    run = made_run(tmp_path, monkeypatch, 60)
    tables = [RunLayout(run.store).tables[name] for name in ("images", "nuclei")]
    contents = [table.read_text().splitlines(keepends=True) for table in tables]
    sizes = []
    for copies in (10, 40):
        for table, (head, *rows) in zip(tables, contents, strict=True):
            table.write_text("".join([head, *(f"{number:03d}-{row}" for number in range(copies) for row in rows)]))
        content = report_of(run.store)
        page = Page(content)
        assert f"Images {60 * copies:,}" in page.text
        assert len(page.of("button", class_="view")) <= 30
        sizes.append(len(content))
    assert sizes[1] < 1.1 * sizes[0]


def test_what_is_not_done_yet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a run must not pass for a whole one."""
    run = made_run(tmp_path, monkeypatch, 5)
    empty = dict.fromkeys(rows_of(run.store, "images")[0], "")

    def undone(number: int, row: dict[str, str]) -> None:
        if number == 4:
            row.update({**empty, "image": row["image"], "status": "missing"})

    rewrite(RunLayout(run.store).tables["images"], undone)
    rewrite(RunLayout(run.store).tables["nuclei"], lambda number, row: None)
    lines = RunLayout(run.store).tables["nuclei"].read_text().splitlines(keepends=True)
    RunLayout(run.store).tables["nuclei"].write_text("".join(line for line in lines if not line.startswith("i04")))
    assert "1 plane not done yet." in Page(report_of(run.store)).text


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was cut by a kill would look like a run of few images."""
    run = made_run(tmp_path, monkeypatch, 3)
    place = RunLayout(run.store).report
    assert place == tmp_path / "out.report.html"
    place.write_text("the one before")

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with FinishedRun(run.store) as finished:
        with monkeypatch.context() as patch:
            patch.setattr("nucseg_batch.files.atomic_write.os.fsync", killed)
            with pytest.raises(KeyboardInterrupt):
                write_report(finished, place)
        assert place.read_text() == "the one before"
        assert not list(tmp_path.glob(".*partial"))
        write_report(finished, place)
        assert place.read_text() == report_text(finished)


def test_a_store_without_tables_is_refused(tmp_path: Path) -> None:
    """The error says what to give."""
    with pytest.raises(InputMissingError, match="finish"):
        report_of(tmp_path / "out.zarr")


def test_nuclei_at_each_of_the_four_borders_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one in the middle is not; a border that is forgotten would pass in images that are cut elsewhere, too."""
    pixels = np.full((41, 53), 10, np.uint8)
    for rows, columns in ((slice(0, 5), slice(20, 26)), (slice(36, 41), slice(20, 26)), (slice(18, 24), slice(0, 5))):
        pixels[rows, columns] = 150
    pixels[18:24, 48:53] = pixels[18:24, 20:26] = 150
    for number in range(4):
        kept = pixels.copy()
        for at, part in enumerate((np.s_[:5], np.s_[36:], np.s_[:, :5], np.s_[:, 48:])):
            if at != number:
                kept[part] = 10
        run = made_run(tmp_path / str(number), monkeypatch, {"a.tif": kept})
        with FinishedRun(run.store) as finished:
            found = read_statistics(finished)
        assert (found.nuclei, found.cut) == (2, 1), number
