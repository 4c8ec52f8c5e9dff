"""`--json`, `--quiet` and `--verbose`: what goes to which stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from command import Output, call

from nucseg_batch.errors import EXIT_SOME_FAILED

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def told(*arguments: object, code: int = 0) -> dict[str, Any]:
    """The one JSON object of standard output, which must name the exit code."""
    found: dict[str, Any] = json.loads(call(*arguments, code=code).stdout)
    assert found["exit_code"] == code
    if arguments[0] != "inspect":
        assert all(f"`{key}`" in PAGE for key in found), "docs/command-line.md explains every key"
    return found


def test_segment_answers_with_counts_failures_files_and_time(one_image: Path, tmp_path: Path) -> None:
    """A script needs no table and no text for people."""
    (one_image / "cut.png").write_bytes(b"")
    store = tmp_path / "out.zarr"
    dry = told("segment", one_image, store, "--json", "--dry-run", code=EXIT_SOME_FAILED)
    assert (dry["images"], dry["failed"], dry["units"], dry["units_done"]) == (1, 1, 1, 0)
    done = call("segment", one_image, store, "--diameter", 22, "--json", code=EXIT_SOME_FAILED)
    found = json.loads(done.stdout)
    assert (found["images"], found["planes"], found["nuclei"], found["missing"]) == (1, 1, 2, 0)
    assert found["new_pixels"] == 67 * 83
    assert [failure["image"] for failure in found["failures"]] == ["cut.png"]
    assert found["failures"][0].keys() == {"image", "stage", "error", "message"}
    assert [Path(path).name for path in found["files"]][:2] == ["out.zarr", "out.images.csv"]
    assert found["seconds"] >= found["stream_seconds"] > 0
    assert "1 image, 2 nuclei, 1 failed" in done.stderr


def test_other_commands_answer_about_the_same_run(segmented: Output, tmp_path: Path) -> None:
    """With the same names for the same things."""
    store = segmented.copy(tmp_path)
    state, joined, sound = (told(name, store, "--json") for name in ("status", "finish", "verify"))
    assert state["images"] == joined["images"] == 5
    assert state["nuclei"] == joined["nuclei"]
    assert state["units"] == state["units_done"] == sound["units"] == sound["units_done"]
    assert (sound["damage"], joined["missing"]) == ([], 0)
    assert state["failed"] == joined["failed"]
    assert (state["shares"], [share["share"] for share in state["by_share"]]) == (1, [0])
    (mask, *_) = (path for path in store.glob("*/labels/nuclei/0/c/**/*") if path.is_file())
    mask.write_bytes(b"x")
    damaged = told("verify", store, "--json", code=74)
    assert len(damaged["damage"]) == 1
    assert "--redo" in damaged["error"]


def test_a_key_has_one_type_and_one_unit_in_all_answers(segmented: Output, tmp_path: Path) -> None:
    """A script that reads `failures` or `shares` of one command can read those of another."""
    store, images = segmented.copy(tmp_path), segmented.images
    plan = told("segment", images, tmp_path / "new.zarr", "--json", "--dry-run")
    answers = [plan, told("inspect", images, "--json")]
    answers += [told(name, store, "--json") for name in ("status", "finish", "verify")]
    kinds: dict[str, set[type]] = {}
    for key, value in (item for answer in answers for item in answer.items()):
        kinds.setdefault(key, set()).add(type(value))
    assert {key: found for key, found in kinds.items() if len(found - {type(None)}) > 1} == {}
    assert "missing" not in answers[-1], "which counts planes elsewhere, and units here"


def test_verify_counts_units_and_files_apart(segmented: Output, tmp_path: Path) -> None:
    """A changed table is no damaged unit."""
    store = segmented.copy(tmp_path)
    assert "; no damage" in call("verify", store).stdout
    with open(store.with_suffix(".nuclei.csv"), "ab") as table:
        table.write(b"x\n")
    assert "0 not done yet; damaged: 1 file\n" in call("verify", store, code=74).stdout


def test_status_says_what_verify_found_damaged_and_what_mends_it(segmented: Output, tmp_path: Path) -> None:
    """Also to a script, and long after the call that found it."""
    store = segmented.copy(tmp_path)
    assert told("status", store, "--json")["next"] is None
    (mask, *_) = (path for path in store.glob("*/labels/nuclei/0/c/**/*") if path.is_file())
    mask.write_bytes(b"x")
    found = told("verify", store, "--json", code=74)["coverage"]
    state = told("status", store, "--json")
    assert state["coverage"] == found
    assert (found["damaged"], state["complete"]) == (1, True)
    assert f"`nucseg-batch verify {store} --redo`" in state["next"]
    text = call("status", store).stdout
    assert "damaged when verified on 20" in text
    planes = found["damaged_planes"]
    assert f": 1 result with {planes} plane{'s' * (planes > 1)}\n" in text
    assert f"next: {state['next']}" in text
    call("verify", store, "--redo")
    text = call("status", store).stdout
    assert "damaged" not in text
    assert f"next: continue with `nucseg-batch segment --run {store}`" in text


def test_verify_says_how_much_of_a_run_parts_have_covered(segmented: Output, tmp_path: Path) -> None:
    """So that whoever plans the calls sees that all of it comes round; status says the same."""
    store = segmented.copy(tmp_path)
    assert told("status", store, "--json")["coverage"]["verified"] == 0
    first = told("verify", store, "--share", "0/2", "--json")
    total = first["coverage"]["results"]
    assert (first["results"], first["coverage"]["verified"]) == (-(-total // 2), -(-total // 2))
    second = call("verify", store, "--sample", "50%").stdout.splitlines()
    assert f"({-(-total // 2)} of {total} results), 0 not done yet; no damage" in second[0]
    assert f"verified since they were written: {total} of {total} results, the oldest on 20" in second[1]
    assert second[1] in call("status", store).stdout
    assert told("verify", store, "--since", "1d", "--json")["results"] == 0
    assert told("verify", store, "--since", "2020-02-02", "--json")["results"] == 0
    assert told("verify", store, "--since", "0h", "--json")["results"] == total
    (mask, *_) = (path for path in store.glob("*/labels/nuclei/0/c/**/*") if path.is_file())
    mask.write_bytes(b"x")
    whole = call("verify", store, code=74).stdout
    assert "results" not in whole.splitlines()[0]
    assert told("verify", store, "--sample", "0.5%", "--json", code=74)["results"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("segment", "nowhere", "o.zarr"), 66),
        (("segment", "--frobnicate"), 2),
        (("segment", "in", "out"), 2),
        (("nothing",), 2),
        (("status", "nowhere.zarr"), 66),
        (("sample", "x"), 2),
    ],
    ids=lambda value: str(value),
)
def test_errors_are_json_too(arguments: tuple[str, ...], code: int) -> None:
    """Whatever goes wrong, also before anything parses; the line for people is on standard error as ever."""
    failed = call(*arguments, "--json", code=code)
    answer = json.loads(failed.stdout)
    assert answer["exit_code"] == code
    assert failed.stderr == f"nucseg-batch: {answer['error']}\n"


def test_a_refusal_with_an_answer_of_its_own_is_one_object(tmp_path: Path) -> None:
    """`inspect` tells what it found and why that would be refused, once."""
    (tmp_path / "empty.png").write_bytes(b"")
    found = told("inspect", tmp_path, "--json", code=65)
    assert found["images"] == 0
    assert "cannot be used: the file is empty" in found["error"]


def test_evaluate_prints_json_where_a_file_is_named_by_a_dash(tmp_path: Path) -> None:
    """The tables then go to standard error, and with --quiet nowhere."""
    labels = np.zeros((31, 37), np.uint16)
    labels[5:12, 7:15] = 1
    for side in ("p", "t"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.png").write_bytes(imagecodecs.png_encode(labels))
    plain = call("evaluate", tmp_path / "p", tmp_path / "t", "--json", "-")
    assert json.loads(plain.stdout)["exit_code"] == 0
    assert "mean AP" in plain.stderr
    silent = call("evaluate", tmp_path / "p", tmp_path / "t", "--json", "-", "-q")
    assert silent.stdout == call("evaluate", "--quiet", tmp_path / "p", tmp_path / "t", "--json=-").stdout
    assert json.loads(silent.stdout) == json.loads(plain.stdout)
    assert silent.stderr == ""
    broken = call("evaluate", tmp_path / "p", tmp_path / "nowhere", "--json", "-", code=66)
    assert json.loads(broken.stdout)["exit_code"] == 66


@pytest.mark.parametrize("place", [0, 1, 3])
def test_quiet_says_nothing_but_errors_wherever_it_stands(one_image: Path, tmp_path: Path, place: int) -> None:
    """For cron and scripts: what is printed is then worth a mail."""
    arguments: list[object] = ["plan", one_image, tmp_path / "out.zarr"]
    quiet = call(*arguments[:place], "-q", *arguments[place:])
    assert (quiet.stdout, quiet.stderr) == ("", "")
    failed = call("--quiet", "plan", tmp_path / "nowhere", tmp_path / "out.zarr", code=66)
    assert (failed.stdout, len(failed.stderr.splitlines())) == ("", 1)
    assert "planned" in call(*arguments).stdout
    counted = call(*arguments, "--json", "-q")  # --json of other commands takes a value, of this one none
    assert (json.loads(counted.stdout)["images"], counted.stderr) == (1, "")


def test_verbose_tells_of_each_image_of_batches_and_stages(one_image: Path, tmp_path: Path) -> None:
    """What a slow or odd run is understood by, without looking for its log."""
    known = ("small8.png: 2 nuclei", "batches of ", "stage read: ", "images of 67x83, scale ")
    loud = call("segment", one_image, tmp_path / "loud.zarr", "--diameter", 22, "--verbose")
    plain = call("segment", one_image, tmp_path / "plain.zarr", "--diameter", 22)
    for words in known:
        assert words in loud.stderr
        assert words not in plain.stderr


def test_a_value_is_never_taken_for_an_option(one_image: Path, tmp_path: Path) -> None:
    """`--job-option -q` is for the jobs' scheduler, and what stands behind -- is a name."""
    out = tmp_path / "out.zarr"
    assert "planned" in call("plan", one_image, out, "--pattern", "*.png").stdout
    dry = call("segment", one_image, tmp_path / "o.zarr", "--job-option", "-q", "--dry-run")
    assert "dry run" in dry.stdout
    assert (
        "nucseg-batch: --quiet: there is no such"
        in call("segment", "--", "--quiet", tmp_path / "o.zarr", code=66).stderr
    )
    assert "opposites" in call("plan", "-q", "-v", one_image, out, code=2).stderr
    assert "takes no value" in call("plan", "--quiet=yes", one_image, out, code=2).stderr
