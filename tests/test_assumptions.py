from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from small_runs import picture, small_run

from nucseg_batch.errors import DoubtfulInputError
from nucseg_batch.plan import Assumption, doubt_error, merged
from nucseg_batch.results.report import write_report
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.settings import SegmentSettings

SURE = Assumption("axes", "axes are ZYX", "ImageJ metadata", "--axes")
WEAK = Assumption("axes", "axes are CYX", "3 planes", "--axes zyx", doubtful=True)


def test_equal_guesses_are_one_line_with_a_count_and_the_first_example() -> None:
    """A million images of one kind must not print a million lines."""
    of = [Assumption("axes", "a", "b", "c", example=name) for name in ("x.tif", "y.tif", "z.tif")]
    (one,) = merged(of)
    assert one.images == 3
    assert one.text == "x.tif and 2 more: a (b); if that is wrong: c"


def test_doubtful_guesses_come_first_and_strict_refuses_only_these() -> None:
    """What is well founded needs no refusal."""
    assert merged([SURE, WEAK]) == (WEAK, SURE)
    assert doubt_error([SURE]) is None
    refusal = doubt_error([SURE, WEAK])
    assert isinstance(refusal, DoubtfulInputError)
    assert "--axes zyx" in str(refusal)
    assert "ImageJ" not in str(refusal)
    assert refusal.exit_code == 65


def test_a_refusal_names_a_few_and_counts_the_rest() -> None:
    """One line stays one line."""
    many = [Assumption("axes", f"guess {i}", "e", "o", doubtful=True) for i in range(7)]
    text = str(doubt_error(many))
    assert "guess 2" in text
    assert "guess 3" not in text
    assert "4 more" in text


def test_strict_does_not_bind_a_resumed_run() -> None:
    """It decides whether a run begins, not what its masks are."""
    assert SegmentSettings(strict=True).result_options() == SegmentSettings().result_options()


def put_channels(folder: Path) -> None:
    """One image of two channels, one of them known by its place in the name only."""
    folder.mkdir(exist_ok=True)
    for name in ("s_DAPI.tif", "s_Zfp42.tif"):
        tifffile.imwrite(folder / name, picture(3), photometric="minisblack")


def test_what_was_assumed_is_in_the_log_the_plan_the_provenance_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads results later must be able to see what they rest on."""
    run = small_run(tmp_path, monkeypatch)
    put_channels(run.folder)
    run.segment()
    (planned,) = run.journal.load().assumptions
    assert planned.doubtful
    assert f"assumed: {planned.text}" in run.notes.lines
    assert f"assumed (doubtful): {planned.text}" in (run.journal.folder / "log.txt").read_text()
    (written,) = json.loads((tmp_path / "out.provenance.json").read_text())["assumptions"]
    assert Assumption(**written) == planned
    write_report(FinishedRun(run.store), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "An assumption about the input is doubtful" in page
    assert page.count("Zfp42 are channels") == 2
    run.segment()
    assert f"assumed: {planned.text}" in run.notes.lines


@pytest.mark.parametrize("command", ["inspect", "plan", "segment"])
def test_strict_refuses_what_would_be_assumed(tmp_path: Path, command: str) -> None:
    """Before anything is written, with the option that says it."""
    put_channels(tmp_path / "in")
    out = [] if command == "inspect" else [str(tmp_path / "out.zarr")]
    place = [command, str(tmp_path / "in"), *out, *(["--dry-run"] if command == "segment" else [])]
    told = subprocess.run([sys.executable, "-m", "nucseg_batch", *place, "--strict"], capture_output=True, text=True)
    assert told.returncode == 65
    assert "--channel each" in told.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    said = [*place, "--strict", "--channel", "DAPI"]
    assert subprocess.run([sys.executable, "-m", "nucseg_batch", *said], capture_output=True).returncode == 0


def test_inspect_tells_assumptions_as_json(tmp_path: Path) -> None:
    """For scripts that decide by them."""
    put_channels(tmp_path / "in")
    command = [sys.executable, "-m", "nucseg_batch", "inspect", str(tmp_path / "in"), "--json"]
    (told,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["assumptions"]
    assert (told["kind"], told["doubtful"], told["images"]) == ("channels", True, 1)


def test_a_run_tells_once_of_images_that_are_to_be_shown_rotated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers with the same bytes are parsed once, and all their images count; an image without the tag does not."""
    run = small_run(tmp_path, monkeypatch)
    for name in ("a.tif", "b.tif", "c.tif"):
        tifffile.imwrite(run.folder / name, picture(3), extratags=[(274, "H", 1, 8, True)])
    run.put("plain.tif", picture(3))
    run.segment()
    (line,) = [line for line in run.notes.lines if "Orientation" in line]
    assert line.startswith("assumed: a.tif and 2 more: pixels are read in the order in which they are stored")
    assert "counter-clockwise" in line
