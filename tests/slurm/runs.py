"""What tests on Slurm do again and again: a collection of images, runs of it, and catching a program at its work."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
from pictures import disks, fluorescence
from slurm.slurm_cluster import SlurmCluster

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPES = ((192, 224), (160, 128), (128, 250))
"""Of the images of a collection; each shape is a unit of its own."""
LARGE = (389, 523)
"""Of the plane that is done by regions."""
REGION = 256
"""Their side."""
OPTIONS = ("--region", REGION, "--diameter", 22)
"""Of every run; nuclei are 22 pixels wide."""


def collection(folder: Path) -> Path:
    """Two images of each shape and a large one: nine units, of which six belong to one plane."""
    folder.mkdir()
    for seed, shape in enumerate([*SHAPES, *SHAPES, LARGE]):
        rng = np.random.default_rng(seed)
        grid = [(y, x) for y in range(16, shape[0] - 12, 34) for x in range(16, shape[1] - 12, 34)]
        centres = [(y + int(rng.integers(-3, 4)), x + int(rng.integers(-3, 4))) for y, x in grid if rng.random() < 0.7]
        pixels = fluorescence(disks(shape, centres, 11), seed=seed)
        (folder / f"{seed:02d}_{shape[0]}x{shape[1]}.png").write_bytes(imagecodecs.png_encode(pixels))
    return folder


def program() -> dict[str, str]:
    """Environment in which `nucseg-batch` is the one under test, as a user's would have it."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin", "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*command: object, environment: dict[str, str] | None = None, code: int = 0) -> str:
    """Runs a command here, outside of Slurm, and returns all that it prints."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | program() | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def result(store: Path) -> dict[str, bytes]:
    """All that a run may not do otherwise, however it is done: the bytes of the store's files and of the tables."""
    paths = [path for path in sorted(store.rglob("*")) if path.is_file()]
    paths += sorted(store.parent.glob(f"{store.stem}.*.csv"))
    return {
        path.relative_to(store.parent).as_posix().replace(store.stem, "out", 1): path.read_bytes() for path in paths
    }


def assert_same(store: Path, reference: Path) -> None:
    """Two runs have the same files with the same bytes."""
    found, expected = result(store), result(reference)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []
    assert any(name.endswith(".nuclei.csv") and data.count(b"\n") > 100 for name, data in expected.items())


@contextmanager
def root_locked(store: Path) -> Iterator[None]:
    """Holds all programs at a run before their first image: they wait for its root lock, which the test has.

    A program that is held has the lock of its share, and hears signals. It works at any speed of the machine; but it
    is for runs that were planned and never segmented anything, since only these need the root lock before they begin.
    """
    path = store.with_suffix(".run") / "locks" / "root.lock"
    path.parent.mkdir(exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(pid: int) -> Iterator[None]:
    """Stops a process in its steps while the test does something to it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def program_of(slurm: SlurmCluster, job: str) -> int:
    """The process of nucseg-batch itself in a job, not the shell around it."""
    for pid in slurm.processes(job):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(word.endswith(b"/nucseg-batch") for word in words):
            return pid
    raise AssertionError(f"nucseg-batch does not run in {job}\n{slurm.report()}")
