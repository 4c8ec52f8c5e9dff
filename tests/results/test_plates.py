from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from doubles import Threshold
from report_pages import Page, made_run, report_of
from small_runs import picture, small_run
from zarr_examples import multiscales, write_array, write_group

from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.plates import Plates, named_well
from nucseg_batch.results.report.heatmap import colour
from nucseg_batch.results.tables import PlaneRow


@pytest.mark.parametrize(
    ("key", "plate", "well"),
    [
        ("A01.tif", "", (0, 0)),
        ("plate1/B02_s1_w1.TIF", "plate1", (1, 1)),
        ("r02c11f03p01-ch1sk1fk1fl1.tiff", "", (1, 10)),
        ("x/AssayPlate_P24_T0001F001L01A01Z01C01.tif", "x", (15, 23)),
        ("MFGTMP_140516_H12f05d0.TIF", "", (7, 11)),
        ("A - 01(fld 1 wv DAPI - DAPI).tif", "", (0, 0)),
        ("plate/C07/field3.png", "plate", (2, 6)),
        ("AF48.tif", "", (31, 47)),
        ("image_001.tif", "", None),
        ("T0001.tif", "", None),
        ("IMG2024.tif", "", None),
        ("sampleA1b.tif", "", None),
    ],
)
def test_wells_are_read_from_names_as_microscopes_write_them(
    key: str, plate: str, well: tuple[int, int] | None
) -> None:
    """Each maker has a way of its own."""
    found = named_well(key)
    assert (found[0], found[2]) == (plate, well)


def plates_of(names: list[str], status: PlaneStatus = PlaneStatus.OK) -> list[tuple[str, int]]:
    plates = Plates(Path("nowhere"))
    for name in names:
        values = {"height": 4.0, "width": 4.0, "nuclei": 0.0}
        plates.add(PlaneRow((name, "", ""), name, status, "4x4/labels/nuclei", 0, None, None, 0, 0, values))
    return [(plate.name, len(plate.rows) * len(plate.columns)) for plate in plates.found()]


def test_names_are_believed_only_where_nearly_all_of_several_rows_and_columns_have_one() -> None:
    """`T01` to `T99` are time points, and one `A1` among holiday pictures is chance."""
    assert plates_of([f"{letter}{number:02d}.tif" for letter in "ABH" for number in range(1, 13)]) == [("nowhere", 96)]
    assert plates_of([f"T{number:02d}.tif" for number in range(1, 40)]) == []
    assert plates_of([f"{letter}01.tif" for letter in "ABCDEFGH"]) == []
    assert plates_of(["A01.tif", "B02.tif", *(f"picture{number}.tif" for number in range(30))]) == []
    assert plates_of([f"x/{letter}{number}_s1.tif" for letter in "AP" for number in (1, 24)]) == [("x", 384)]
    assert plates_of([f"{letter}{number}.tif" for letter in ("A", "AF") for number in (1, 48)]) == [("nowhere", 1536)]


def test_plates_in_one_folder_are_kept_apart_by_how_names_begin() -> None:
    """But a number before the well that counts images names no plate."""
    wells = [f"{letter}{number:02d}" for letter in "AB" for number in (1, 2)]
    assert plates_of([f"{plate}_{well}.tif" for plate in ("drug", "control") for well in wells]) == [
        ("control", 6),
        ("drug", 6),
    ]
    assert plates_of([f"{number:05d}_{wells[number % 4]}.tif" for number in range(900)]) == [("nowhere", 6)]


def test_a_plate_is_drawn_with_missing_and_failed_wells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty square, a failed well and one without nuclei mean three things."""
    images = {f"{row}{column:02d}.tif": picture(column) for row in "ABC" for column in range(1, 5)}
    images["A01.tif"] = picture(0)
    run = small_run(tmp_path, monkeypatch)
    for name, pixels in images.items():
        run.put(name, pixels)
    (run.folder / "C03.tif").write_text("broken")
    (run.folder / "C04.tif").unlink()
    run.segment(Threshold(support=None))
    content = report_of(run.store)
    page = Page(content)
    assert "Plate in: 3 rows and 4 columns" in page.text
    assert "10 wells with results, 22 nuclei, 1 failed" in page.text
    assert "B3: 3; 3 nuclei in 1 image" in page.text
    assert "C3: unknown; 0 nuclei in 0 images, 1 failed" in page.text
    assert "C4: no image" in page.text
    maps = content.split('class="plate"')[1:]
    assert len(maps) == 3
    assert all(part.count('class="cross"') == 1 for part in maps)
    assert maps[1].count('class="void"') == 1
    assert [part.count('class="none"') for part in maps] == [1, 1, 1]


def test_a_plate_of_a_store_is_known_by_its_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns have the names that the plate gives them."""
    plate = tmp_path / "in.zarr"
    wells = [(row, column) for row in ("B", "C") for column in ("03", "05", "11")]
    indexed = [
        {"path": f"{r}/{c}", "rowIndex": "BC".index(r), "columnIndex": ("03", "05", "11").index(c)} for r, c in wells
    ]
    names = {"rows": [{"name": "B"}, {"name": "C"}], "columns": [{"name": name} for name in ("03", "05", "11")]}
    write_group(plate, {"plate": {"version": "0.5", **names, "wells": indexed}})
    for row, column in wells:
        write_group(plate / row)
        write_group(plate / row / column, {"well": {"version": "0.5", "images": [{"path": "0"}]}})
        write_group(plate / row / column / "0", multiscales("yx", size=0.5))
        write_array(plate / row / column / "0" / "0", picture(3))
    run = small_run(tmp_path, monkeypatch)
    run.folder = plate
    run.segment()
    page = Page(report_of(run.store))
    assert "Plate in: 2 rows and 3 columns" in page.text
    assert "C11: 3; 3 nuclei in 1 image" in page.text
    assert "Mean area of nuclei (µm²)" in page.text
    assert "B05: 5; 3 nuclei" in page.text  # 20 pixels of 0.25 um2


def test_1536_wells_of_many_plates_stay_within_what_a_page_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later plates are then in the list only."""
    monkeypatch.setattr("nucseg_batch.results.report.heatmap.CELLS", 3 * 12 * 2)
    names = [f"p{number}/{row}{column}.tif" for number in range(4) for row in "AB" for column in (1, 4)]
    content = report_of(made_run(tmp_path, monkeypatch, dict.fromkeys(names, picture(2))).store)
    assert content.count('class="plate"') == 3 * 3 - 3
    assert "2 more plates are in the list only." in Page(content).text


def test_the_scale_goes_from_dark_to_bright() -> None:
    """Whoever sees no colours still sees the order."""
    shades = [int(colour(share)[1:], 16).to_bytes(3, "big") for share in np.linspace(0, 1, 21)]
    light = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in shades]
    assert light == sorted(light)
    assert (colour(-3), colour(9)) == (colour(0), colour(1))
