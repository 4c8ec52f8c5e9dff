"""Compiled loops are kept for the next process, and need no place to be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from nucseg_batch.arrays.kernels.compiled import Kernel, compilation_told, compiled, inlined

PROGRAM = """
import resource, sys
sys.path.insert(0, {folder!r})
{before}
import numpy as np
from loops import total
print(total(np.arange(7.0)))
"""
LOOPS = """
from nucseg_batch.arrays.kernels.compiled import compiled

@compiled
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found
"""


def run(folder: Path, cache: Path, before: str = "") -> str:
    """What a new process prints that adds 0 to 6, with its compiled loops kept in `cache`."""
    (folder / "loops.py").write_text(LOOPS)
    os.utime(folder / "loops.py", (1e9, 1e9))  # written again by each run, but the same file to the cache
    program = PROGRAM.format(folder=str(folder), before=before)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def kept(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_the_second_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    """Otherwise each of a thousand jobs would compile for itself."""
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == "21.0"
    first = kept(cache)
    assert {Path(name).suffix for name in first} == {".nbi", ".nbc"}
    assert run(tmp_path, cache) == "21.0"
    assert kept(cache) == first


def test_a_disk_without_room_for_the_cache_changes_nothing(tmp_path: Path) -> None:
    """A limit of 0 bytes for files stands for a full disk or a quota."""
    cache = tmp_path / "cache"
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"
    assert run(tmp_path, cache, before=limit) == "21.0"
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_cache_is_replaced(tmp_path: Path, suffix: str, left: int) -> None:
    """A power cut may leave files without their content; such a run would otherwise fail, and the next one, too."""
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == "21.0"
    (damaged,) = cache.rglob(f"*{suffix}")
    whole = damaged.stat().st_size
    os.truncate(damaged, left)
    assert run(tmp_path, cache) == "21.0"
    (mended,) = cache.rglob(f"*{suffix}")
    assert mended.stat().st_size == pytest.approx(whole, rel=0.1)
    before = kept(cache)
    assert run(tmp_path, cache) == "21.0"
    assert kept(cache) == before


def test_a_cache_that_cannot_be_a_folder_changes_nothing(tmp_path: Path) -> None:
    """As in a container whose file system is read-only."""
    cache = tmp_path / "a file"
    cache.write_text("")
    assert run(tmp_path, cache) == "21.0"


def test_a_kernel_calls_parts_of_its_file_and_keeps_its_docstring() -> None:
    """`python` runs the same lines without the compiler, as for a debugger."""

    @inlined
    def doubled(value: int) -> int:
        return 2 * value

    @compiled
    def doubles(values: np.ndarray) -> np.ndarray:
        """Twice each."""
        result = np.empty_like(values)
        for i in range(values.size):
            result[i] = doubled(values[i])
        return result

    assert isinstance(doubles, Kernel)
    assert doubles.__doc__ == "Twice each."
    np.testing.assert_array_equal(doubles(np.arange(5)), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(doubles.python(np.arange(5)), [0, 2, 4, 6, 8])


def test_an_error_of_a_kernel_is_the_callers() -> None:
    """Only errors of the cache are handled."""

    @compiled
    def refused(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    with pytest.raises(ValueError, match="negative"):
        refused(-1)


def test_the_first_compilation_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run tells its user why it waits; what is compiled already is not waited for."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # where nothing is, unlike beside this file

    @compiled
    def half(value: float) -> float:
        return value / 2

    told: list[str] = []
    with compilation_told(lambda: told.append("compiled")):
        half(1.0)
        half(1)
        half(2.0)
    with compilation_told(lambda: told.append("again")):
        half(3.0)
    assert told == ["compiled"]
