"""`segment` writes the table of wells itself, with the control wells that the run has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import call
from plate_runs import WELL_NAMES, field, numbers, stored_plate
from small_runs import SmallRun, picture, small_run

import nucseg_batch
from nucseg_batch.errors import InputMissingError, SettingError, UsageError
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.well_table import write_wells

SIX = "A01:B03"


def plate(place: Path, monkeypatch: pytest.MonkeyPatch, names: list[str] | None = None) -> SmallRun:
    """A plate of six wells, in several units, that is not segmented yet."""
    run = small_run(place, monkeypatch)
    for number, name in enumerate(names or [f"{well}.tif" for well in WELL_NAMES]):
        run.put(name, np.pad(field(3 + number % 12, number), ((0, number % 3), (0, 0)), "edge"))
    return run


def segment(run: SmallRun, *more: object, code: int = 0) -> Any:
    return call("segment", run.folder, run.store, "--diameter", 26, "--region", 64, *more, code=code)


def scores(store: Path) -> bool:
    return "area_z" in RunLayout(store).wells.read_text().partition("\n")[0].split(",")


def test_a_run_over_a_plate_writes_its_wells_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are those of `wells`; a call that finds them does not write them again, one that does not does."""
    run = plate(tmp_path, monkeypatch)
    told = segment(run)
    wells = tmp_path / "out.wells.csv"
    assert f"6 wells on 1 plate: {wells}" in told.stdout
    first, written = wells.read_bytes(), wells.stat().st_mtime_ns
    assert set(pd.read_csv(wells).plate) == {"in"}
    record = json.loads(segment(run, "--json").stdout)
    assert record["files"][-1] == str(wells)
    assert wells.stat().st_mtime_ns == written
    wells.unlink()  # as where the process was killed after the tables
    segment(run)
    assert wells.read_bytes() == first
    call("wells", run.store)
    assert wells.read_bytes() == first
    RunLayout(run.store).tables["failures"].unlink()
    assert json.loads(call("finish", run.store, "--json").stdout)["files"][-1] == str(wells)
    assert wells.read_bytes() == first
    assert wells.stat().st_mtime_ns != written


def test_controls_are_kept_until_others_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `wells`, by `segment` again and when tables are written again; a resumed run may have others."""
    run = plate(tmp_path, monkeypatch)
    segment(run, "--controls", SIX)
    wells = tmp_path / "out.wells.csv"
    first = wells.read_bytes()
    assert scores(run.store)
    call("wells", run.store)
    assert wells.read_bytes() == first
    RunLayout(run.store).tables["failures"].unlink()
    segment(run)
    assert wells.read_bytes() == first
    call("wells", run.store, "--controls", "A01,A02,B01,B02")
    second = wells.read_bytes()
    assert second != first
    segment(run)
    assert wells.read_bytes() == second
    segment(run, "--controls", "A1:B3")
    assert wells.read_bytes() == first
    told = call("wells", run.store, "--controls", "none")
    assert not scores(run.store)
    assert "control well" not in told.stdout
    segment(run)
    call("wells", run.store)
    assert not scores(run.store)


def test_without_the_run_folder_scores_are_not_dropped_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows any more what they were computed against."""
    run = plate(tmp_path, monkeypatch)
    segment(run, "--controls", SIX)
    shutil.rmtree(tmp_path / "out.run")
    refused = call("wells", run.store, code=66).stderr
    assert "it has z-scores" in refused
    assert "--controls none" in refused
    assert scores(run.store)
    call("wells", run.store, "--controls", SIX)
    assert scores(run.store)
    call("wells", run.store, "--controls", "none")
    assert not scores(run.store)
    call("wells", run.store)
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize("names", [None, ["one.tif", "two.tif"]])
def test_controls_that_no_plate_has_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str] | None
) -> None:
    """Not after hours of segmenting."""
    run = plate(tmp_path, monkeypatch, names)
    said = "but plate in has no image of this well" if names is None else "say wells; leave it out"
    for command in ("segment", "plan"):
        refused = call(command, run.folder, run.store, "--controls", "A01,H12", code=2).stderr
        assert said in refused
    with pytest.raises(UsageError, match="controls"):
        nucseg_batch.segment(run.folder, run.store, diameter=26, controls="A01,H12")
    with pytest.raises(SettingError, match="must be wells"):
        nucseg_batch.segment(run.folder, run.store, controls=" , ")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_images_on_no_plate_have_no_table_of_wells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plate(tmp_path, monkeypatch, ["one.tif", "two.tif"])
    told = segment(run)
    assert " wells on " not in told.stdout
    assert not (tmp_path / "out.wells.csv").exists()
    with pytest.raises(InputMissingError, match=r"out\.wells\.csv is missing"):
        nucseg_batch.read_wells(run.store)


def test_a_file_of_the_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a map of the plate; the run is done all the same."""
    run = plate(tmp_path, monkeypatch)
    (tmp_path / "out.wells.csv").write_text("well,compound\n")
    assert "move it and call `wells`" in segment(run).stdout
    assert (tmp_path / "out.wells.csv").read_text() == "well,compound\n"


def test_shares_use_the_controls_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever share is the last one; the bytes are those of one process."""
    whole = plate(tmp_path / "a", monkeypatch)
    segment(whole, "--controls", SIX)
    run = plate(tmp_path / "b", monkeypatch)
    options = ("--diameter", 26, "--region", 64, "--shares", 2, "--controls", SIX)
    call("plan", run.folder, run.store, *options)
    for share in (1, 0):
        assert not RunLayout(run.store).wells.exists()
        call("segment", "--run", run.store, "--share", share)
    assert RunLayout(run.store).wells.read_bytes() == RunLayout(whole.store).wells.read_bytes()
    call("segment", "--run", run.store, "--share", 0, "--controls", "A01,A02")
    other = RunLayout(run.store).wells.read_bytes()
    call("wells", whole.store, "--controls", "A01,A02")
    assert other == RunLayout(whole.store).wells.read_bytes()


def test_stored_plates_of_time_points_are_read_as_a_data_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns are names, and so text; controls are known from the metadata before the run."""
    images = stored_plate(tmp_path, ["A", "B"], ["01", "02"], times=2)
    small_run(tmp_path, monkeypatch)
    options: dict[str, Any] = {"diameter": 26, "region": 64}
    with pytest.raises(SettingError, match="names A03, but plate plate"):
        nucseg_batch.segment(images, tmp_path / "out.zarr", controls="A03", **options)
    result = nucseg_batch.segment(images, tmp_path / "out.zarr", controls="A01,A02,B01", **options)
    assert result.tables["wells"] == tmp_path / "out.wells.csv"
    wells = nucseg_batch.read_wells(result.store, library="pandas")
    assert list(wells.well) == ["A01", "A01", "A02", "A02", "B01", "B01", "B02", "B02"]
    assert list(wells.column) == ["01", "01", "02", "02"] * 2
    assert list(wells.t) == [0, 1] * 4
    assert wells.dtypes["t"] == wells.dtypes["nuclei"] == "Int64"
    assert np.isfinite(wells.area_z.to_numpy(float)).any()
    nuclei = nucseg_batch.read_nuclei(result.store, columns=["image", "area"], library="pandas")
    assert wells.nuclei.sum() == len(nuclei)
    chosen = nucseg_batch.read_wells(result.store, columns=["well", "area_median"], library="pandas")
    assert list(chosen.columns) == ["well", "area_median"]
    with pytest.raises(UsageError, match="no column area"):
        nucseg_batch.read_wells(result.store, columns=["area"])


def test_plates_have_one_name_in_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plate that is all of IN is named after IN, in tables as in exports; after OUT when IN is not known any more."""
    run = plate(tmp_path, monkeypatch)
    segment(run)
    with FinishedRun(run.store) as finished:
        write_wells(finished)
    assert set(pd.read_csv(tmp_path / "out.wells.csv").plate) == {"in"}
    call("export", run.store, tmp_path / "to", "--format", "cellprofiler")
    image = pd.read_csv(tmp_path / "to" / "cellprofiler" / "Image.csv")
    assert set(image.Metadata_Plate) == {"in"}
    call("report", run.store, "--well-column", "area_median")
    assert "Plate in: 2 rows" in (tmp_path / "out.report.html").read_text()
    shutil.rmtree(run.journal.folder)
    call("export", run.store, tmp_path / "again", "--format", "cellprofiler")
    assert set(pd.read_csv(tmp_path / "again" / "cellprofiler" / "Image.csv").Metadata_Plate) == {"out"}


def test_a_control_that_lost_its_images_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control whose only image failed has no median: its scores are those of the others."""
    run = plate(tmp_path, monkeypatch)
    run.put("B02.tif", picture(0))
    (run.folder / "B03.tif").write_text("broken")
    segment(run, "--controls", SIX, code=3)
    wells = pd.read_csv(tmp_path / "out.wells.csv", keep_default_na=False)
    assert np.isfinite(numbers(wells, "intensity_mean_z")).sum() == 4
    assert list(wells[wells.well == "B03"].images_failed) == [1]
