from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from beginnings import SEEN, beginning

from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.columns import MEASURED, PLANE_SUMMARY, names
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run.finish import collect, write_tables
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, PlaneResult
from nucseg_batch.files.run.tables import NucleiTable, plane_summary
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.pipeline.measuring import measured_nuclei
from nucseg_batch.plan import Failure, ImageInfo, Plane, make_plan

LABELS = np.kron(np.array([[1, 0, 2], [0, 0, 2]]), np.ones((3, 5), int))
SUPPORT = np.where(LABELS == 2, 204, 255).astype(np.uint8)
PIXELS = (np.arange(90).reshape(6, 15) * 7 % 101).astype(np.uint16)


def plane(key: str, t: int | None = None, z: int | None = None) -> Plane:
    return Plane(ImageInfo(key, 1, 1, 6, 15, 1, "uint16"), t, z)


def measure(
    labels: np.ndarray, pixels: np.ndarray, channels: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    return measured_nuclei(labels, pixels, channels or {}, SUPPORT)


def summary(labels: np.ndarray, scale: float, pixel_size: float | None) -> dict[str, int | float | None]:
    return plane_summary(labels.shape, measure(labels, PIXELS), Exposure.of(PIXELS), scale, pixel_size)


def read(text: str, table: NucleiTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text([names(table.columns)]) + text)))


def test_a_row_of_nuclei_reads_back_to_what_was_measured() -> None:
    """Seven significant digits, integers in full, a dot on every machine."""
    measures = measure(LABELS, PIXELS)
    rows = read(NucleiTable().text(plane('odd, "name"\n.png'), measures, None), NucleiTable())
    assert [(row["image"], row["t"], row["z"]) for row in rows] == [('odd, "name"\n.png', "", "")] * 2
    for name in names(MEASURED):
        np.testing.assert_allclose([float(row[name]) for row in rows], measures[name], rtol=1e-6)
    assert rows[1]["area"] == "30"
    assert [row["confidence"] for row in rows] == ["1", "0.8"]


def test_a_confidence_that_nobody_knows_is_an_empty_cell() -> None:
    """Not nan, which a spreadsheet takes for text, and not 0, which would be an answer."""
    measures = measured_nuclei(LABELS, PIXELS, {}, None)
    assert [row["confidence"] for row in read(NucleiTable().text(plane("a"), measures, None), NucleiTable())] == [
        "",
        "",
    ]
    assert plane_summary(LABELS.shape, measures, Exposure.of(PIXELS), 1.0, None)["confidence"] is None


def test_rows_name_their_time_point_and_depth() -> None:
    """A stack has many nuclei of number 1."""
    rows = read(NucleiTable().text(plane("a.tif", 3, 0), measure(LABELS, PIXELS), None), NucleiTable())
    assert [(row["t"], row["z"], row["label"]) for row in rows] == [("3", "0", "1"), ("3", "0", "2")]


def test_every_channel_of_any_image_has_its_columns() -> None:
    """An image without the channel has empty cells there, never those of another."""
    table = NucleiTable(("DAPI", "Cy5"))
    other = PIXELS * 2
    rows = read(table.text(plane("a"), measure(LABELS, PIXELS, {"DAPI": PIXELS, "Cy5": other}), None), table)
    expected = [other[i == LABELS].mean() for i in (1, 2)]
    np.testing.assert_allclose([float(row["intensity_mean-Cy5"]) for row in rows], expected)
    assert [row["intensity_mean-DAPI"] for row in rows] == [row["intensity_mean"] for row in rows]
    (first, _) = read(table.text(plane("b"), measure(LABELS, PIXELS, {"DAPI": PIXELS}), None), table)
    assert (first["intensity_max-Cy5"], first["intensity_max-DAPI"]) == ("", first["intensity_max"])


def test_micrometres_stand_beside_pixels_where_a_pixel_has_a_size() -> None:
    """And are empty for an image of which it is not known."""
    table = NucleiTable(micrometres=True)
    measures = measure(LABELS, PIXELS)
    (first, _) = read(table.text(plane("a"), measures, 0.5), table)
    assert float(first["area_um2"]) == float(first["area"]) * 0.25
    assert float(first["perimeter_um"]) == pytest.approx(float(first["perimeter"]) * 0.5, rel=1e-6)
    (first, _) = read(table.text(plane("a"), measures, None), table)
    assert first["area_um2"] == ""


def test_rows_can_be_given_other_labels() -> None:
    """Nuclei of a large plane get their numbers when all its regions are done."""
    rows = NucleiTable().text(plane("a"), measure(LABELS, PIXELS), None, np.array([7, 9]))
    assert [row["label"] for row in read(rows, NucleiTable())] == ["7", "9"]


@pytest.mark.parametrize("far", [math.inf, -math.inf, 1e-30, 1e30])
def test_numbers_that_are_rarely_met_stand_among_others(far: float) -> None:
    """The whole table of such a plane is written by Python: to the same bytes, but for that number."""
    measures = measure(LABELS, PIXELS)
    usual = NucleiTable().text(plane("a,b"), measures, None)
    cell = f"{measures['intensity_std'][1]:.7g}"
    measures["intensity_std"][1] = far
    assert usual.count(cell) == 1
    assert NucleiTable().text(plane("a,b"), measures, None) == usual.replace(cell, f"{far:.7g}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a\udcff\udc80ü.tif", "a%FF%80ü.tif"),
        ("%FF.png", "%25FF.png"),
        ("100%.png", "100%.png"),
        ("%25FF.png", "%2525FF.png"),
        ("a b/ü.png", "a b/ü.png"),
    ],
)
def test_names_that_are_not_utf8_are_written_so_that_any_program_reads_them_back(name: str, text: str) -> None:
    """Bytes that no text has become %XX, and no two names become one."""
    assert csv_text([(name,)]) == f"{text}\n"
    assert file_name(text) == name


@pytest.mark.parametrize("count", [1, 2, 7, 130, 1031])
def test_the_summary_has_the_digits_that_numpy_gives(count: int) -> None:
    """To the last one, of few and of many nuclei: images.csv keeps its bytes whatever sums them."""
    random = np.random.default_rng(count)
    area, mean, sure = random.integers(1, 900, count), random.random(count) * 4000, random.random(count)
    nuclei = {"area": area, "intensity_mean": mean, "confidence": sure}
    values = plane_summary((2000, 2000), nuclei, Exposure.of(PIXELS), 1.0, None)
    assert (values["area_mean"], values["area_std"], values["area_median"]) == (
        area.mean(),
        area.std(),
        np.median(area),
    )
    assert (values["intensity_mean"], values["intensity_std"]) == (mean.mean(), mean.std())
    assert values["confidence"] == sure.mean()
    sure[-1] = math.nan
    assert plane_summary((2000, 2000), nuclei, Exposure.of(PIXELS), 1.0, None)["confidence"] is None


def test_the_summary_of_a_plane_is_that_of_its_pixels() -> None:
    """Against plain sums over masks."""
    values = summary(LABELS, 0.5, 0.65)
    means = [PIXELS[i == LABELS].mean() for i in (1, 2)]
    assert values["nuclei"] == 2
    assert values["area_fraction"] == pytest.approx((LABELS > 0).mean())
    assert (values["area_mean"], values["area_median"], values["area_std"]) == (22.5, 22.5, 7.5)
    assert values["intensity_mean"] == pytest.approx(np.mean(means))
    assert values["intensity_std"] == pytest.approx(np.std(means))
    assert values["intensity_background"] == pytest.approx(PIXELS[LABELS == 0].mean())
    assert values["confidence"] == pytest.approx(0.9)
    assert values["saturated_fraction"] == pytest.approx((PIXELS.max() == PIXELS).mean())
    assert (values["scale"], values["pixel_size"]) == (0.5, 0.65)
    assert tuple(values) == names(PLANE_SUMMARY)


def test_an_empty_plane_has_no_averages() -> None:
    """The mean area of no nuclei is not zero."""
    values = summary(LABELS * 0, 1.0, None)
    assert (values["nuclei"], values["area_mean"], values["intensity_mean"]) == (0, None, None)
    assert values["confidence"] is None
    assert values["intensity_background"] == pytest.approx(PIXELS.mean())


def test_finishing_sorts_by_image_whatever_the_units_and_can_be_repeated(tmp_path: Path) -> None:
    """Units run by shape; people look up images by name."""
    shapes = {"a.png": (31, 37), "b.png": (11, 13), "c.png": (31, 37), "d.png": (11, 13)}
    images = [ImageInfo(key, 1, 1, *shape, 1, "uint8") for key, shape in shapes.items()]
    plan = make_plan(images, [Failure("bb.png", "plan", "OSError", "cut")])
    store = tmp_path / "out.zarr"
    journal = Journal(store)
    journal.create(beginning(plan))
    values = dict.fromkeys(names(PLANE_SUMMARY), 1)
    for unit in plan.units():
        rows = [f"{p.image.key},row\n" * (1 + (p.image.key == "c.png")) for p in unit.planes]
        results = [
            PlaneResult(p.image.key, len(r) // 10, values, len(r)) for p, r in zip(unit.planes, rows, strict=True)
        ]
        failed = Failure("d.png", "read", "ValueError", "bad")
        planes = tuple(failed if r.image == "d.png" else r for r in results)
        marker = Marker(planes, 9, "", (SEEN,) * len(planes))
        journal.commit(unit, marker, "".join(r for r in rows if not r.startswith("d")))
    write_tables(RunLayout(store), collect(plan, journal), NucleiTable())
    assert [entry.image for entry in collect(plan, journal)] == ["a.png", "b.png", "bb.png", "c.png", "d.png"]
    paths = RunLayout(store).tables
    table = {name: path.read_bytes() for name, path in paths.items()}
    assert table["nuclei"].decode().splitlines()[1:] == ["a.png,row", "b.png,row", "c.png,row", "c.png,row"]
    with open(paths["images"], newline="") as file:
        found = [(row["image"], row["status"], row["mask"], row["index"]) for row in csv.DictReader(file)]
    assert found == [
        ("a.png", "ok", "31x37/labels/nuclei", "0"),
        ("b.png", "ok", "11x13/labels/nuclei", "0"),
        ("bb.png", "failed", "", ""),
        ("c.png", "ok", "31x37/labels/nuclei", "1"),
        ("d.png", "failed", "", ""),
    ]
    write_tables(RunLayout(store), collect(plan, journal), NucleiTable())
    assert {name: path.read_bytes() for name, path in paths.items()} == table
