"""The program itself with a network that takes no time, and with faults at chosen moments.

A sweep of kills needs hundreds of runs, and each would spend seconds on loading TensorFlow. So the network is replaced
by a threshold: all else, from the command line to the last rename, is the real code in a process of its own. Sizes are
made small, so that a few images are many units, and a plane of a hundred pixels has regions and smaller levels.

`python driver.py serve` imports everything once and then runs each command that it is sent in a forked child: requests
and answers are lines of JSON, see `Driver` in tree.py. `python driver.py run FAULTS ARGUMENTS...` runs one command, for
tools that watch a process from its start. Faults come with the request; the product knows nothing of them.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import itertools
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
from doubles import Threshold
from numpy.typing import NDArray

from nucseg_batch.cli import finish, plan, printed, progress, shares, status  # noqa: F401 - imported before forking
from nucseg_batch.cli import main as cli
from nucseg_batch.executors import finishing, job, local, planning, stop, verification  # noqa: F401 - likewise
from nucseg_batch.files.masks import pyramid
from nucseg_batch.files.run import dataset
from nucseg_batch.plan import budget, units

WARM = (imagecodecs.png_decode, imagecodecs.zstd_encode, dataset.pyarrow("Parquet"))
"""Named here so that they are loaded before forking."""
BATCH = 2
"""Images in a batch."""
MARGIN = 24
"""Pixels around a region in which nuclei are labelled; more than a nucleus is wide."""
CALLS = ("replace", "rename", "fsync", "unlink")
"""Calls of the operating system with which files appear, reach the disk and go."""
PATIENCE = 250.0
"""Seconds that a paused run waits at most; nobody waits for it longer than `tree.SECONDS`."""


@dataclass(frozen=True)
class Faults:
    """What is to go wrong."""

    kill: int | None = None
    """Before the call of this number, counted from 1, of CALLS it gets a signal; an unlink counts only where there is a
    file."""
    signal: int = signal.SIGKILL
    """This signal."""
    trace: str = ""
    """A file that gets a line for each of these calls."""
    segmented: str = ""
    """A file that gets a character for each image or region that is segmented."""
    pause: int | None = None
    """Waits before this call of the network, counted from 1, while the file `paused` is there, which it makes."""
    paused: str = ""
    """This file."""
    locks: bool = True
    """Whether the file system has locks."""
    sync: bool = False
    """Whether files are really brought to the disk, of which the death of a process asks nothing."""
    slow: float = 0.0
    """Seconds that each call of the network takes."""
    large_units: bool = False
    """Whether units and what is read ahead are as large as they really are."""
    mutant: str = ""
    """A mistake that is made, of mutants.py."""


class Faulty(Threshold):
    """A segmenter that tells what it was shown, and takes its time where that is asked for."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(diameter=10.0, size=BATCH, margin=MARGIN)
        self._faults = faults
        self._calls = itertools.count(1)

    def called(self, images: Sequence[NDArray[Any]]) -> None:
        """Notes the images, pauses or waits."""
        number, faults = next(self._calls), self._faults
        if faults.segmented:
            with open(faults.segmented, "a") as file:
                file.write("x" * len(images))
        if number == faults.pause:
            _pause(Path(faults.paused))
        time.sleep(faults.slow)


def _pause(flag: Path) -> None:
    flag.touch()
    end = time.monotonic() + PATIENCE
    while flag.exists() and time.monotonic() < end:
        time.sleep(0.005)


def watch_calls(faults: Faults) -> None:
    """Counts all calls of CALLS, whichever thread makes them, and sends the signal before the one that is asked for."""
    count, lock = itertools.count(1), threading.Lock()

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *others: Any, **options: Any) -> Any:
            if name != "unlink" or options or os.path.lexists(first):
                with lock:
                    number = next(count)
                    if number == faults.kill:
                        os.kill(os.getpid(), faults.signal)
                    if faults.trace:
                        with open(faults.trace, "a") as file:
                            file.write(f"{name} {others[0] if others else first}\n")
            return None if name == "fsync" and not faults.sync else real(first, *others, **options)

        return call

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))


def _no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def execute(arguments: Sequence[str], faults: Faults) -> int:
    """Runs a command; its exit code."""
    if not faults.large_units:
        units.SHARD_BYTES = 4800  # as in tree.py
        pyramid.SMALL = 64
        budget.READ_SHARE = 1300 / 1.2e9
    local.load_predictor = lambda *_: Faulty(faults)
    if faults.mutant:
        sys.path.insert(0, str(Path(__file__).parent))
        import mutants

        getattr(mutants, faults.mutant)()
    watch_calls(faults)
    if not faults.locks:
        fcntl.flock = _no_locks
    try:
        cli.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def serve() -> None:
    """Answers requests until there are no more; returns only in a child, which has a command to run."""
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, result = os.waitpid(request["wait"], 0)
            print(json.dumps({"code": os.waitstatus_to_exitcode(result)}), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _become(request)
            sys.exit(execute(request["arguments"], Faults(**request["faults"])))
        print(json.dumps({"pid": pid}), flush=True)


def _become(request: dict[str, Any]) -> None:
    """Makes a child a process of its own: its session, its streams, its variables."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.environ.update(request["environment"])
    if request["files"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (request["files"], request["files"]))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        cli.parser()  # what each call would build again
        gc.freeze()  # children that looked at all objects would copy them all
        serve()
    else:
        sys.exit(execute(sys.argv[3:], Faults(**json.loads(sys.argv[2]))))
