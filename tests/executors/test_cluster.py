"""Runs by processes of a real dask cluster: the same bytes as one process, whoever dies or is stopped on the way."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from executors.worker_preload import QuickPredictor, told
from pictures import disks, fluorescence

from nucseg_batch.cli.main import main
from nucseg_batch.errors import DeviceError, InputMissingError, NucsegError, OutputError, UsageError
from nucseg_batch.executors import dask_pool, local, worker
from nucseg_batch.executors.dask_pool import ClusterSettings
from nucseg_batch.executors.worker import TaskContext
from nucseg_batch.executors.worker_state import AttemptsInFlight, Gate
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.pipeline.stream import IN_FLIGHT

COMMAND = [sys.executable, "-m", "nucseg_batch", "segment"]
TWO = ("--cluster", "local", "--processes", "2")
SHAPES = ((96, 112), (112, 96), (128, 128))
IN_HAND = IN_FLIGHT + 2
"""Most one-image units that a process has in flight: those on the device, one waiting, and one being filled."""
DEADLY = 251
"""The largest value of an image that kills processes; other images have none that is so large."""


def segment(*arguments: object, code: int = 0, environment: dict[str, str] | None = None) -> str:
    """Runs the program in a process of its own and returns what it told on stderr."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def noise(errors: str) -> int:
    """Lines that were told, but for those that say how far it is."""
    return sum(not re.match(r"\d+ of \d+ (images|planes)", line) for line in errors.splitlines())


def digest(store: Path) -> dict[str, str]:
    """Hashes of all that a run left, but logs, timings and locks."""
    run_folder = store.with_suffix(".run")
    files = [path for path in store.rglob("*") if path.is_file()]
    files += store.parent.glob(f"{store.stem}.*.csv")
    files += [path for path in run_folder.rglob("*") if path.is_file() and path.suffix not in (".txt", ".lock")]
    files = [path for path in files if path.parent.name != "timings"]
    return {
        str(path.relative_to(store.parent)).replace(store.stem, "out", 1): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def rows(store: Path, table: str) -> list[dict[str, str]]:
    with open(store.with_suffix(f".{table}.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_picture(path: Path, shape: tuple[int, int], seed: int) -> None:
    labels = disks(shape, [(22, 25), (60, 60), (70, 20), (25, 80)], 11)
    path.write_bytes(imagecodecs.png_encode(np.minimum(fluorescence(labels, seed=seed), DEADLY - 1)))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven small images of three shapes, which are three units, one of them with a damaged file."""
    folder = tmp_path_factory.mktemp("cluster") / "in"
    folder.mkdir()
    for seed in range(7):
        write_picture(folder / f"{seed}.png", SHAPES[seed % 3], seed)
    damaged = folder / "6.png"
    damaged.write_bytes(damaged.read_bytes()[:-300])
    return folder


@pytest.fixture(scope="module")
def quick_reference(images: Path) -> Path:
    """What one process makes of them with the quick segmenter."""
    store = images.parent / "quick.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load_predictor", lambda job, units: QuickPredictor())
        with pytest.raises(SystemExit) as ended:
            main(["segment", str(images), str(store)])
    assert ended.value.code == 3
    return store


def test_two_processes_of_which_one_is_killed_write_the_bytes_of_one(images: Path, tmp_path: Path) -> None:
    """The network itself, whole planes, regions and a stack; dask hands the units of the dead to the living."""
    folder = tmp_path / "in"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).hardlink_to(path)
    write_picture(folder / "large.png", (150, 210), 9)
    labels = disks((96, 112), [(22, 25), (60, 60), (70, 20), (25, 80)], 11)
    stack = np.stack([np.minimum(fluorescence(labels, seed=seed), DEADLY - 1) for seed in range(3)])
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    options = ("--region", "128", "--diameter", "26", "--link", "z")
    with pytest.raises(SystemExit) as ended:
        main(["segment", str(folder), str(tmp_path / "one.zarr"), *options])
    assert ended.value.code == 3
    once = tmp_path / "once"
    once.touch()
    errors = segment(folder, tmp_path / "two.zarr", *options, *TWO, code=3, environment=told(once=str(once)))
    assert not once.exists(), "nobody died"
    assert digest(tmp_path / "two.zarr") == digest(tmp_path / "one.zarr")
    assert {int(row["slices"]) for row in rows(tmp_path / "two.zarr", "volumes")} == {3}
    assert "Restarting worker" in (tmp_path / "two.run" / "log.txt").read_text()
    assert noise(errors) < 8, errors
    assert [row["image"] for row in rows(tmp_path / "two.zarr", "failures")] == ["6.png"]


def test_workers_segment_images_that_were_added(images: Path, tmp_path: Path) -> None:
    """They know the run by all of its plans; what they leave is what one process leaves."""
    folder = tmp_path / "in"
    folder.mkdir()
    stores = tmp_path / "one.zarr", tmp_path / "two.zarr"
    for names in (("0.png", "1.png", "2.png"), ("3.png", "4.png", "5.png")):
        for name in names:
            (folder / name).hardlink_to(images / name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(local, "load_predictor", lambda job, units: QuickPredictor())
            with pytest.raises(SystemExit) as ended:
                main(["segment", str(folder), str(stores[0])])
        assert not ended.value.code
        errors = segment(folder, stores[1], *TWO, environment=told(quick=True))
    assert "3 images (3.png, ...): new; added to the run" in errors
    assert (tmp_path / "two.run" / "plan-000001.json").exists()
    assert digest(stores[1]) == digest(stores[0])


def test_an_image_that_kills_every_process_is_found_and_left_out(images: Path, quick_reference: Path) -> None:
    """Whatever else was in hand with it must not be blamed, and all of it must be done."""
    folder = images.parent / "deadly"
    folder.mkdir()
    for path in images.iterdir():
        (folder / path.name).hardlink_to(path)
    content = np.minimum(fluorescence(disks(SHAPES[0], [(40, 40)], 12)), DEADLY - 1)
    content[0, 0] = DEADLY
    (folder / "3a.png").write_bytes(imagecodecs.png_encode(content))
    store = images.parent / "deadly.zarr"
    errors = segment(folder, store, *TWO, code=3, environment=told(quick=True, deadly=DEADLY))
    assert [(row["image"], row["error"]) for row in rows(store, "failures")] == [
        ("3a.png", "KilledWorker"),
        ("6.png", rows(quick_reference, "failures")[0]["error"]),
    ]
    expected = {row["image"]: row["nuclei"] for row in rows(quick_reference, "images")}
    assert {row["image"]: row["nuclei"] for row in rows(store, "images") if row["image"] != "3a.png"} == expected
    kept = [row for row in rows(store, "nuclei") if row["image"] != "3a.png"]
    assert kept == rows(quick_reference, "nuclei")
    assert not (store.with_suffix(".run") / "begun").exists()
    assert noise(errors) < 8, errors


def test_a_stop_of_the_whole_group_finishes_what_is_in_hand_and_blames_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Slurm signals every process of a job; the same command then does the rest."""
    images, store = tmp_path / "in", tmp_path / "stopped.zarr"
    images.mkdir()
    for seed in range(6):
        write_picture(images / f"{seed}.png", (400, 700 + 32 * seed), seed)
    process = subprocess.Popen(
        [*COMMAND, str(images), str(store), "--cluster", "local", "--processes", "1", "--grace", "240"],
        env=told(quick=True, hold=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        begun = store.with_suffix(".run") / "begun"
        while not (begun.is_dir() and any(begun.iterdir())):
            assert process.poll() is None, process.communicate()
            threading.Event().wait(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stderr is not None
        with process.stderr as told_by_it:
            lines = list(told_by_it)
        assert process.wait(timeout=100) == 75, lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert lines[-1] == "nucseg-batch: stopped; run the same command again to resume.\n"
    assert any(line.startswith("stopping") for line in lines), lines
    assert len(lines) < 10, lines
    units = list((store.with_suffix(".run") / "units").glob("*.json"))
    assert 1 <= len(units) <= IN_HAND, "units in flight are finished, and no others"
    assert list(begun.iterdir()) == []
    monkeypatch.setattr(local, "load_predictor", lambda job, units: QuickPredictor())
    for arguments in (["--run", str(store)], [str(images), str(tmp_path / "one.zarr")]):
        with pytest.raises(SystemExit) as ended:
            main(["segment", *arguments])
        assert ended.value.code == 0
    assert digest(store) == digest(tmp_path / "one.zarr")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of somebody's dask cluster with one worker without a nanny, and where its worker logs."""
    place, log = tmp_path / "scheduler.json", tmp_path / "worker.txt"
    common = ["--scheduler-file", str(place)]
    dask = [sys.executable, "-m", "distributed.cli."]
    with open(log, "w") as file:
        processes = [
            subprocess.Popen(
                [*dask[:-1], f"{dask[-1]}{program}", *common, *more],
                env=told(quick=True),
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
            for program, more in (
                ("dask_scheduler", ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]),
                ("dask_worker", ["--host", "127.0.0.1", "--nthreads", "2", "--no-nanny", "--no-dashboard"]),
            )
        ]
    try:
        while not place.exists():
            assert processes[0].poll() is None, log.read_text()
            threading.Event().wait(0.02)
        address = None
        while address is None:
            with suppress(ValueError):
                address = json.loads(place.read_text())["address"]
        yield address, log
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_workers_of_a_cluster_that_is_there_already_do_a_run(
    scheduler: tuple[str, Path], images: Path, quick_reference: Path
) -> None:
    """And they are there for others afterwards."""
    address, log = scheduler
    for name in ("theirs", "again"):
        store = images.parent / f"{name}.zarr"
        errors = segment(images, store, "--scheduler", address, code=3, environment=told())
        assert digest(store) == digest(quick_reference)
        assert noise(errors) < 8, errors
    assert "Traceback" not in log.read_text()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, code: int) -> str:
    """The one line with which the program refuses something."""
    with pytest.raises(SystemExit) as ended:
        main(["segment", *map(str, arguments)])
    errors = capsys.readouterr().err
    assert ended.value.code == code, errors
    (line,) = errors.splitlines()
    return line


def test_a_scheduler_that_does_not_answer_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path
) -> None:
    """Nothing is left behind, so the same command may be tried again."""
    monkeypatch.setattr(dask_pool, "CONNECT_SECONDS", 0.5)
    line = refusal(capsys, images, tmp_path / "out.zarr", "--scheduler", "tcp://127.0.0.1:9", code=69)
    assert line.startswith("nucseg-batch: --scheduler tcp://127.0.0.1:9: ")
    assert list(tmp_path.iterdir()) == []


def test_without_dask_jobqueue_it_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path
) -> None:
    """It is an extra, which most users do not need."""
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    line = refusal(capsys, images, tmp_path / "out.zarr", "--cluster", "slurm", code=2)
    assert line == "nucseg-batch: --cluster slurm needs dask-jobqueue: pip install 'nucseg-batch[hpc]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scheduler": "tcp://a:1", "cluster": "local"},
        {"cluster": "slurm", "processes": 2},
        {"cluster": "local", "jobs": 2},
        {"scheduler": "tcp://a:1", "job_options": ("-p x",)},
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    """An option that has no effect is a misunderstanding."""
    with pytest.raises(UsageError):
        ClusterSettings(**options)


def test_a_share_is_not_for_a_cluster(capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path) -> None:
    """They are two ways to divide a run."""
    line = refusal(capsys, images, tmp_path / "out.zarr", "--share", "0/2", "--cluster", "local", code=2)
    assert "--share" in line


def test_a_worker_that_does_not_see_the_run_says_so(
    monkeypatch: pytest.MonkeyPatch, images: Path, quick_reference: Path, tmp_path: Path
) -> None:
    """Workers on machines without the shared disk are the most common mistake."""
    monkeypatch.setattr(worker, "SEEN_SECONDS", 0.0)
    store = quick_reference.absolute()
    plan = (Journal(store).folder / "plan.json").read_bytes()
    same = hashlib.sha256(plan).hexdigest()

    def error_of(assignment: TaskContext) -> Exception | None:
        return worker.freeze_run_parameters(assignment, {}).error

    assert "does not see it" in str(error_of(TaskContext("a", str(tmp_path / "none.zarr"), same, ())))
    assert "sees another one" in str(error_of(TaskContext("b", str(store), "0" * 64, ())))
    images.rename(images.parent / "away")
    try:
        assert isinstance(error_of(TaskContext("c", str(store), same, ())), InputMissingError)
    finally:
        (images.parent / "away").rename(images)


def test_errors_that_cannot_be_sent_are_told_all_the_same() -> None:
    """Decoders and backends have errors of their own making."""

    class Awkward(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    for error in (OutputError("a"), OSError(28, "No space left"), DeviceError("b")):
        sent = worker._portable(error)
        assert type(sent) is type(error)
        assert str(sent) == str(error)
    assert str(worker._portable(Awkward(1, 2))) == "Awkward: 1 and 2"
    assert not isinstance(worker._portable(Awkward(1, 2)), NucsegError)


def test_what_is_alone_in_the_gate_is_alone() -> None:
    """Else a process that dies would not show of what."""
    gate, order = Gate(), []
    inside = threading.Event()
    leave = threading.Event()

    def together() -> None:
        with gate.shared():
            inside.set()
            leave.wait(10)
            order.append("shared")

    def alone() -> None:
        with gate.alone():
            order.append("alone")

    def late() -> None:
        with gate.shared():
            order.append("late")

    threads = [threading.Thread(target=together), threading.Thread(target=alone), threading.Thread(target=late)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    while not gate._wanting:
        threading.Event().wait(0.001)
    threads[2].start()
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["shared", "alone", "late"]


def test_a_process_that_ends_in_good_order_forgets_its_tries(quick_reference: Path, tmp_path: Path) -> None:
    """A preempted worker must not make its images suspicious."""
    units = list(Journal(quick_reference).load().plan.units())
    tries = AttemptsInFlight(tmp_path)
    tries.begin(units[0])
    tries.begin(units[1])
    tries.end(units[1])
    assert tries.begun() == {units[0].name}
    tries.forget()
    tries.begin(units[2])
    tries.begin_plane(units[2], 0)
    assert tries.begun() == set()


def test_jobs_get_the_users_options_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that they overrule what dask's configuration, or we, say."""
    made: list[dict[str, Any]] = []

    class Refused(Exception):
        pass

    def record(**options: Any) -> None:
        made.append(options)
        raise Refused("Command exited\nstdout:\n\nstderr:\nsbatch: error: invalid partition\n")

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=record))
    settings = ClusterSettings(cluster="slurm", jobs=3, job_options=("--gres=gpu:1", "--mem=32G"))
    opened: Callable[[], Any] = lambda: dask_pool.open_pool(  # noqa: E731
        settings, "t", tmp_path, device="auto", tell=print, log=print
    )
    with pytest.raises(DeviceError, match="--cluster slurm: sbatch: error: invalid partition"), opened():
        pass
    (options,) = made
    assert options["job_extra_directives"][-2:] == ["--gres=gpu:1", "--mem=32G"]
    assert options["job_extra_directives"][0] == f'--output="{tmp_path}/log-worker-%j.txt"'
    assert (options["cores"], options["memory"]) == (4, "16GiB")
