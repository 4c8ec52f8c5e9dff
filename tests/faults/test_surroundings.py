"""Rows 33, 34, 37 and 38 of the fault matrix: memory, devices, clocks, and what surrounds a process."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.harness import FIXED, NOISE, as_ordinary_user, call, digest, needs, rows, run

YEARS = 3 * 365 * 86400


def path_only(**more: str) -> dict[str, str]:
    """An environment in which the program is found, and nothing else."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | more


def named(images: Path, folder: Path) -> Path:
    """The images, one of them under a name that is not ASCII."""
    shutil.copytree(images, folder)
    (folder / "0.png").rename(folder / "zelle_é.png")
    return folder


def test_neither_locale_nor_clock_nor_a_bare_environment_changes_a_byte(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    """Rows 37, 38: the plainest locale, no HOME or stdin, a clock of three years ago, files from the future."""
    images = named(plain[0], tmp_path / "in")
    for path in images.iterdir():
        os.utime(path, (time.time() + YEARS,) * 2)
    call("segment", images, tmp_path / "usual.zarr", "--model", tiny, *FIXED)
    environment = path_only(LC_ALL="POSIX", TERM="dumb", NO_FAKE_STAT="1")
    run(
        *("segment", images, tmp_path / "odd.zarr", "--model", tiny, *FIXED),
        before=needs("faketime", "-f", "-3y"),
        environment=environment,
        closed_input=True,
    )
    assert digest(tmp_path / "odd.zarr", tables_only=True) == digest(tmp_path / "usual.zarr", tables_only=True)
    before = digest(tmp_path / "odd.zarr")
    assert (
        "everything was done already" in call("segment", images, tmp_path / "odd.zarr", "--model", tiny, *FIXED).output
    )
    assert digest(tmp_path / "odd.zarr") == before


def test_what_cannot_be_printed_loses_no_work(plain: tuple[Path, Path], tiny: Path, tmp_path: Path) -> None:
    """Row 38: stdout on a full disk, a home that cannot be written, a locale that is not there."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    done = run(
        *("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED),
        before=as_ordinary_user(),
        environment=path_only(LC_ALL="tr_TR.UTF-8", LANG="tr_TR.UTF-8", HOME=str(home)),
        output=Path("/dev/full"),
        code=None,
    )
    assert done.code != 0, "the summary was not seen by anybody"
    assert done.noise <= NOISE
    assert digest(tmp_path / "out.zarr") == digest(plain[1])
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("years", [-3, 3])
def test_times_of_the_runs_own_files_do_not_matter(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, years: int
) -> None:
    """Row 37: a clock that jumped while the run was written; the second call does nothing."""
    store = tmp_path / "out.zarr"
    call("segment", plain[0], store, "--model", tiny, *FIXED)
    for number, path in enumerate(sorted(store.with_suffix(".run").rglob("*"))):
        os.utime(path, (time.time() + years * YEARS / 3 * (number % 2),) * 2)
    before = digest(store)
    assert "everything was done already" in call("segment", plain[0], store, "--model", tiny, *FIXED).output
    assert digest(store) == before


def with_room_for(images: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the device refuse larger batches with TensorFlow's own error; the sizes that were asked for."""
    import tensorflow as tf

    from nucseg_batch.network import backend

    asked: list[int] = []
    compiled = backend.compiled

    def limited(function: Callable[..., Any], device: str, variables: Any = ()) -> Callable[..., Any]:
        whole = compiled(function, device, variables)

        def call(first: Any, *others: Any) -> Any:
            asked.append(first.shape[0])
            if first.shape[0] > images:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return whole(first, *others)

        return call

    monkeypatch.setattr(backend, "compiled", limited)
    return asked


def test_a_device_with_little_memory_gives_the_same_bytes(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 33: batches are halved until they fit, and that is told."""
    asked = with_room_for(1, monkeypatch)
    done = call("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED)
    assert {1, 2, 4} <= set(asked)
    assert "out of memory" in done.errors
    assert "in batches of 1 " in done.errors
    assert digest(tmp_path / "out.zarr") == digest(plain[1])


def test_a_device_without_memory_for_one_image_costs_images_not_the_run(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 33: each has its row, and the same command can be tried on a larger machine."""
    with_room_for(0, monkeypatch)
    done = call("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED, code=3)
    assert {row["error"] for row in rows(tmp_path / "out.zarr", "failures")} == {"ResourceExhaustedError"}
    halvings = [line for line in done.errors.splitlines() if " go in batches of " in line]
    assert done.noise - len(halvings) <= NOISE
    assert len(set(halvings)) == len(halvings), "each size of each shape is given up once"
    monkeypatch.undo()
    call("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED)
    assert digest(tmp_path / "out.zarr") == digest(plain[1])


@pytest.mark.parametrize(
    "error",
    [
        type("XlaRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError("Unable to allocate 9 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_backends_word_for_no_memory_is_known(error: Exception) -> None:
    """Row 33: the texts of JAX and torch, which are not installed here."""
    from nucseg_batch.network.backend import is_out_of_memory

    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("the tensor is no memory of mine"))


def test_a_library_that_is_not_installed_is_an_error_before_anything_is_written(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    """Row 34: KERAS_BACKEND names what computes; another than the one that is there is told with the choices."""
    arguments = ("segment", plain[0], tmp_path / "out.zarr", "--model", tiny, *FIXED)
    done = run(*arguments, environment=path_only(KERAS_BACKEND="nonsense", HOME=str(tmp_path)), code=69)
    assert "KERAS_BACKEND" in done.refusal
    assert done.noise <= NOISE
    assert not (tmp_path / "out.run").exists()
