"""Ctrl-C in commands that only read, wherever it comes: one line at most, and never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import COMMAND
from small_runs import picture, small_run

ENDING = """
import asyncio, os, signal, sys, time
from pathlib import Path
from zarr.storage import LocalStore
from nucseg_batch.__main__ import main

reads = []

def until_the_main_thread_waits():  # it runs handlers, and a signal that comes just before a wait does not end that
    still = 0
    while still < 20:
        time.sleep(0.01)
        state = Path(f"/proc/self/task/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[0]
        still = still + 1 if state == "S" else 0

async def get(self, *_, **__):
    reads.append(self)
    if len(reads) == 1:
        await asyncio.to_thread(until_the_main_thread_waits)
        os.kill(os.getpid(), signal.SIGINT)
    while True:  # as a read of many parts, which goes on until the interpreter ends
        await asyncio.to_thread(int)

LocalStore.get = get
main()
"""


def _listening() -> None:
    """In the new process: Ctrl-C counts, also where the tests were started in the background, by a shell's `&`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_while_the_command_line_is_imported_ends_it_silently(tmp_path: Path) -> None:
    """The user sees what any program does on Ctrl-C, not where an import was."""
    (tmp_path / "typer.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(600)\n"
    )
    done = subprocess.run(
        [*COMMAND, "--help"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=_listening,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_reads_that_an_interrupt_leaves_unfinished_print_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zarr reads in an event loop of its own, which goes on while the process ends."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    run.segment()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING, "overlay", run.store, tmp_path / "drawn"],
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=_listening,
    )
    assert (done.returncode, done.stderr) == (130, "nucseg-batch: stopped.\n")


SWALLOWING = """
import os, signal, sys, warnings
from nucseg_batch.__main__ import main
from nucseg_batch.results.export import writing

class Left:
    def __del__(self):
        warnings.warn("broken off", RuntimeWarning)

left, number = Left(), getattr(signal, sys.argv.pop())

def export(*_, **__):
    try:
        os.kill(os.getpid(), number)
        while True:
            pass
    except KeyboardInterrupt:  # as code has it that Python calls back
        return writing.ExportOutcome({})

writing.export = export
main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 75)])
def test_an_export_ends_where_a_library_keeps_the_interrupt_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """And what the library then warns of is not for the user."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(3))
    run.segment()
    program = [sys.executable, "-c", SWALLOWING, "export", run.store, tmp_path / "to", "--format", "tiff", name]
    done = subprocess.run(
        [*map(str, program)], capture_output=True, text=True, timeout=240, preexec_fn=_listening, check=False
    )
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("nucseg-batch: stopped")
    assert len(done.stderr.splitlines()) == 1
