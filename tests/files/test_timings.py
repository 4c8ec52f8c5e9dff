from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from report_pages import Page, made_run, report_of
from small_runs import picture

from nucseg_batch.files.run.timings import StageTotal, Timings, add_timings, now, read_timings
from nucseg_batch.files.run_layout import RunLayout

ANOTHER = """
import sys
from datetime import datetime
from pathlib import Path
from nucseg_batch.files.run.timings import StageTotal, add_timings
add_timings(Path(sys.argv[1]), datetime.fromisoformat("2020-02-03T04:05:06+01:00"), {"read": StageTotal(8, 2, 5)})
"""


def test_streams_of_a_process_and_processes_of_a_run_add_up(tmp_path: Path) -> None:
    """Shares, job arrays and resumed runs are many processes; the report shows what they took together."""
    store = tmp_path / "out.zarr"
    RunLayout(store).folder.mkdir()
    began = now()
    for seconds in (3, 4):
        add_timings(store, began, {"read": StageTotal(2 * seconds, seconds, 10), "write": StageTotal(1, 1, 10)})
    assert len(list(RunLayout(store).timings.iterdir())) == 1
    subprocess.run([sys.executable, "-c", ANOTHER, str(store)], check=True)
    found = read_timings(store)
    assert isinstance(found, Timings)
    assert found.processes == 2
    assert found.stages == {"read": StageTotal(22, 9, 25), "write": StageTotal(2, 2, 20)}
    assert found.began.isoformat() == "2020-02-03T04:05:06+01:00"
    assert found.ended >= began


def test_damaged_timings_are_left_out(tmp_path: Path) -> None:
    """They are no result: a report must not fail because of them."""
    folder = RunLayout(tmp_path / "out.zarr").timings
    folder.mkdir(parents=True)
    for number, content in enumerate(("{", "[]", '{"stages": {"read": {"other": 1}}}')):
        (folder / f"{number}.json").write_text(content)
    assert read_timings(tmp_path / "out.zarr") is None


def test_the_report_shows_the_stages_that_the_run_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the log says: that is for people."""
    run = made_run(tmp_path, monkeypatch, 3)
    (run.journal.folder / "log.txt").unlink()
    found = read_timings(run.store)
    assert found is not None
    assert found.processes == 1
    assert {"read", "segment", "measure", "write"} <= found.stages.keys()
    text = Page(report_of(run.store)).text
    assert f"{found.began:%Y-%m-%d %H:%M %z}" in text
    assert "Segment the network and the separation of nuclei" in text


def test_a_run_without_timings_has_no_section_of_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of earlier versions have a log only."""
    run = made_run(tmp_path, monkeypatch, 3)
    for path in RunLayout(run.store).timings.iterdir():
        path.unlink()
    page = Page(report_of(run.store))
    assert "times" not in {attributes.get("id") for attributes in page.of("section")}
    assert "What it does" not in page.text


def test_a_run_that_begins_again_forgets_the_times_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --overwrite."""
    run = made_run(tmp_path, monkeypatch, {"a.tif": picture(3)})
    assert read_timings(run.store) is not None
    assert not run.journal.is_foreign()
    run.journal.clear()
    assert read_timings(run.store) is None
