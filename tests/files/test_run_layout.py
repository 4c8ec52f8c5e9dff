from __future__ import annotations

from pathlib import Path

import pytest
import zarr

from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run_layout import RunLayout, path_beside


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_nothing_of_a_run_lies_within_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zarr_format: int
) -> None:
    """Labels of one field of a plate are written into the plate; its tables would be files that no standard knows."""
    zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=zarr_format).create_group("A/2/0")  # type: ignore[arg-type]
    field = tmp_path / "plate.zarr" / "A" / "2" / "0"
    assert Journal(field).folder == tmp_path / "plate.A-2-0.run"
    assert {path.name for path in RunLayout(field).tables.values()} == {
        f"plate.A-2-0.{table}.csv" for table in ("images", "nuclei", "failures")
    }
    assert RunLayout(field).images_csv.parent == tmp_path
    monkeypatch.chdir(tmp_path / "plate.zarr" / "A")
    assert path_beside(Path("2/0"), ".run") == Path("../../plate.A-2-0.run")


def test_what_is_no_part_of_a_store_has_its_tables_under_its_name(tmp_path: Path) -> None:
    """The whole plate, and a store that is made anew, in the words of the user."""
    zarr.open_group(tmp_path / "plate.zarr", mode="w")
    assert path_beside(tmp_path / "plate.zarr", ".run") == tmp_path / "plate.run"
    assert path_beside(Path("out.zarr"), ".images.csv") == Path("out.images.csv")
    assert path_beside(tmp_path / "0", ".run") == tmp_path / "0.run"
