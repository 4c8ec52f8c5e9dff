from __future__ import annotations

import csv
import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from command import call
from pictures import disks

from nucseg_batch.cli.main import main
from nucseg_batch.files.names import printable

TRUTH = disks((61, 83), [(15, 15), (40, 30), (30, 65)], 9)
LONG = "3594684b9ea0e16196f498815508f8d364d55fea2933a2e782122b6f00375d04"


def write(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three images: perfect, one nucleus of three found, and invented nuclei; two groups, one of a long name."""
    for name, predicted, annotated in (
        ("good", TRUTH, TRUTH),
        (LONG, np.where(TRUTH == 1, 1, 0), TRUTH),
        ("[red]", TRUTH, TRUTH * 0),
    ):
        write(tmp_path / "t" / f"{name}.png", annotated)
        write(tmp_path / "p" / f"{name}.png", predicted)
    kind = "a modality of a rather long [bold]name"
    (tmp_path / "index.csv").write_text(f"id,modality\ngood,{kind}\n{LONG},{kind}\n[red],b\n")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, arguments)])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


def test_tables_fit_80_columns_and_are_plain_text_in_a_pipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wide tables break where they are read; names of groups give way, numbers do not."""
    code, out, _ = run(capsys, data / "p", data / "t")
    assert code == 0
    assert max(map(len, out.split("groups:")[0].splitlines())) <= 80
    assert "\x1b" not in out
    assert "…" not in out
    assert "[bold]" in out.replace("\n", "")
    for heading in ("mean AP", "AP@.5", "AP@.75", "PQ", "AJI", "P@.5", "R@.75", "F1@.75", "IoU", "Dice", "|error|"):
        assert heading in out, heading


def test_numbers_stand_under_their_headings(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PQ of 1, 1/2 and 0; precision 1, 1 and 0; 6 annotated and 7 found nuclei, off by 0, -2 and +3."""
    _, out, _ = run(capsys, data / "p", data / "t")
    lines = [line.split() for line in out.splitlines()]
    tables = [i for i, line in enumerate(lines) if line and line[0] == "group"]
    quality, finding, extent = ((lines[i], lines[i + 2], lines[i + 3]) for i in tables)
    assert quality[1][:3] == ["all", "mean", "3"]
    assert (quality[1][-2], quality[2][-2]) == ("0.500", "0.615")
    assert finding[1][2:5] == ["0.667", "0.444", "0.500"]
    assert finding[2][1:4] == ["0.571", "0.667", "0.615"]
    assert extent[1][-4:] == ["2.0", "+0.3", "1.7", "0.333"]
    assert extent[2][-4:] == ["6", "+1", "1", "0.167"]


def test_the_worst_images_are_named_in_full(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is cut cannot be copied, and one in brackets is no markup."""
    _, out, _ = run(capsys, data / "p", data / "t", "--worst", 2)
    lines = out.splitlines()
    assert lines[-2].split() == ["0.000", "0.000", "0.000", "0", "3", "[red]", "(b)"]
    assert lines[-1].split()[:6] == ["0.333", "0.333", "0.500", "3", "1", LONG]
    assert LONG not in run(capsys, data / "p", data / "t")[1]


def test_csv_and_json_have_all_values_and_replace_what_was_there(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are written again each time; a value that does not exist is empty, or null."""
    places = data / "new" / "images.csv", data / "new" / "scores.json"
    (data / "new").mkdir()
    for place in places:
        place.write_text("from before " * 1000)
    code, _, _ = run(capsys, data / "p", data / "t", "--csv", places[0], "--json", places[1])
    assert code == 0
    with open(places[0], newline="", encoding="utf-8") as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    record = json.loads(places[1].read_text())
    assert list(rows) == [image["image"] for image in record["images"]] == sorted(["good", LONG, "[red]"])
    assert list(rows["good"]) == list(record["images"][0])
    assert (rows[LONG]["annotated"], rows[LONG]["count_error"], rows[LONG]["ap_50"]) == ("3", "-2", "0.3333333")
    assert rows["[red]"]["count_error_relative"] == ""
    assert record["images"][1]["count_error_relative"] is None
    assert list(record["groups"]) == ["all", "a modality of a rather long [bold]name", "b"]


def test_names_that_are_not_text_are_written_as_in_all_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File names are bytes; CSV and JSON are UTF-8."""
    name = "caf\udce9.png"
    for side in ("t", "p"):
        write(tmp_path / side / name, TRUTH)
    table, scores = tmp_path / "images.csv", tmp_path / "scores.json"
    code, _, errors = run(capsys, tmp_path / "p", tmp_path / "t", "--csv", table, "--json", scores, "--worst", 1)
    assert (code, errors) == (0, "")
    assert table.read_text().splitlines()[1].startswith(printable(name).removesuffix(".png") + ",")
    assert json.loads(scores.read_text())["images"][0]["image"] == printable(name).removesuffix(".png")


def test_one_file_cannot_be_both_tables(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second would replace the first."""
    code, _, errors = run(capsys, data / "p", data / "t", "--csv", data / "x", "--json", data / "t" / ".." / "x")
    assert code == 2
    assert "give two files" in errors


def test_both_commands_print_doubtful_annotation_and_refuse_it_when_strict(tmp_path: Path) -> None:
    """A binary mask in place of labels is the commonest mistake; scripts tell it by the exit code."""
    for name in "ab":
        write(tmp_path / "p" / f"{name}.png", TRUTH)
        write(tmp_path / "t" / "images" / f"{name}.png", TRUTH * 50)
        write(tmp_path / "t" / "labels" / f"{name}.png", (TRUTH > 0) * 255)
    pred, truth, model = tmp_path / "p", tmp_path / "t", tmp_path / "m.keras"
    said = "read as a binary mask: connected components are numbered"
    shown = call("evaluate", pred, truth)
    assert f"assumed (doubtful): TRUTH labels/a and 1 more: {said}" in " ".join((shown.stdout + shown.stderr).split())
    assert f"TRUTH labels/a and 1 more: {said}" in call("evaluate", pred, truth, "--strict", code=65).stderr
    refused = call("train", truth, model, "--epochs", 1, "--steps", 1, "--strict", code=65).stderr.splitlines()[-1]
    assert "images/" in refused
    assert said in refused
    assert not model.exists()
