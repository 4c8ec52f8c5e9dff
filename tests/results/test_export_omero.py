"""The CSV for OMERO as omero-metadata documents and reads it: a row of types, names, and values of these types."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import tifffile
from exporting import exported
from small_runs import SmallRun, mosaic, picture, small_run

from nucseg_batch.results.export.omero import queried

PARSED: dict[str, Any] = {"s": str, "plate": str, "well": str, "l": int, "d": lambda cell: float(cell or "nan")}
"""What omero-metadata 0.14 makes of cells with --allow-nan; an empty cell in a column `l` ends it."""


def parsed(path: Path) -> tuple[list[str], pandas.DataFrame]:
    """The types of the columns and the rows, as `omero metadata populate` reads them."""
    with open(path, encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        types, names = next(reader), next(reader)
        assert types[0].startswith("# header ")
        types[0] = types[0].removeprefix("# header ")
        assert len(types) == len(names) == len(set(names))
        rows = [[PARSED[kind](cell) for kind, cell in zip(types, row, strict=True)] for row in reader]
    return types, pandas.DataFrame(rows, columns=names)


def check_measurements(found: pandas.DataFrame, run: SmallRun) -> None:
    table = pandas.read_csv(run.store.with_suffix(".nuclei.csv"))
    measured = [name for name in table.columns if name not in ("image", "t", "z")]
    assert list(found.image_path) == list(table.image)
    for name in measured:
        np.testing.assert_array_equal(found[name.replace("-", "_")], table[name], err_msg=name)


def test_rows_of_a_plate_find_plates_and_wells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is empty is in a column of real numbers, since only there it is read."""
    run = small_run(tmp_path, monkeypatch, measure="neighbours")
    (run.folder / "screen").mkdir()
    for number, name in enumerate(("p1_A01", "p1_A02", "p1_B01", "p2_A01", "p2_A02", "p2_B01")):
        run.put(f"screen/{name}.tif", picture(number))
    run.put("screen/p2_B02.tif", mosaic())
    pixels = np.array([picture(2), picture(4)])
    options: dict[str, Any] = {"imagej": True, "resolution": (4, 4), "metadata": {"axes": "TYX", "unit": "um"}}
    tifffile.imwrite(run.folder / "screen" / "p1_B02.tif", pixels, **options)
    run.segment()
    exported(run, tmp_path / "to", "omero")
    types, found = parsed(tmp_path / "to" / "omero.csv")
    assert list(found.columns[:5]) == ["Plate", "Well", "image_path", "t", "label"]
    assert types[:7] == ["plate", "well", "s", "d", "l", "l", "l"]
    assert set(zip(found.Plate, found.Well, strict=True)) == {
        *(("p1", well) for well in ("A02", "B01", "B02")),
        *(("p2", well) for well in ("A01", "A02", "B01", "B02")),
    }
    assert set(found.t[found.Well == "B02"].dropna()) == {0, 1}
    check_measurements(found, run)
    exported(run, tmp_path / "part", "omero", pattern="p2*")
    _, some = parsed(tmp_path / "part" / "omero.csv")
    assert set(some.Plate) == {"p2"}
    assert "t" not in some


@pytest.mark.parametrize("folder", ["", "first/day 1/"])
def test_rows_of_other_images_find_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """In folders by the names of these, too, as of datasets; names may have commas."""
    run = small_run(tmp_path, monkeypatch)
    (run.folder / folder).mkdir(parents=True, exist_ok=True)
    run.put(f"{folder}one, two.tif", picture(2))
    run.put("three.tif", picture(4))
    run.segment()
    exported(run, tmp_path / "to", "omero")
    types, found = parsed(tmp_path / "to" / "omero.csv")
    assert set(found["Image Name"]) == {"one, two.tif", "three.tif"}
    assert list(found.columns)[: 4 if folder else 3] == [
        "Image Name",
        *(["Dataset Name"] if folder else []),
        "image_path",
        "label",
    ]
    assert types[0] == "s"
    if folder:
        assert dict(zip(found["Image Name"], found["Dataset Name"], strict=True))["one, two.tif"] == "day 1"
    check_measurements(found, run)


def test_names_of_columns_stay_apart() -> None:
    """Two channels whose names differ only in signs keep them."""
    assert queried(["centroid-0", "intensity_mean-GFP 1", "a-1", "a_1"]) == [
        "centroid_0",
        "intensity_mean_GFP_1",
        "a-1",
        "a_1",
    ]
