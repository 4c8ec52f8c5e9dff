"""What the fault tests share: runs of the program, digests of what they leave, small folders, and places that fail.

The first run with TensorFlow in a process takes seconds, so tests call the program in their own process (`call`) and
start another one (`run`) only where the fault is one of processes: limits, environments, traced system calls.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import hashlib
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from command import without_coverage
from numpy.typing import NDArray
from pictures import disks, fluorescence

from nucseg_batch.cli.main import main

COMMAND = (sys.executable, "-m", "nucseg_batch")
FIXED = ("--diameter", "26", "--precision", "float32", "--device", "cpu")
"""Options with which nothing needs to be looked at first, and masks are those of any machine."""
NOISE = 10
"""Lines on stderr that any failure may take."""
_FAR = re.compile(r"\d+ of \d+ |planning: ")
"""How a line begins that tells how far a run is."""
_OVERRIDE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what makes root read and write everything."""


@dataclass(frozen=True)
class Done:
    """A run that ended."""

    code: int
    """Its exit code."""
    output: str
    """What it printed to stdout."""
    errors: str
    """What it printed to stderr."""

    @property
    def noise(self) -> int:
        """Lines on stderr, without those that say every few seconds how far the run is."""
        return sum(_FAR.match(line) is None for line in self.errors.splitlines())

    @property
    def refusal(self) -> str:
        """The one line that says why it could not work."""
        (line,) = [line for line in self.errors.splitlines() if line.startswith("nucseg-batch:")]
        return line


def call(*arguments: object, code: int = 0) -> Done:
    """Runs the program in this process; it must end with `code`."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(argument) for argument in arguments])
    return _ended(int(ended.value.code or 0), output.getvalue(), errors.getvalue(), code)


def run(
    *arguments: object,
    code: int | None = 0,
    before: Sequence[object] = (),
    environment: Mapping[str, str] | None = None,
    file_limit: int | None = None,
    closed_input: bool = False,
    output: Path | None = None,
) -> Done:
    """Runs the program in a process of its own; it must end with `code`, or with any where that is None.

    before: a command that starts it, such as strace and its options; environment: all variables that it has;
    file_limit: bytes that one of its files may have; output: where stdout goes.
    """

    def prepare() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        if closed_input:
            os.close(0)

    if environment is None and (before or file_limit is not None):
        environment = without_coverage()
    command = [str(part) for part in (*before, *COMMAND, *arguments)]
    with contextlib.ExitStack() as stack:
        stdout = subprocess.PIPE if output is None else stack.enter_context(open(output, "wb"))
        done = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, timeout=240, env=environment, preexec_fn=prepare
        )
    return _ended(done.returncode, _text(done.stdout or b""), _text(done.stderr), code)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _ended(code: int, output: str, errors: str, expected: int | None) -> Done:
    assert expected in (code, None), output + errors
    assert "Traceback" not in errors, errors
    return Done(code, output, errors)


def digest(store: Path, *, tables_only: bool = False) -> dict[str, str]:
    """SHA-256 of all that a run left, by name: store, tables and run folder, except what the clock is in.

    tables_only: without the run folder, as where runs over two places are compared.
    """
    files = [path for path in store.rglob("*") if path.is_file()]
    files += store.parent.glob(f"{store.stem}.*.csv")
    if not tables_only:
        files += [path for path in store.with_suffix(".run").rglob("*") if path.is_file() and not _told(path)]
    return {
        str(path.relative_to(store.parent)).removeprefix(store.stem): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _told(path: Path) -> bool:
    """Whether a file of a run folder says when and by whom it was written."""
    return path.name.startswith(("log", "lock")) or not {"locks", "begun", "timings", "verified"}.isdisjoint(path.parts)


def rows(store: Path, table: str) -> list[dict[str, str]]:
    """The rows of one of the tables of a run: images, nuclei or failures."""
    with open(store.with_suffix(f".{table}.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def nuclei(shape: tuple[int, int] = (64, 96), *, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of three nuclei."""
    return fluorescence(disks(shape, [(20, 20), (40, 50), (30, 80)], 9), seed=seed)


def image_folder(folder: Path, count: int = 6) -> Path:
    """A folder of small images of two shapes, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        shape = ((64, 96), (96, 96))[number % 2]
        (folder / f"{number}.png").write_bytes(imagecodecs.png_encode(nuclei(shape, seed=number)))
    return folder


@contextlib.contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Allows this process to write files of so many bytes at most."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def ordinary_rights() -> Iterator[None]:
    """Root's right to read and write everything, taken from this thread and those it starts; others never had it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0, os.strerror(ctypes.get_errno())
    less = (ctypes.c_uint32 * 6)(*before)
    less[0] &= ~_OVERRIDE  # of the rights in effect; those that may be taken back are in the next word
    assert libc.capset(header, less) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0, os.strerror(ctypes.get_errno())


def as_ordinary_user() -> tuple[str, ...]:
    """The start of a command that runs without root's right to read and write everything; skips where that cannot be.

    The user stays who he is, so that the program's own files can be read wherever they are.
    """
    if os.geteuid() != 0:
        return ()
    return needs("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def needs(program: str, *options: object) -> tuple[str, ...]:
    """A command that starts with a program of the system; skips where it is not installed, or not allowed."""
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    command = (program, *map(str, options))
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"needs to be allowed to run {program}: {tried.stderr.strip()}")
    return command


@contextlib.contextmanager
def small_disk(size: str = "64k") -> Iterator[Path]:
    """A file system of its own that holds so much; skips where none can be mounted."""
    with _mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs") as folder:
        yield folder


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """The same folder at another place, where nothing can be written; skips where it cannot be mounted."""
    with _mounted("--bind", str(folder)) as place:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place


@contextlib.contextmanager
def _mounted(*options: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-") as outer:
        place = Path(outer, "disk")
        place.mkdir()
        mounted = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
