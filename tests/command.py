"""The command line as tests use it: in a process of its own, or in this one where being a process is not the point."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nucseg_batch.cli.main import main

COMMAND = [sys.executable, "-m", "nucseg_batch"]


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the program as a user does, and expects its exit code."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def call(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The same without the seconds that a process needs to begin; what libraries print below Python is not seen."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    ended = int(stopped.value.code or 0)
    done = subprocess.CompletedProcess([*map(str, arguments)], ended, out.getvalue(), errors.getvalue())
    assert done.returncode == code, done.stdout + done.stderr
    return done


def contents(store: Path) -> dict[str, str]:
    """Hashes of all files of an output except the run folder's."""
    files = [path for path in store.rglob("*") if path.is_file()] + sorted(store.parent.glob(f"{store.stem}.*.csv"))
    return {
        str(path.relative_to(store.parent)).replace(store.stem, "out", 1): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@dataclass(frozen=True)
class Output:
    """What one call of `segment` gave, for several tests, which must not change it."""

    images: Path
    """IN."""
    store: Path
    """OUT, called out.zarr."""
    told: str
    """What was printed."""

    def copy(self, folder: Path) -> Path:
        """The store in another folder, with its tables and its run folder, for a test that changes it."""
        for path in self.store.parent.glob("out.*"):
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copy2(path, folder)
        return folder / self.store.name


def without_coverage(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables without those that have a child measure coverage, which writes files of its own."""
    return {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
