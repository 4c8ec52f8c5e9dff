"""Row 39 of the fault matrix: what is called done has reached the disk before, so that a power cut loses no unit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import without_coverage
from faults.harness import needs
from faults.tree import DRIVER, ENVIRONMENT, REGION, SHARD_BYTES, Driver, differences, tree

from nucseg_batch.files.masks.store import label_path
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.plan import Unit, units

CALLS = "rename,renameat,renameat2,fsync,fdatasync"
_SYNC = re.compile(r"^\d+ +f(?:data)?sync\(\d+<(?P<path>[^>]*)>")
_RENAME = re.compile(r'^\d+ +rename\w*\((?:AT_FDCWD\S*, )?"(?P<source>[^"]*)", (?:AT_FDCWD\S*, )?"(?P<path>[^"]*)"')


@dataclass(frozen=True)
class Event:
    """A file or folder that reached the disk, or a file that appeared under its name."""

    kind: str
    path: str
    source: str = ""


@dataclass(frozen=True)
class Traced:
    """A run, and what the system saw of it."""

    store: Path
    events: list[Event]

    def check(self, path: Path, marker: Path, top: Path) -> None:
        """That a file was whole on disk under its name, with the folders up to `top`, before a marker appeared."""
        appeared = self._index("rename", marker)
        renamed = self._index("rename", path)
        written = self._index("sync", Path(self.events[renamed].source))
        assert written < renamed < appeared
        for folder in [one for one in path.parents if one.is_relative_to(top)]:
            synced = [number for number, event in enumerate(self.events) if event == Event("sync", str(folder))]
            assert any(renamed < number < appeared for number in synced), folder

    def _index(self, kind: str, path: Path) -> int:
        return next(n for n, event in enumerate(self.events) if event.kind == kind and event.path == str(path))


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units as the driver makes them."""
    monkeypatch.setattr(units, "SHARD_BYTES", SHARD_BYTES)


@pytest.fixture(scope="module")
def traced(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("traced")
    store, log = folder / "out.zarr", folder / "calls"
    command = needs("strace", "-f", "-qq", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", log)
    options = json.dumps({"sync": True, "trace": str(folder / "seen")})
    run = [*command, sys.executable, str(DRIVER), "run", options, "segment", str(images), str(store), *REGION]
    done = subprocess.run(run, env=without_coverage(ENVIRONMENT), capture_output=True, text=True, timeout=240)
    assert done.returncode == 3, done.stderr
    return Traced(store, list(events(log.read_text())))


def events(log: str) -> Iterator[Event]:
    """What was traced, in the order in which calls began; each is made by the thread that waits for it."""
    for line in log.splitlines():
        if found := _SYNC.match(line):
            yield Event("sync", found["path"])
        elif found := _RENAME.match(line):
            yield Event("rename", found["path"], found["source"])
        else:
            assert "resumed>" in line, line


def masks(store: Path, unit: Unit) -> tuple[Path, Path]:
    """The shard of a unit, and the folder of its array."""
    array = store / label_path(unit.label_array) / "0"
    return array.joinpath("c", *map(str, unit.block)), array


def test_every_rename_and_sync_is_one_that_the_sweeps_know(traced: Traced) -> None:
    """Else there would be points at which nothing is ever killed."""
    seen = (traced.store.parent / "seen").read_text().splitlines()
    assert sum(line.startswith("fsync") for line in seen) == sum(event.kind == "sync" for event in traced.events)
    renamed = [line.partition(" ")[2] for line in seen if line.startswith(("replace", "rename"))]
    assert sorted(renamed) == sorted(event.path for event in traced.events if event.kind == "rename")


def test_masks_and_rows_are_on_disk_before_their_marker(traced: Traced) -> None:
    """And so is what was found in each region, and the plan before anything else."""
    journal = Journal(traced.store)
    plan = journal.load().plan
    checked = 0
    for unit in plan.units():
        marker = journal.folder / "units" / f"{unit.name}.json"
        traced.check(journal.part(unit), marker, journal.folder / "parts")
        shard, array = masks(traced.store, unit)
        if unit.label_array.regional:
            traced.check(journal.folder / "regions" / f"{unit.name}.found", marker, journal.folder / "regions")
        elif shard.exists():
            traced.check(shard, marker, array)
            checked += 1
        traced.check(journal.folder / "plan.json", marker, journal.folder)
    for large in plan.large_planes():
        marker = journal.folder / "planes" / f"{large.name}.json"
        for shard, array in [masks(traced.store, unit) for unit in large.units]:
            if shard.exists():  # a region without nuclei has none
                traced.check(shard, marker, array)
                checked += 1
        traced.check(journal.plane_part(large), marker, journal.folder / "planes")
    assert checked == 3 + 4


def test_markers_are_on_disk_before_the_tables_and_these_before_the_end_is_noted(traced: Traced) -> None:
    """A table must not tell of what a power cut can take back."""
    journal, store = Journal(traced.store), traced.store
    tables = [store.with_suffix(f".{name}.csv") for name in ("images", "nuclei", "failures")]
    for table in tables:
        traced.check(table, journal.folder / "finished.json", store.parent)
    for unit in journal.load().plan.units():
        traced.check(journal.folder / "units" / f"{unit.name}.json", tables[0], journal.folder / "units")


def test_an_array_whose_description_was_lost_is_described_again(traced: Traced, driver: Driver, images: Path) -> None:
    """Descriptions of groups and arrays are not waited for: a power cut can leave empty ones, which are made again."""
    before = tree(traced.store)
    lost = [path for path in traced.store.rglob("zarr.json") if path.parent != traced.store]
    for path in lost:
        path.write_bytes(b"")
    assert len(differences(traced.store, before)) == len(lost) > 0
    driver.run("segment", images, traced.store, *REGION, code=3)
    assert differences(traced.store, before) == []
    driver.run("verify", traced.store)
