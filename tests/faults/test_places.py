"""Rows 13 and 14 of the fault matrix: places that take no files, or only small ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults.harness import FIXED, NOISE, call, digest, ordinary_rights, read_only, run, small_files


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def sizes(store: Path) -> dict[str, int]:
    """Largest of each kind of file that a run writes, in bytes."""
    units = [path for path in store.rglob("*") if path.is_file() and "c" in path.relative_to(store).parts]
    return {
        "plan": store.with_suffix(".run").joinpath("plan.json").stat().st_size,
        "shard": max(path.stat().st_size for path in units),
        "table": store.with_suffix(".nuclei.csv").stat().st_size,
    }


@pytest.mark.parametrize("kind", ["plan", "shard", "table"])
def test_a_file_that_may_not_grow_stops_the_run_and_leaves_no_half_file(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path, kind: str
) -> None:
    """Row 13: as of a quota. 74 in a few lines; with room, the same command ends as if nothing had been."""
    images, reference = plain
    limit, whole = sizes(reference)[kind] - 1, digest(reference)
    arguments = ("segment", images, tmp_path / "out.zarr", "--model", tiny, *FIXED)
    if kind == "shard":  # libraries complain when a process ends, so that one is needed
        stopped = run(*arguments, code=74, file_limit=limit)
    else:
        with small_files(limit):
            stopped = call(*arguments, code=74)
    assert stopped.noise <= NOISE, stopped.errors
    assert "File too large" in stopped.refusal
    left = digest(tmp_path / "out.zarr")
    assert left.keys() <= whole.keys()
    assert {name for name, value in left.items() if whole[name] != value} <= {".zarr/zarr.json"}
    call(*arguments)
    assert digest(tmp_path / "out.zarr") == whole


def test_missing_folders_above_the_output_are_made(plain: tuple[Path, Path], tiny: Path, tmp_path: Path) -> None:
    """Row 14: a night's run must not fail for a folder."""
    call("segment", plain[0], tmp_path / "a" / "b" / "out.zarr", "--model", tiny, *FIXED)
    assert digest(tmp_path / "a" / "b" / "out.zarr") == digest(plain[1])


def test_a_folder_or_a_file_system_that_cannot_be_written_is_told_before_any_work(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    """Row 14: 73, and nothing is left behind."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with ordinary_rights():
        done = call("segment", plain[0], closed / "out.zarr", "--model", tiny, *FIXED, code=73)
    assert "Permission denied" in done.refusal
    assert names(closed) == []
    with read_only(tmp_path) as place:
        done = call("segment", plain[0], place / "out.zarr", "--model", tiny, *FIXED, code=73)
        assert "Read-only file system" in done.refusal
    assert names(tmp_path) == ["closed"]


def test_an_output_that_has_become_read_only_is_not_gone_on_with(
    plain: tuple[Path, Path], tiny: Path, tmp_path: Path
) -> None:
    """Row 14: a run that was begun and then archived; what is there stays."""
    store = tmp_path / "disk" / "out.zarr"
    call("segment", plain[0], store, "--model", tiny, *FIXED)
    before = digest(store)
    (unit, *_) = sorted((store.with_suffix(".run") / "units").iterdir())
    content = unit.read_bytes()
    unit.unlink()
    with read_only(store.parent) as place:
        done = call("segment", plain[0], place / "out.zarr", "--model", tiny, *FIXED, code=74)
    assert "Read-only file system" in done.refusal
    unit.write_bytes(content)
    assert digest(store) == before


def test_the_inputs_folder_may_be_read_only(plain: tuple[Path, Path], tiny: Path, tmp_path: Path) -> None:
    """Raw data often are; nothing is ever written beside them."""
    before = names(plain[0])
    with read_only(plain[0]) as place:
        call("segment", place, tmp_path / "out.zarr", "--model", tiny, *FIXED)
    assert digest(tmp_path / "out.zarr", tables_only=True) == digest(plain[1], tables_only=True)
    assert names(plain[0]) == before


@pytest.mark.parametrize("name", ["file.zarr", "link.zarr", "dangling.zarr", "/dev/full/out.zarr", "/proc/out.zarr"])
def test_what_is_no_place_for_an_output_is_refused(plain: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Row 14: a file, a link, and folders that take none; not even with --overwrite."""
    (tmp_path / "file.zarr").write_text("x")
    (tmp_path / "elsewhere").mkdir()
    os.symlink("elsewhere", tmp_path / "link.zarr")
    os.symlink("nowhere.zarr", tmp_path / "dangling.zarr")
    before = names(tmp_path)
    for options in ((), ("--overwrite",)):
        call("segment", plain[0], tmp_path / name, *options, code=73)
    assert names(tmp_path) == before
