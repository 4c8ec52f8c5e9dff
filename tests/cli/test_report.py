from __future__ import annotations

from pathlib import Path

import imagecodecs
import pytest
from command import Output, call, contents
from pictures import disks, fluorescence


def test_report_writes_a_page_beside_the_store(segmented: Output, tmp_path: Path) -> None:
    """Beside the tables, where it is looked for, and said where; or where it was asked for."""
    store = segmented.copy(tmp_path)
    told = call("report", store, "--images", segmented.images).stdout
    page = tmp_path / "out.report.html"
    assert told.strip() == f"report: {page}"
    content = page.read_text(encoding="utf-8")
    assert content.count("data:image/jpeg") == 5
    call("report", store, "--to", tmp_path / "new" / "other.html", "--images", segmented.images)
    assert (tmp_path / "new" / "other.html").read_text(encoding="utf-8") == content


def test_report_needs_tables_and_a_name_of_html(tmp_path: Path) -> None:
    """Each refusal says what to do."""
    assert "nucseg-batch finish" in call("report", tmp_path / "no.zarr", code=66).stderr
    assert ".html" in call("report", tmp_path / "no.zarr", "--to", tmp_path / "x.pdf", code=2).stderr


def test_the_flag_alone_changes_no_result(tmp_path: Path, one_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It only adds a page, and a run that was begun without it goes on with it."""
    plain, with_page = tmp_path / "plain.zarr", tmp_path / "page.zarr"
    call("segment", one_image, plain, "--diameter", "22")
    told = call("segment", one_image, with_page, "--diameter", "22", "--report").stdout
    assert "report: " in told
    assert contents(plain) == contents(with_page)
    assert not (tmp_path / "plain.report.html").exists()
    again = call("segment", one_image, plain, "--diameter", "22", "--report").stdout
    assert "everything was done already" in again
    assert (tmp_path / "plain.report.html").is_file()


def test_the_page_is_written_by_the_share_that_ends_the_run(tmp_path: Path, one_image: Path) -> None:
    """Before it there are no tables; images that failed are no reason to leave it out."""
    shape = (71, 73)
    other = fluorescence(disks(shape, [(30, 30)], 10), seed=3)
    (one_image / "other.png").write_bytes(imagecodecs.png_encode(other))
    (one_image / "bad.png").write_bytes(b"none")
    store, page = tmp_path / "out.zarr", tmp_path / "out.report.html"
    call("segment", one_image, store, "--diameter", "22", "--share", "0/2", "--report")
    assert not page.exists()
    call("segment", "--run", store, "--share", "1", "--report")
    assert "1 image failed" in page.read_text(encoding="utf-8")
