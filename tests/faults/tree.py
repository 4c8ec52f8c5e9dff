"""What tests of kills and shares work with: the program with a quick network, a few images, trees compared whole."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import imagecodecs
import pytest
from pictures import disks, fluorescence

DRIVER = Path(__file__).parent / "driver.py"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, DRIVER.parents[1:3]))}
"""In which it finds what it shares with other tests."""
REGION = ("--region", "64")
"""With this the large picture of `pictures` is done by regions."""
SHARD_BYTES = 4800
"""Of units in the driver: two of the small pictures."""
KILLED = -9
"""How a process ends that was killed."""
SECONDS = 200.0
"""Longer than anything here takes, also where other work runs on the machine."""
slow = (
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("NUCSEG_SLOW"), reason="takes minutes: set NUCSEG_SLOW=1"),
)
"""Marks of tests that are not for every push."""


class Run:
    """A command that was started."""

    def __init__(self, driver: Driver, pid: int, folder: Path) -> None:
        self.pid = pid
        self._driver = driver
        self._folder = folder

    def wait(self, code: int | None = 0) -> Run:
        """Waits for its end, which must be with this code; negative for a signal, None for any."""
        found = self._driver.ask({"wait": self.pid})["code"]
        self.code: int = found
        assert "Traceback" not in self.errors, self.errors
        assert code in (None, found), f"ended with {found}, not {code}: {self.output}{self.errors}"
        return self

    @property
    def output(self) -> str:
        """What it printed."""
        return self._text("output")

    @property
    def errors(self) -> str:
        """What it printed to stderr."""
        return self._text("errors")

    @property
    def segmented(self) -> int:
        """Images and regions that the network was shown."""
        return len(self._text("segmented"))

    @property
    def calls(self) -> list[str]:
        """The calls with which files appear, reach the disk and go, where they were traced."""
        return self._text("trace").splitlines()

    def _text(self, name: str) -> str:
        path = self._folder / name
        return path.read_text() if path.exists() else ""

    def is_paused(self) -> Run:
        """Waits until it pauses."""
        wait_for(lambda: (self._folder / "paused").exists(), f"never paused, see {self._folder}")
        return self

    def is_stopping(self) -> Run:
        """Waits until it has said that it was asked to stop, which it says while the network is at work."""
        wait_for(lambda: "stopping: " in self.errors, f"never said that it stops, see {self._folder}")
        return self

    def go_on(self) -> None:
        """Ends its pause."""
        (self._folder / "paused").unlink()


class Driver:
    """A process that runs commands in forked children of its own, with faults; see driver.py."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, str(DRIVER), "serve"],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()

    def start(
        self, *arguments: object, environment: Mapping[str, str] | None = None, files: int = 0, **faults: Any
    ) -> Run:
        """Starts a command with `driver.Faults`; trace=True writes down its calls; files: how many it may have open."""
        self._count += 1
        folder = self._folder / f"{self._count:05d}"
        folder.mkdir(parents=True)
        faults["segmented"] = str(folder / "segmented")
        if faults.pop("trace", False):
            faults["trace"] = str(folder / "trace")
        if "pause" in faults:
            faults["paused"] = str(folder / "paused")
        answer = self.ask(
            {
                "arguments": [str(argument) for argument in arguments],
                "faults": faults,
                "environment": dict(environment or {}),
                "files": files,
                "output": str(folder / "output"),
                "errors": str(folder / "errors"),
            }
        )
        return Run(self, answer["pid"], folder)

    def run(self, *arguments: object, code: int | None = 0, **faults: Any) -> Run:
        """Runs a command to its end."""
        return self.start(*arguments, **faults).wait(code)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def wait_for(condition: Any, otherwise: str) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.005)


def pictures(folder: Path) -> Path:
    """Eight files: images of several shapes, one without nuclei, one for regions, one cut short, one that is none."""
    folder.mkdir(parents=True)
    for number in range(3):
        write_picture(folder / f"{number}.png", (20, 30), seed=number)
    content = write_picture(folder / "cut.png", (20, 30), seed=8).read_bytes()
    (folder / "cut.png").write_bytes(content[:-40])
    write_picture(folder / "b.png", (22, 31), seed=4)
    (folder / "dark.png").write_bytes(imagecodecs.png_encode(fluorescence(disks((24, 26), [], 4), seed=5)))
    write_picture(folder / "large.png", (130, 100), seed=6)
    (folder / "text.png").write_text("this is no picture")
    return folder


def write_picture(path: Path, shape: tuple[int, int], seed: int = 0) -> Path:
    """A picture of nuclei about ten pixels wide, some of them across the borders of regions."""
    centres = [(y, x) for y in range(8, shape[0] - 4, 14) for x in range(8 + seed % 3, shape[1] - 4, 14)]
    path.write_bytes(imagecodecs.png_encode(fluorescence(disks(shape, centres, 4), seed=seed)))
    return path


def tree(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a run and "folder" for every folder, by name; of run folders what has no clock in it.

    Locks count where they name a holder. The place itself, which is in the plan where labels are written in place,
    counts as any other.
    """
    run, here = store.with_suffix(".run"), str(store.absolute()).encode()
    found = [*store.parent.glob(f"{store.stem}.*"), *store.parent.glob(f".{store.stem}.*")]
    found += [path for top in (store, run, store.with_suffix(".nuclei.parquet")) for path in top.rglob("*")]
    return {
        str(path.relative_to(store.parent)).removeprefix(store.stem): (
            "folder" if path.is_dir() else hashlib.sha256(path.read_bytes().replace(here, b"OUT")).hexdigest()
        )
        for path in found
        if not (path.parent == run and path.name.startswith("log"))
        and {"timings", "verified"}.isdisjoint(path.relative_to(store.parent).parts)
        and not (path.parent.name == "locks" and path.stat().st_size == 0)
    }


def differences(store: Path, reference: Mapping[str, str]) -> list[str]:
    """Names of what is not as it should be."""
    now = tree(store)
    return sorted(name for name in now.keys() | reference.keys() if now.get(name) != reference.get(name))


def planes_done(store: Path) -> set[str]:
    """Images and regions with a mask, and what they were made from, of units that are committed."""
    units = store.with_suffix(".run") / "units"
    done = set()
    for path in sorted(units.glob("[!.]*.json")):
        marker = json.loads(path.read_text())
        for number, (plane, seen) in enumerate(zip(marker["planes"], marker["seen"], strict=True)):
            if "nuclei" in plane:
                done.add(f"{path.stem} {number} {seen}")
    return done
