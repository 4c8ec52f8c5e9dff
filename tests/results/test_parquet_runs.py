"""`segment --tables parquet`: the rows of nuclei.csv as Parquet, for every reader and after any interruption."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset
import pyarrow.parquet
import pytest
from command import call
from plate_runs import WELL_NAMES, field
from skimage.io import imread
from small_runs import SmallRun, mosaic, picture, small_run

import nucseg_batch
from nucseg_batch.columns import MEASURED, NUCLEI, TYPES, Column
from nucseg_batch.errors import DamageError, OutputError, UsageError
from nucseg_batch.files.run import dataset
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.run import FinishedRun

ODD = ('a "quoted", name.tif', "two\nlines.tif", "NA.tif", "µ.tif")


def parquet_run(place: Path, monkeypatch: pytest.MonkeyPatch, tables: str, **settings: Any) -> SmallRun:
    """A run of several units and a large plane, on a plate, with columns that are empty in some images."""
    run = small_run(place, monkeypatch, tables=tables, measure="neighbours,intensity_sum", **settings)
    (run.folder / "p").mkdir()
    for number, name in enumerate((*(f"p/{well}.tif" for well in WELL_NAMES), *ODD)):
        run.put(name, np.pad(field(1 + number % 9, number), ((0, number % 3), (0, 0)), "edge"))
    run.put("large.tif", mosaic())
    (run.folder / "broken.tif").write_text("broken")
    run.segment()
    return run


def folder_of(run: SmallRun) -> Path:
    return RunLayout(run.store, ("parquet",)).tables["nuclei"]


def files_of(run: SmallRun) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder_of(run).iterdir())}


def test_the_dataset_has_the_rows_of_the_csv_file_for_every_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its order, with types; an empty cell is null. The CSV file is that of a run without Parquet."""
    monkeypatch.setattr(dataset, "MOST_ROWS", 7)
    run = parquet_run(tmp_path / "both", monkeypatch, "csv,parquet")
    plain = parquet_run(tmp_path / "csv", monkeypatch, "csv")
    csv = run.store.with_suffix(".nuclei.csv")
    assert csv.read_bytes() == plain.store.with_suffix(".nuclei.csv").read_bytes()
    parts = sorted(folder_of(run).iterdir())
    assert [part.name for part in parts] == [f"part-{number:05d}.parquet" for number in range(len(parts))]
    assert len(parts) > 1
    expected = pd.read_csv(csv, keep_default_na=False, na_values={name: [""] for name in TYPES if name != "image"})
    assert set(ODD) <= set(expected.image)
    for read in (
        pd.read_parquet(folder_of(run)),
        pyarrow.dataset.dataset(folder_of(run)).to_table().to_pandas(),
        pd.concat(map(pd.read_parquet, parts), ignore_index=True),
    ):
        pd.testing.assert_frame_equal(read, expected, check_dtype=False)
    schema = pa.parquet.read_schema(parts[0])
    assert schema.types == [pa.type_for_alias(TYPES[name]) for name in schema.names]
    with pa.parquet.ParquetFile(parts[0]) as file:
        groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [7] * dataset.GROUPS
    assert sum(pa.parquet.read_metadata(part).num_rows for part in parts) == len(expected)


def test_other_libraries_read_it_as_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the folder or by a pattern."""
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    monkeypatch.setattr(dataset, "MOST_ROWS", 7)
    run = parquet_run(tmp_path, monkeypatch, "parquet")
    expected = pd.read_parquet(folder_of(run))
    assert polars.read_parquet(folder_of(run)).select("image", "label", "area").rows() == [
        tuple(row) for row in expected[["image", "label", "area"]].itertuples(index=False)
    ]
    sums = duckdb.sql(f"SELECT count(*), sum(area) FROM '{folder_of(run)}/*.parquet'").fetchall()
    assert sums == [(len(expected), expected.area.sum())]
    frame = nucseg_batch.read_nuclei(run.store, library="polars", pattern="A0*.tif", columns=["image", "t", "area"])
    assert frame["image"].unique().sort().to_list() == ["p/A01.tif", "p/A02.tif", "p/A03.tif"]
    assert [str(kind) for kind in frame.dtypes] == ["String", "Int64", "Int64"]


def test_all_that_reads_a_run_reads_one_without_the_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of wells and exports have the same bytes, but for the places of the two runs and their hashes."""
    one, other = (parquet_run(tmp_path / tables, monkeypatch, tables) for tables in ("csv", "parquet"))
    assert not other.store.with_suffix(".nuclei.csv").exists()
    for columns, pattern in ((None, None), (["label", "area"], "A0*"), (["confidence"], "nothing"), (["t"], None)):
        frames = [
            nucseg_batch.read_nuclei(run.store, columns=columns, pattern=pattern, library="pandas")
            for run in (one, other)
        ]
        pd.testing.assert_frame_equal(*frames, check_dtype=False)  # a CSV column of whole numbers is read as these
        kinds = [frame.dtypes.filter(["image", "t", "label", "area", "confidence"]) for frame in frames]
        assert kinds[0].equals(kinds[1])
    with pytest.raises(UsageError, match=r"out\.nuclei\.parquet has no column nothing; it has image, t,"):
        nucseg_batch.read_nuclei(other.store, columns=["nothing"])
    formats = ("tiff", "geojson", "coco", "parquet", "cellprofiler")
    for run in (one, other):
        told = call("report", run.store).stdout
        assert "report: " in told
        call("wells", run.store, "--controls", "A01,A02,B01,B02")
        call("export", run.store, run.store.parent / "to", *(word for kind in formats for word in ("--format", kind)))
        call("overlay", run.store, run.store.parent / "pictures", "--labels")
        assert run.verify().damage == ()
    assert "nuclei.parquet SHA-256" in call("cite", other.store).stdout
    wells = [run.store.with_suffix(".wells.csv").read_bytes() for run in (one, other)]
    assert wells[0] == wells[1]
    tables = [pa.parquet.read_table(run.store.parent / "to" / "nuclei.parquet") for run in (one, other)]
    assert tables[0].replace_schema_metadata() == tables[1].replace_schema_metadata()
    features = [
        [json.loads(path.read_bytes())["features"] for path in sorted((run.store.parent / "to").rglob("*.geojson"))]
        for run in (one, other)
    ]
    assert features[0] == features[1]
    profiles = [(run.store.parent / "to/cellprofiler/Nuclei.csv").read_bytes() for run in (one, other)]
    assert profiles[0] == profiles[1]
    pictures = [sorted((run.store.parent / "pictures").rglob("*.png")) for run in (one, other)]
    for first, second in zip(*pictures, strict=True):  # their texts have the settings
        np.testing.assert_array_equal(imread(first), imread(second))


def test_calls_again_shares_and_repairs_leave_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage is found and mended; what is there and right is not written again."""
    monkeypatch.setattr(dataset, "MOST_ROWS", 11)
    run = parquet_run(tmp_path / "one", monkeypatch, "parquet")
    first = files_of(run)
    written = folder_of(run).stat().st_mtime_ns
    run.segment()
    assert folder_of(run).stat().st_mtime_ns == written
    part = folder_of(run) / "part-00001.parquet"
    part.unlink()
    assert [one.where for one in run.verify().damage] == ["nuclei.parquet"]
    with pytest.raises(DamageError, match="finish` rewrites it"), FinishedRun(run.store) as finished:
        list(finished.with_nuclei(finished.planes()))
    call("finish", run.store, code=3)
    assert files_of(run) == first
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(DamageError, match="it is damaged"):
        nucseg_batch.read_nuclei(run.store)
    assert [one.where for one in run.verify().damage] == ["nuclei.parquet"]
    call("finish", run.store, code=3)
    assert files_of(run) == first
    assert run.verify().damage == ()
    shared = small_run(tmp_path / "two", monkeypatch, tables="parquet", measure="neighbours,intensity_sum")
    shutil.copytree(run.folder, shared.folder, dirs_exist_ok=True)
    for share in (2, 0, 1):
        shared.segment(share=share, shares=3)
    assert files_of(shared) == first
    unit = run.units[0]
    run.journal.retract(unit)
    run.segment()
    assert files_of(run) == first
    assert not list(tmp_path.rglob(".*.partial"))


def test_a_disk_that_fails_leaves_the_old_dataset_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else; the next call writes the same bytes."""
    monkeypatch.setattr(dataset, "MOST_ROWS", 5)
    run = parquet_run(tmp_path, monkeypatch, "csv,parquet")
    first = files_of(run)
    RunLayout(run.store).tables["failures"].unlink()
    write = dataset.DatasetWriter._write_group
    calls = []

    def full(writer: dataset.DatasetWriter, rows: int) -> None:
        calls.append(rows)
        if len(calls) == 12:
            raise OSError(28, "No space left on device")
        write(writer, rows)

    monkeypatch.setattr(dataset.DatasetWriter, "_write_group", full)
    with pytest.raises(OSError, match="No space left"):
        run.finish()
    assert files_of(run) == first
    assert not list(tmp_path.rglob(".*.partial"))
    monkeypatch.setattr(dataset.DatasetWriter, "_write_group", write)
    run.finish()
    assert files_of(run) == first


def test_a_run_without_nuclei_has_a_dataset_with_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_run(tmp_path, monkeypatch, tables="parquet")
    run.put("empty.tif", picture(0))
    run.segment()
    assert list(files_of(run)) == ["part-00000.parquet"]
    frame = nucseg_batch.read_nuclei(run.store, library="pandas")
    assert list(frame.columns) == [column.name for column in NUCLEI]
    assert len(frame) == 0
    call("export", run.store, tmp_path / "to", "--format", "parquet")
    assert pa.parquet.read_table(tmp_path / "to" / "nuclei.parquet").num_rows == 0


@pytest.mark.parametrize("piece", [1, 13, 64, 10**6])
def test_rows_are_taken_in_pieces_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """Newlines within quotation marks end no row."""
    monkeypatch.setattr(dataset, "BLOCK", 40)
    columns = (Column("image", "", type="string"), MEASURED[0], Column("area", ""))
    rows = ['"a\nb",1,2.5', '"say ""x\n"" ,",2,', "plain,3,1e-07", '"\n\n",4,7'] * 5
    text = "".join(f"{row}\n" for row in rows).encode()
    with dataset.DatasetWriter(tmp_path, columns) as writer:
        for start in range(0, len(text), piece):
            writer.write(text[start : start + piece])
    table = pa.parquet.read_table(tmp_path / "part-00000.parquet").to_pydict()
    assert table["image"] == ["a\nb", 'say "x\n" ,', "plain", "\n\n"] * 5
    assert table["label"] == [1, 2, 3, 4] * 5
    assert table["area"] == [2.5, None, 1e-7, 7.0] * 5


def test_a_missing_library_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the process that is to write the tables of a run that another one planned, and by readers."""
    run = parquet_run(tmp_path / "there", monkeypatch, "parquet")
    other = small_run(tmp_path / "new", monkeypatch)
    other.put("a.tif", picture(3))
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    refused = call("segment", other.folder, other.store, "--tables", "csv, parquet", code=2).stderr
    assert "--tables parquet needs pyarrow, which is not installed: pip install 'nucseg-batch[export]'" in refused
    assert [path.name for path in other.store.parent.iterdir()] == ["in"]
    call("plan", other.folder, other.store, "--tables", "parquet", code=2)
    assert "needs pyarrow" in call("finish", run.store, code=2).stderr
    with pytest.raises(UsageError, match=r"out\.nuclei\.parquet needs pyarrow"):
        nucseg_batch.read_nuclei(run.store)


def test_formats_are_checked_and_bind_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of that name that somebody else made is never replaced."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    refused = call("segment", run.folder, run.store, "--tables", "excel", code=2).stderr
    assert "--tables must be csv, parquet, or csv,parquet, but is 'excel'" in refused
    mine = folder_of(run)
    mine.mkdir()
    (mine / "mine.parquet").write_text("mine")
    with pytest.raises(OutputError, match="belongs to no run of ours"):
        nucseg_batch.segment(run.folder, run.store, diameter=26, tables=["parquet"])
    (mine / "mine.parquet").unlink()
    mine.rmdir()
    options = ("--diameter", 26, "--region", 64)
    call("segment", run.folder, run.store, *options, "--tables", "parquet,csv")
    call("segment", run.folder, run.store, *options, "--tables", "csv, parquet")
    refused = call("segment", run.folder, run.store, *options, code=78).stderr
    assert "--tables: csv,parquet in the run, csv now" in refused
    assert len(list(mine.iterdir())) == 1
    call("segment", run.folder, run.store, *options, "--overwrite")
    assert not mine.exists()
    result = nucseg_batch.segment(run.folder, run.store, diameter=26, overwrite=True, tables=["parquet"])
    assert result.tables["nuclei"] == mine
    assert not run.store.with_suffix(".nuclei.csv").exists()
    told = json.loads(call("finish", run.store, "--json").stdout)
    assert str(mine) in told["files"]
