"""The table of wells equals what pandas makes of nuclei.csv."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import call
from doubles import Threshold
from plate_runs import WELL_NAMES, field, numbers, stored_plate
from report_pages import Page, rewrite
from small_runs import SmallRun, small_run

from nucseg_batch.columns import names
from nucseg_batch.errors import NothingToDoError, OutputError, SettingError
from nucseg_batch.executors import job, local
from nucseg_batch.files.run.wells import WELLS
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results import well_values
from nucseg_batch.results.controls import control_wells
from nucseg_batch.results.report import report_text
from nucseg_batch.results.report.words import figure
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.well_table import WellTable, write_wells


def plate_run(place: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> SmallRun:
    """A run over images of these names, with up to 14 nuclei each; those of A03 have none."""
    run = small_run(place, monkeypatch)
    for number, name in enumerate(names):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        run.put(name, field(0 if "A03" in name else 3 + number % 12, number))
    run.segment(Threshold())
    return run


def wells_of(store: Path, *controls: str) -> tuple[WellTable, pd.DataFrame]:
    with FinishedRun(store) as run:
        table = write_wells(run, ",".join(controls) or "none")
    return table, pd.read_csv(table.path, keep_default_na=False, na_values={"t": [""]})


def mad(values: pd.Series) -> float:
    return float((values - values.median()).abs().median())


def check_against_pandas(store: Path, found: pd.DataFrame, by: list[str], key: pd.DataFrame) -> None:
    """key: columns `by` of each row of nuclei.csv."""
    nuclei = pd.read_csv(RunLayout(store).tables["nuclei"])
    grouped = pd.concat([nuclei, key], axis=1).groupby(by)
    found = found.set_index(by).sort_index()
    measured = [
        column
        for column in nuclei.columns
        if column not in ("image", "t", "z", "label") and not column.startswith(("bbox-", "centroid-"))
    ]
    assert list(found.columns) == [
        *[name for name in names(WELLS) if name not in by],
        *(f"{column}_{what}" for column in measured for what in ("mean", "median", "mad")),
    ]
    filled = found[found.nuclei > 0]
    assert (filled.nuclei == grouped.size()).all()
    for column in measured:
        for what, function in (("mean", "mean"), ("median", "median"), ("mad", mad)):
            expected = grouped[column].agg(function)
            assert list(expected.index) == list(filled.index)
            values = numbers(filled, f"{column}_{what}")
            np.testing.assert_allclose(values, expected.to_numpy(float), rtol=2e-6, atol=1e-6, err_msg=column)
    assert (found[found.nuclei == 0].drop(columns=list(names(WELLS)), errors="ignore") == "").all(axis=None)


def test_wells_of_several_plates_equal_a_groupby(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several fields per well; a well without nuclei has counts and empty cells; one that failed is counted."""
    paths = [f"p{p}/{well}_s{site}.tif" for p in (1, 2) for well in WELL_NAMES for site in (1, 2)]
    run = small_run(tmp_path, monkeypatch)
    run.folder.joinpath("p1").mkdir()
    (run.folder / "p1" / "B02_s3.tif").write_text("broken")
    run = plate_run(tmp_path, monkeypatch, paths)
    table, found = wells_of(run.store)
    assert (table.plates, table.wells, table.rows, table.outside) == (2, 12, 12, 0)
    assert list(found.plate) == ["p1"] * 6 + ["p2"] * 6
    assert list(found.well) == WELL_NAMES * 2
    assert list(found.images) == [2] * 12
    assert found.set_index(["plate", "well"]).images_failed["p1", "B02"] == 1
    assert found.images_failed.sum() == 1
    assert set(found[found.nuclei == 0].well) == {"A03"}
    nuclei = pd.read_csv(RunLayout(run.store).tables["nuclei"])
    check_against_pandas(run.store, found, ["plate", "well"], nuclei.image.str.extract(r"(?P<plate>p\d)/(?P<well>...)"))


def test_the_bytes_do_not_depend_on_what_waits_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that do not sort by well make all wells wait; beyond a number of bytes they do so on disk."""
    paths = [f"{number:03d}_{WELL_NAMES[number * 5 % 6]}.tif" for number in range(30)]
    run = plate_run(tmp_path, monkeypatch, paths)
    table, found = wells_of(run.store)
    nuclei = pd.read_csv(RunLayout(run.store).tables["nuclei"])
    check_against_pandas(run.store, found, ["well"], nuclei.image.str.extract(r"_(?P<well>...)"))
    before = table.path.read_bytes()
    monkeypatch.setattr(well_values, "KEPT", 3000)
    monkeypatch.setattr(well_values, "AT_ONCE", 100)
    wells_of(run.store)
    assert table.path.read_bytes() == before


def segmented(plate: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    run = small_run(plate.parent, monkeypatch)
    run.folder = plate
    run.segment()
    return run


def test_each_time_point_of_a_well_has_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the wells, and of time in each; scores compare wells of one time point."""
    run = segmented(stored_plate(tmp_path, ["A", "B"], ["1", "2", "10"], times=3), monkeypatch)
    table, found = wells_of(run.store)
    assert (table.wells, table.rows) == (6, 18)
    assert list(found.well[::3]) == ["A01", "A02", "A10", "B01", "B02", "B10"]
    assert list(found.column[::3]) == [1, 2, 10, 1, 2, 10]
    assert list(found.t) == [0, 1, 2] * 6
    nuclei = pd.read_csv(RunLayout(run.store).tables["nuclei"])
    parts = nuclei.image.str.split("/", expand=True)
    key = pd.DataFrame({"well": parts[0] + parts[1].str.zfill(2)})
    check_against_pandas(run.store, found, ["well", "t"], key)
    _, scored = wells_of(run.store, "A01", "A02", "B01", "B02")
    for _, rows in scored.groupby("t"):
        medians = rows.set_index("well").intensity_mean_median
        controls = medians[["A01", "A02", "B01", "B02"]]
        expected = (medians - controls.median()) / (1.4826 * mad(controls))
        np.testing.assert_allclose(rows.intensity_mean_z, expected, rtol=1e-4)


def test_rows_and_columns_may_have_any_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`1` + `11` and `11` + `1` are two wells, and controls are named as the table names them."""
    run = segmented(stored_plate(tmp_path, ["1", "11"], ["1", "11", "last"]), monkeypatch)
    _, found = wells_of(run.store, *control_wells("1/11, 11/1,11/last"))
    assert list(found.well) == ["1/1", "1/11", "1/last", "11/1", "11/11", "11/last"]
    assert "area_um2_z" in found


def test_a_column_that_does_not_vary_among_controls_has_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A division by nothing would rank wells by chance; a control without nuclei does not count."""
    run = plate_run(tmp_path, monkeypatch, [f"{well}.tif" for well in WELL_NAMES])
    _, found = wells_of(run.store, *control_wells("A1:B3"))
    assert (found.confidence_z == "").all()
    assert np.isfinite(numbers(found, "intensity_mean_z")).sum() == 5
    _, found = wells_of(run.store, "B02")
    assert (found.intensity_mean_z == "").all()
    _, found = wells_of(run.store, "A03")
    assert (found.intensity_mean_z == "").all()


@pytest.mark.parametrize(
    ("text", "wells"),
    [
        ("A01,b2, H012", ("A01", "B02", "H12")),
        ("A1:B2", ("A01", "A02", "B01", "B02")),
        ("AF48:AE47", ("AE47", "AE48", "AF47", "AF48")),
        ("A1,A01,x/y", ("A01", "x/y")),
        ("none", ()),
    ],
)
def test_controls_are_named_as_people_name_wells(text: str, wells: tuple[str, ...]) -> None:
    assert control_wells(text) == wells


def test_what_cannot_be_meant_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plate and the well are named, and a file that somebody else wrote stays what it is."""
    paths = [f"p1/{well}.tif" for well in WELL_NAMES] + [f"p2/{well}.tif" for well in WELL_NAMES if well != "B02"]
    run = plate_run(tmp_path, monkeypatch, paths)
    with pytest.raises(SettingError, match="names B02, but plate p2 has no image of this well"):
        wells_of(run.store, "A01", "B02")
    with pytest.raises(SettingError, match="names no well"):
        control_wells(" , ")
    layout = tmp_path / "out.wells.csv"
    assert not layout.exists()
    layout.write_text("well,compound\nA01,DMSO\n")
    with pytest.raises(OutputError, match="move it"):
        wells_of(run.store)
    assert layout.read_text().endswith("DMSO\n")


def test_images_of_no_plate_are_refused_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of pictures has no wells; beside a plate it is counted."""
    run = plate_run(tmp_path / "a", monkeypatch, ["one.tif", "two.tif"])
    with pytest.raises(NothingToDoError, match="no plate"):
        wells_of(run.store)
    run = plate_run(tmp_path / "b", monkeypatch, ["x/one.tif", "y/two.tif", *(f"p/{well}.tif" for well in WELL_NAMES)])
    table, found = wells_of(run.store)
    assert (table.wells, table.outside) == (6, 2)
    assert set(found.plate) == {"p"}


def test_a_table_of_wells_ends_with_the_tables_that_it_summarises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that disagrees with nuclei.csv would be believed; a user's own file of that name is left alone."""
    run = plate_run(tmp_path, monkeypatch, [f"{well}.tif" for well in WELL_NAMES])
    table, _ = wells_of(run.store)
    run.segment()
    assert table.path.exists()
    RunLayout(run.store).tables["failures"].unlink()
    run.finish()
    assert not table.path.exists()
    wells_of(run.store)
    job.prepare(run.folder, run.store, None, run.settings, run.notes, overwrite=True)
    assert table.path.exists()
    local.run(job.prepare(run.folder, run.store, None, run.settings, run.notes, overwrite=True), run.notes)
    assert not table.path.exists()
    table.path.write_text("well,compound\n")
    RunLayout(run.store).tables["failures"].unlink()
    run.finish()
    assert table.path.read_text() == "well,compound\n"


def test_an_unfinished_run_is_summarised_as_far_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes that are not done yet are counted, and a well that has none done has no row."""
    run = plate_run(tmp_path, monkeypatch, [f"{well}_s{site}.tif" for well in WELL_NAMES for site in (1, 2)])

    def lose(number: int, row: dict[str, str]) -> None:
        if row["image"] in ("A02_s1.tif", "B03_s1.tif", "B03_s2.tif"):
            row.update(dict.fromkeys(row, ""), image=row["image"], status="missing")

    rewrite(RunLayout(run.store).tables["images"], lose)
    table, found = wells_of(run.store)
    assert (table.wells, table.missing) == (5, 3)
    assert dict(zip(found.well, found.images, strict=True)) == {"A01": 2, "A02": 1, "A03": 2, "B01": 2, "B02": 2}
    assert "3 planes are not done yet" in call("wells", run.store).stdout


@pytest.mark.parametrize("number", [1, 2, 7, 8])
def test_values_that_are_unknown_are_left_out(number: int) -> None:
    """As of channels that some images lack; a column without any value has no statistics."""
    values = np.random.default_rng(number).normal(size=(5, number))
    values[1, 0] = values[2, : number // 2] = values[4] = np.nan
    for row, found in zip(values, well_values.summary(values).T, strict=True):
        known = pd.Series(row).dropna()
        np.testing.assert_allclose(found, [known.mean(), known.median(), mad(known)], atol=1e-12)


def test_the_report_draws_any_column_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they are asked for, with the values of the table under the pointer."""
    run = plate_run(tmp_path, monkeypatch, [f"{well}.tif" for well in WELL_NAMES])
    refused = call("report", run.store, "--well-column", "area_z", code=66).stderr
    assert "out.wells.csv: it is missing; `nucseg-batch wells` writes it" in refused
    _, found = wells_of(run.store, "A01", "A02", "B01", "B02")
    call("report", run.store, "--well-column", "intensity_mean_z", "--well-column", "area_mad")
    page = Page((tmp_path / "out.report.html").read_text())
    titles = [word for word in page.words if word in ("intensity_mean_z", "area_mad")]
    assert titles == ["intensity_mean_z", "area_mad"]
    (score,) = found[found.well == "B03"].intensity_mean_z
    assert f"B3: {figure(float(score))}; 8 nuclei in 1 image" in page.text
    refused = call("report", run.store, "--well-column", "area", code=2).stderr
    assert "--well-column area: out.wells.csv has no such column; did you mean 'area_" in refused
    refused = call("report", run.store, "--well-column", "xyz", code=2).stderr
    assert "has no such column; it has area_mad," in refused
    assert re.search(r" and \d+ others\.$", refused.strip())
    assert len(refused) < 400
    refused = call("report", run.store, "--well-column", "well", code=2).stderr
    assert "--well-column well: this column of out.wells.csv is no measurement; give one such as area_" in refused
    call("wells", run.store, "--controls", "none")
    refused = call("report", run.store, "--well-column", "intensity_mean_z", code=2).stderr
    assert "out.wells.csv has no z-scores; run `nucseg-batch wells" in refused


def test_a_run_without_a_plate_has_no_columns_of_wells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wells`, which would write the table, has none to write either."""
    run = plate_run(tmp_path, monkeypatch, ["one.tif", "two.tif"])
    for command in (("report", run.store, "--well-column", "area_median"), ("wells", run.store)):
        assert "its images are on no plate" in call(*command, code=65).stderr


@pytest.mark.parametrize(
    ("controls", "told"),
    [
        ("A01", "1 control well: z-scores are empty; give at least 2"),
        ("A01,B01", "2 control wells: z-scores are rough"),
    ],
)
def test_few_controls_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, controls: str, told: str) -> None:
    run = plate_run(tmp_path, monkeypatch, [f"{well}.tif" for well in WELL_NAMES])
    lines = call("wells", run.store, "--controls", controls).stdout.splitlines()
    assert lines[1:] == [told]
    scores = pd.read_csv(RunLayout(run.store).wells).area_z
    assert scores.isna().all() == (controls == "A01")


def test_the_report_draws_each_time_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean over time would hide what the time course is for."""
    run = segmented(stored_plate(tmp_path, ["A", "B"], ["1", "2", "10"], times=11), monkeypatch)
    wells_of(run.store)
    with FinishedRun(run.store) as finished:
        page = Page(report_text(finished, well_columns=["area_median"]))
    titles = [word for word in page.words if re.fullmatch(r"area_median, time point \d+", word)]
    assert titles == [f"area_median, time point {t}" for t in range(11)]


def test_the_command_says_where_the_table_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plate_run(tmp_path, monkeypatch, [f"{well}.tif" for well in WELL_NAMES])
    assert call("wells", run.store).stdout == f"6 wells on 1 plate: {tmp_path / 'out.wells.csv'}\n"
    told = json.loads(call("wells", run.store, "--controls", "A01:B01,B03", "--json").stdout)
    assert told == {
        "store": str(run.store),
        "files": [str(tmp_path / "out.wells.csv")],
        "plates": 1,
        "wells": 6,
        "rows": 6,
        "outside": 0,
        "missing": 0,
        "exit_code": 0,
    }
    assert "area_z" in (tmp_path / "out.wells.csv").read_text()
    assert "--controls names C01" in call("wells", run.store, "--controls", "C01", code=2).stderr
    assert "give its store" in call("wells", tmp_path / "out.wells.csv", code=66).stderr
