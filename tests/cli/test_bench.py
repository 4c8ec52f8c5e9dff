from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import COMMAND, call

from nucseg_batch.cli.bench import advice
from nucseg_batch.executors.bench_records import Bench, EndToEndSpeed, Estimate, StageSpeed


def test_bench_measures_every_stage_of_a_run_on_given_images(
    one_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints answers how long all images take and what to ask Slurm for; IN stays as it was.

    In bfloat16, since batches are not tried in float32, which `auto` is on most processors; there they take minutes.
    """
    monkeypatch.setattr("nucseg_batch.network.predictor.Predictor.speed", lambda *_: 1.0)
    result, before = tmp_path / "bench.json", sorted(one_image.rglob("*"))
    scratch = tmp_path / "scratch"
    options = [
        "--images",
        2000,
        "--diameter",
        22,
        "--precision",
        "mixed_bfloat16",
        "--scratch",
        scratch,
        "--json",
        result,
    ]
    found = call("bench", one_image, *options)
    content = json.loads(result.read_text())
    assert [stage["name"] for stage in content["stages"]] == ["read", "network", "separate", "measure", "write"]
    assert all(stage["mpx_per_s"] > 0 for stage in content["stages"])
    whole = content["whole"]
    assert (whole["planes"], whole["nuclei"]) == (1, 2)
    assert whole["bound"] in ("read", "segment", "measure", "write")
    assert all(0 <= share <= 1 for share in whole["busy"].values())
    assert content["estimate"]["images"] == 2000
    assert content["programs"] > 0
    assert content["compile_s"] > 0
    assert (content["device_busy"], content["driver"]) == (None, "")
    assert "programs compiled, in" in found.stdout
    assert [one["pixels"] for one in content["batch_tried"]] == [2**20, 2**21, 2**22]
    assert "ask Slurm for: --cpus-per-task=" in found.stdout
    assert "2,000 images" in found.stdout
    assert list(scratch.iterdir()) == []
    assert sorted(one_image.rglob("*")) == before


def test_bench_simulates_images_where_none_are_given(tmp_path: Path) -> None:
    """Whoever has not copied the images yet wants to know as well."""
    result = tmp_path / "bench.json"
    call("bench", "--megapixels", 0.6, "--batch-size", 4, "--json", result)
    content = json.loads(result.read_text())
    assert content["whole"]["planes"] == 9
    assert content["whole"]["nuclei"] > 50
    assert content["batch"] == 4
    assert content["batch_tried"] == []


def test_bench_of_nothing_is_an_error(tmp_path: Path) -> None:
    """With the exit code that `segment` has for it."""
    call("bench", tmp_path / "nowhere", code=66)


@pytest.fixture
def measured() -> Bench:
    stage = StageSpeed("network", 10.0, 5.0)
    whole = EndToEndSpeed(
        100, 0, 1.0, 20.0, 500, 5.0, 4.0, 5.0, 125.0, {"read": 0.2, "segment": 0.9, "measure": 0.1}, 900.0
    )
    estimate = Estimate(1_000_000, 65536.0, 13112.0, 4, 2)
    return Bench("cpu", "a processor", 4, {}, "m.keras", "float32", "", 16, (256, 256), (), (stage,), whole, estimate)


def test_what_fits_into_a_night_is_one_job(measured: Bench) -> None:
    """Three and a half hours, and half as much again for the scheduler."""
    assert advice(measured) == [
        "1,000,000 images, 65,536 Mpx: about 3.6 h here",
        "ask Slurm for: --cpus-per-task=4 --mem=2G --time=05:28:00",
    ]


def test_what_does_not_is_divided(measured: Bench) -> None:
    """Into shares of a job array that each fit."""
    ten = replace(measured, device="gpu", estimate=replace(measured.estimate, images=10_000_000, seconds=131072.0))
    assert advice(ten)[1] == (
        "nucseg-batch plan IN OUT.zarr --shares 5, and then ask Slurm for: --array=0-4 --cpus-per-task=4 --mem=2G "
        "--time=10:56:00 --gres=gpu:1; in 5 shares 7.3 h each, if they run at once"
    )


def test_bench_tells_of_images_that_cannot_be_used(one_image: Path) -> None:
    """Their pixels are neither in the speed nor in the estimate, so it must be said."""
    (picture,) = one_image.iterdir()
    (one_image / "cut.png").write_bytes(picture.read_bytes()[:-60])
    found = call("bench", one_image, "--diameter", 22, "--batch-size", 2)
    assert "1 failed and are not counted" in found.stdout
    assert "the run took only" in found.stdout
    picture.unlink()
    call("bench", one_image, "--diameter", 22, "--batch-size", 2, code=65)


def test_the_network_and_the_run_are_compared_at_one_scale(one_image: Path, tmp_path: Path) -> None:
    """Else an enlarged image would look as if all but the network took most of the time."""
    result = tmp_path / "bench.json"
    found = call("bench", one_image, "--diameter", 13, "--batch-size", 2, "--json", result)
    assert json.loads(result.read_text())["whole"]["scale"] == 2
    assert "the network saw 4 times their pixels" in found.stdout


def test_bench_that_is_terminated_leaves_nothing_behind(one_image: Path, tmp_path: Path) -> None:
    """Schedulers and `timeout` end programs with TERM."""
    command = [*COMMAND, "bench", str(one_image), "--scratch", str(tmp_path / "scratch")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("scratch/*")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.terminate()
        errors = process.communicate()[1]
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert list((tmp_path / "scratch").iterdir()) == []


LIBRARY = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
except BaseException as error:
    raise ImportError("numpy._core.multiarray failed to import") from error
"""
"""What C extensions do with an exception of ours that comes while they are imported."""


@pytest.mark.parametrize("library", ["zarr", "keras"])
@pytest.mark.parametrize(("command", "code"), [("bench", 128 + signal.SIGTERM), ("segment", 75)])
def test_a_signal_while_a_library_is_imported_is_not_taken_for_a_broken_installation(
    one_image: Path, tmp_path: Path, command: str, code: int, library: str
) -> None:
    """These imports take seconds, so many signals come just then."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{library}.py").write_text(LIBRARY)
    (tmp_path / "out").mkdir()
    place = ["--scratch", tmp_path / "out"] if command == "bench" else [tmp_path / "out" / "out.zarr"]
    done = subprocess.run(
        [*COMMAND, command, one_image, *place],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == code, done.stderr
    assert "import" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []
