"""Runs in as many processes as suit the machine: the same bytes, whoever does what, and on which device."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from executors import worker_preload
from executors.test_cluster import COMMAND, SHAPES, digest, write_picture
from executors.worker_preload import QuickPredictor, told
from test_gpus import fake_driver

from nucseg_batch.cli.main import main
from nucseg_batch.executors import local, processes
from nucseg_batch.files.run.timings import read_timings

Segment = Callable[..., int]
LISTING = "GPU 0: NVIDIA H100 (UUID: GPU-aa)\nGPU 1: NVIDIA H100 (UUID: GPU-bb)\n"
TABLE = "0, GPU-aa, 81559\n1, GPU-bb, 81559\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven small images of three shapes, which are three units."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(7):
        write_picture(folder / f"{seed}.png", SHAPES[seed % 3], seed)
    return folder


@pytest.fixture
def segment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    """`segment` in this process, with a threshold in the place of the network here and in processes that it starts."""
    monkeypatch.setattr(local, "load_predictor", lambda job, units: QuickPredictor())

    def called(*arguments: object, **what: object) -> int:
        for name, value in told(quick=True, **what).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(["segment", *map(str, arguments)])
        return int(ended.value.code or 0)

    with dask.config.set({"distributed.worker.preload": [str(worker_preload.HERE)]}):  # read before variables were set
        yield called


def test_processes_need_no_cluster_option_and_shares_may_have_them(
    images: Path, segment: Segment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process, in two, and in two shares of which one has two: the same bytes."""
    one, two, shared = (tmp_path / f"{name}.zarr" for name in ("one", "two", "shared"))
    assert segment(images, one) == 0
    assert segment(images, two, "--processes", 2) == 0
    assert "float32 on cpu:0, 2 processes" in capsys.readouterr().err
    assert digest(two) == digest(one)
    times = read_timings(two)
    assert times is not None
    assert times.device.name == "a threshold"
    assert "2 processes: asked for" in (tmp_path / "two.run" / "log.txt").read_text()
    assert segment(images, shared, "--share", "1/2", "--processes", 2) == 0
    assert sorted(path.name for path in (tmp_path / "shared.run").glob("log-worker-*")) == []
    assert segment("--run", shared, "--share", 0, "--processes", 1) == 0
    planned = {"out.run/plan.json", "out.run/config.toml"}  # in which is how many shares there are
    both = digest(shared), digest(one)
    assert {name for name in both[1] if both[0].get(name) != both[1][name]} <= planned


def test_a_killed_process_costs_nothing_but_its_work(images: Path, segment: Segment, tmp_path: Path) -> None:
    """Without --cluster as with it."""
    once = tmp_path / "once"
    once.touch()
    assert segment(images, tmp_path / "one.zarr") == 0
    assert segment(images, tmp_path / "two.zarr", "--processes", 2, once=str(once)) == 0
    assert not once.exists(), "nobody died"
    assert digest(tmp_path / "two.zarr") == digest(tmp_path / "one.zarr")


def test_a_run_of_several_processes_that_are_all_killed_is_resumed_by_one(
    images: Path, segment: Segment, tmp_path: Path
) -> None:
    """As after a node has failed, in the middle of units; the bytes are those of one process."""
    store = tmp_path / "killed.zarr"
    with subprocess.Popen(
        [*COMMAND, str(images), str(store), "--processes", "2"],
        env=told(quick=True, hold=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        begun = store.with_suffix(".run") / "begun"
        while not (begun.is_dir() and any(begun.iterdir())):
            assert process.poll() is None
            threading.Event().wait(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert not list(tmp_path.glob("killed.*.csv"))
    assert segment(images, store) == 0
    assert segment(images, tmp_path / "one.zarr") == 0
    assert digest(store) == digest(tmp_path / "one.zarr")


def test_on_gpus_the_number_of_processes_is_chosen_and_each_is_told_its_part(
    images: Path, segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two GPUs and sixteen cores: two groups of two, with half of the memory each."""
    monkeypatch.setattr(QuickPredictor, "device", "gpu:0")
    monkeypatch.setattr(processes, "available_cores", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    fake_driver(tmp_path / "bin", monkeypatch, LISTING, TABLE)
    assert segment(images, tmp_path / "one.zarr", "--processes", 1) == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(processes, "WORTH_PIXELS", 1000)
    (tmp_path / "variables").mkdir()
    assert segment(images, tmp_path / "many.zarr", gpu=True, variables=str(tmp_path / "variables")) == 0
    assert digest(tmp_path / "many.zarr") == digest(tmp_path / "one.zarr")
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "variables").iterdir())]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["GPU-aa", "GPU-bb", "GPU-aa", "GPU-bb"]
    assert {one["OMP_NUM_THREADS"] for one in found} == {"4"}
    assert all(int(one["NUCSEG_GPU_MEMORY"].partition("/")[0]) < 81559 / 2 for one in found)


def test_a_gpu_that_cannot_be_used_leaves_the_work_to_this_process(
    images: Path, segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several processes on a processor would be slower; one line says why."""
    assert segment(images, tmp_path / "one.zarr") == 0
    capsys.readouterr()
    monkeypatch.setattr(processes, "available_cores", lambda: 16)
    monkeypatch.setattr(processes, "WORTH_PIXELS", 1000)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa")
    fake_driver(tmp_path / "bin", monkeypatch, LISTING, TABLE)
    assert segment(images, tmp_path / "two.zarr") == 0
    errors = capsys.readouterr().err.splitlines()
    assert len([line for line in errors if "NVIDIA H100 is not used" in line]) == 1
    assert any(line.startswith("computing in float32 on cpu:0,") for line in errors), errors
    assert digest(tmp_path / "two.zarr") == digest(tmp_path / "one.zarr")
    assert "1 process: the GPU cannot be used" in (tmp_path / "two.run" / "log.txt").read_text()
