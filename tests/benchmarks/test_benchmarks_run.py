"""Each benchmark runs to its end on a few small images; its figures are for quiet machines."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import pytest
from command import Output
from pictures import annotated_folder, disks, fluorescence

from nucseg_batch.columns import OPTIONAL_GROUPS
from nucseg_batch.training.targets import PIXELS_A_NUCLEUS

HERE = Path(__file__).parent
PEER = os.environ.get("NUCSEG_STARDIST_PYTHON", sys.executable if importlib.util.find_spec("stardist") else "")
"""Python of an environment with StarDist."""
FIGURES = {"Mpx/s", "Mpx/s whole", "seconds", "CPU seconds", "peak MB", "nuclei"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pictures of 64x64 pixels."""
    folder = tmp_path_factory.mktemp("source")
    for number, centres in enumerate(([(20, 20), (44, 40)], [(30, 40)])):
        picture = fluorescence(disks((64, 64), centres, 10), seed=number)
        (folder / f"{number}.png").write_bytes(imagecodecs.png_encode(picture))
    return folder


def run(script: str, source: Path, *arguments: object, python: str = sys.executable) -> tuple[dict[str, Any], str]:
    """What a benchmark wrote as JSON and printed."""
    record = source / f"{script}.json"
    words = [python, HERE / script, source, "--json", record, "--repeat", 1, *arguments]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(record.read_text()), done.stdout


def test_end_to_end_is_compared_with_the_forward_pass_of_the_same_batch(source: Path) -> None:
    """The share of the bare forward pass is the figure that the project is held to; a store is a source like files."""
    options = ["--source-kind", "zarr", "--side", 64, "--images", 3, "--batch-size", 2, "--forward-seconds", 0.1]
    record, printed = run("end_to_end.py", source, *options)
    (row,) = record["table"]
    assert row.keys() >= FIGURES | {"forward", "of forward", "whole of forward", "CPU for forward"}
    assert (row["kind"], row["images"]) == ("zarr", 3)
    assert row["nuclei"] == 5
    rounded = 0.002 + 0.005 / row["forward"]  # speeds have two digits behind the point
    shares = pytest.approx(row["Mpx/s"] / row["forward"], rel=0.05, abs=rounded)
    assert row["of forward"] == shares
    assert (record["forward"]["batch"], record["forward"]["shape"]) == (2, [64, 64])
    assert record["machine"].keys() >= {"processor", "cores", "load before and after", "versions", "commit"}
    assert "of forward" in printed


def test_a_large_plane_is_made_and_segmented(source: Path) -> None:
    """A plane of several regions, with the memory it took."""
    options = ["--side", 200, "--chunk", 100, "--tile", 64, "--options", "--region", 96]
    record, _ = run("large_zarr.py", source, *options)
    (row,) = record["table"]
    assert row.keys() >= FIGURES | {"side", "files in store", "files in run folder"}
    assert row["nuclei"] > 6


@pytest.mark.parametrize("empty", [(), ("--empty", "--every", 3)], ids=["full", "empty"])
def test_lazy_labels_are_compared_with_a_run(source: Path, empty: tuple[object, ...]) -> None:
    """Dense labels must be the same; a plane that is mostly dark is written in bands."""
    options = ["--side", 200, "--chunk", 100, "--tile", 64, "--diameter", 20, *empty]
    record, printed = run("arrays.py", source, *options)
    assert [row["kind"] for row in record["table"]] == ["segment", "zarr", "dask", "dense"]
    assert all(row["by segment"] > 0 for row in record["table"][1:])
    assert record["reading"] > 0
    assert "reading through dask" in printed


def test_blocks_of_a_stack_are_compared_and_have_the_same_labels(source: Path) -> None:
    """The first kind is what others are compared with."""
    record, _ = run("stack_blocks.py", source, "--side", 64, "--planes", 3, "--blocks", 3, 1, "--diameter", 20)
    assert [row["planes in a block"] for row in record["table"]] == [3, 1]
    assert record["table"][0]["CPU by first"] == 1
    assert all(row["CPU seconds"] > 0 for row in record["table"])


def test_the_default_command_is_compared_with_runs_that_are_told_the_size(source: Path) -> None:
    """The third way gets the scales that the first has chosen, so both find the same nuclei."""
    record, _ = run("default_command.py", source, "--kinds", "mixed", "--copies", 2)
    rows = {row["way"]: row for row in record["table"]}
    assert list(rows) == ["default", "tuned", "given"]
    assert rows["default"]["nuclei"] == rows["given"]["nuclei"] > 0
    assert rows["default"]["default by this"] == 1


def test_the_cost_of_an_image_is_told_without_the_start(source: Path) -> None:
    """Files are counted apart, because each kind has its own limit on a cluster's disk."""
    options = ["--images", 3, "--side", 48, "--start-up-images", 1]
    record, printed = run("scaling.py", source, *options)
    (row,) = record["table"]
    assert row.keys() >= {
        "s/1000",
        "CPU s/1000",
        "peak MB",
        "files: store/1000",
        "files: run/1000",
        "files: tables/1000",
    }
    assert row["files: tables/1000"] == 1000.0
    assert record["last by first"].keys() == {"s/1000", "CPU s/1000", "peak MB"}
    assert "3 images against 3" in printed


def test_the_device_program_is_compared_with_the_ceilings_of_the_device(source: Path) -> None:
    """The benchmark of a GPU is written where there is none and used where there is one, so it must work on both."""
    options = ["--device", "cpu", "--side", 64, "--only", "device", "--batches", 2, "--seconds", 0.05]
    record, _ = run("gpu.py", source, *options, "--batch-size", 2)
    assert [one["batch"] for one in record["program"]["batches"]] == [2]
    assert record["program"]["FLOP per pixel"] > 10_000
    assert record["shares"].keys() >= {"share of arithmetic", "share of memory", "matmul TFLOP/s", "copy GB/s"}


def test_runs_on_a_device_are_told_with_first_result_and_compiling(source: Path) -> None:
    """Two runs of the mixed folder, and a plate."""
    options = ["--device", "cpu", "--side", 64, "--images", 3, "--copies", 2, "--processes", 0, "--batch-size", 2]
    record, printed = run("gpu.py", source, *options, "--only", "mixed", "plate")
    rows = {row["step"]: row for row in record["table"]}
    assert list(rows) == ["mixed, first", "mixed, again", "plate 0"]
    assert rows["plate 0"].keys() >= FIGURES | {"steady", "idle", "busy", "first s", "programs", "compile s"}
    assert all(0 < row["first s"] < row["seconds"] for row in rows.values())
    assert all(row["programs"] > 0 and row["processes"] == 1 for row in rows.values())
    assert record["skipped"] == []
    assert "compile s" in printed


def test_steps_without_time_are_named(source: Path) -> None:
    """A machine that is lent by the minute must give its figures before it is gone."""
    record, printed = run("gpu.py", source, "--side", 64, "--minutes", 0)
    assert record["skipped"][0] == "device"
    assert "agreement" in record["skipped"]
    assert "skipped" in printed


def test_the_cost_of_each_stage_on_the_host_is_measured(source: Path) -> None:
    """With a predictor that knows the labels; the stream finds as many nuclei as the stages measure."""
    options = ["--side", 64, 96, "--tile", 64, "--images", 1, "--units", 1, "--source-kind", "png", "zarr"]
    record, printed = run("host.py", source, *options)
    assert set(record["stages"]) == {"64x64 png", "64x64 zarr", "96x96 png", "96x96 zarr"}
    rows = {row["stage"]: row["ms"] for row in record["stages"]["64x64 png"]}
    assert rows.keys() >= {"read", "sha256", "range", "measure, confidence", "write the shard"}
    assert rows["sum"] == pytest.approx(
        sum(ms for name, ms in rows.items() if name[0] != "(" and name != "sum"), abs=0.1
    )
    assert all(row["Mpx/s"] > 0 for row in record["streams"])
    assert "ms a Mpx" in printed


@pytest.mark.skipif(not PEER, reason="needs StarDist: NUCSEG_STARDIST_PYTHON, the Python of an environment with it")
def test_the_comparison_with_stardist_runs(source: Path) -> None:
    """Both programs get the same files; with random weights that is said."""
    options = ["--nucseg-python", sys.executable, "--images", 2, "--nucseg-images", 2, "--side", 64, "--batches", 1]
    small = ["--forward-sides", 64, "--forward-images", 1, "--weights", "random"]
    record, printed = run("peer_stardist.py", source, *options, *small, python=PEER)
    assert len(record["table"]) == 6
    assert record["weights"] == "random"
    assert "random weights" in printed


def test_what_confidence_is_worth_is_measured_on_a_run_with_its_truth(segmented: Output, tmp_path: Path) -> None:
    """A run against its own masks: every nucleus is right, whatever its confidence, and counted once."""
    record = tmp_path / "confidence.json"
    words = [sys.executable, HERE / "confidence.py", segmented.store, segmented.store, "--json", record]
    subprocess.run([str(word) for word in words], capture_output=True, timeout=240, check=True)
    found = json.loads(record.read_text())
    assert found["images"]["all"]["images"] == 5
    assert found["nuclei"]["right"] == 1
    rows = len(segmented.store.with_suffix(".nuclei.csv").read_text().splitlines()) - 1
    assert sum(one["nuclei"] for one in found["nuclei"]["by"].values()) == found["nuclei"]["nuclei"] == rows


def test_estimated_widths_are_compared_with_annotated_ones(tmp_path: Path) -> None:
    """At each size that is asked for, but where nuclei would be too narrow to count."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number, centres in enumerate(([(40, 40), (90, 80), (40, 120)], [(60, 90), (100, 30)])):
        labels = disks((128, 160), centres, 9)
        (tmp_path / "images" / f"{number}.png").write_bytes(imagecodecs.png_encode(fluorescence(labels, seed=number)))
        (tmp_path / "labels" / f"{number}.png").write_bytes(imagecodecs.png_encode(labels.astype("uint16")))
    (tmp_path / "index.csv").write_text("id,split,modality\n0,train,fluorescence\n1,val,fluorescence\n")
    record = tmp_path / "sizes.json"
    words = [sys.executable, HERE / "sizes.py", tmp_path, "--factors", "0.1", "1", "2", "--json", record]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(record.read_text())
    assert sorted((one["image"], one["factor"]) for one in found["images"]) == [
        ("images/1.png", 1.0),
        ("images/1.png", 2.0),
    ]
    assert [one["truth"] / one["factor"] for one in found["images"]] == pytest.approx([18, 18], rel=0.05)
    assert found["table"][0]["within 25 %"] == 1.0
    assert found["cost"] > 0


def test_what_each_group_of_columns_costs_is_measured(tmp_path: Path) -> None:
    """On a plane that takes no time; the figures of a small one mean nothing."""
    words = [
        sys.executable,
        HERE / "columns.py",
        "--side",
        97,
        "--nuclei",
        9,
        "--repeat",
        1,
        "--json",
        tmp_path / "c.json",
    ]
    subprocess.run([str(word) for word in words], capture_output=True, timeout=240, check=True)
    speeds = json.loads((tmp_path / "c.json").read_text())["Mpx/s"]
    assert {"default columns", "rings with columns", *OPTIONAL_GROUPS} <= speeds.keys()


def test_the_error_of_flat_fields_is_that_of_simulated_images(tmp_path: Path) -> None:
    """The estimate is far better than none; the simulation does not depend on the machine."""
    record = tmp_path / "record.json"
    words = [sys.executable, HERE / "flat_field.py", "--only", "few", "--json", record]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    none, own = json.loads(record.read_text())
    assert (none["by"], own["by"], own["scene"]) == ("none", "own", "few")
    assert none["rms"] > 0.15
    assert own["rms"] < 0.01


@pytest.mark.parametrize("options", [("--depth", "4"), ("--segment", "--depth", "3", "--side", "128")])
def test_volumes_are_scored_against_the_truth(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Of slices that are simulated, and of those that the default model segments."""
    record = tmp_path / "volumes.json"
    command = [sys.executable, HERE / "volumes.py", "--json", record, *options]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(record.read_text())
    assert len(rows) == (1 if "--segment" in options else 32)
    assert all(0 < row["F1"] <= 1 and 0 < row["AP@.5"] <= 1 for row in rows)


def test_tracks_are_scored_against_the_truth(tmp_path: Path) -> None:
    """Of movies with and without errors of segmentation."""
    pytest.importorskip("laptrack")
    pytest.importorskip("ctc_metrics")
    record = tmp_path / "tracks.json"
    command = [sys.executable, HERE / "tracks.py", "--json", record, "--frames", "5", "--nuclei", "9"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(record.read_text())
    assert len(rows) == 9
    assert all(row["Valid"] == 1 and 0.5 < row["TRA"] <= 1 for row in rows)


def test_training_input_counts_crops_and_their_bytes(tmp_path: Path) -> None:
    """int16 pixels, labels, cover, and the table of nuclei."""
    record, printed = run("training_input.py", annotated_folder(tmp_path / "data", 2), "--batches", 1)
    assert record["bytes a crop"] == 256 * 256 * (3 * 2 + 2 + 1) + 12 * (256 * 256 // PIXELS_A_NUCLEUS + 1)
    assert (record["images"], record["crops a second"] > 0) == (2, True)
    assert "crops a second" in printed
