"""Whole runs over made images, in this process and without a network: a threshold finds the nuclei."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from doubles import Threshold
from numpy.typing import NDArray

from nucseg_batch.executors import finishing, job, local
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.executors.run_job import RunSummary
from nucseg_batch.executors.verification import VerificationResult, verify
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import Plan, Plane, Unit
from nucseg_batch.settings import RunSettings, SegmentSettings


def picture(nuclei: int, shape: tuple[int, int] = (40, 50), value: int = 150) -> NDArray[np.uint8]:
    """So many bright squares on dark ground, one after the other."""
    pixels = np.full(shape, 10, np.uint8)
    across = (shape[1] - 4) // 9
    for number in range(nuclei):
        y, x = 3 + 9 * (number // across), 3 + 9 * (number % across)
        pixels[y : y + 4, x : x + 5] = value
    return pixels


def mosaic(shape: tuple[int, int] = (100, 120), step: int = 13) -> NDArray[np.uint8]:
    """Squares all over a plane that is done by regions, some of them on the borders of regions."""
    pixels = np.full(shape, 10, np.uint8)
    for y in range(5, shape[0] - 8, step):
        for x in range(4, shape[1] - 8, step):
            pixels[y : y + 6, x : x + 5] = 150 + (x + y) % 50
    return pixels


class Notes:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def headers(self, done: int, total: int) -> None: ...

    def start(self, count: int, pixels: int, what: str) -> None: ...

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None: ...

    def detail(self, line: str) -> None: ...

    def note(self, line: str) -> None:
        self.lines.append(line)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class SmallRun:
    """One run, call by call."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, settings: SegmentSettings) -> None:
        self.folder, self.store = place / "in", place / "out.zarr"
        self.folder.mkdir(exist_ok=True)
        self.settings = settings
        self.journal = Journal(self.store)
        self.notes = Notes()
        self.segmenter = Threshold()
        self.reads: list[str] = []
        read = ImageReader.read

        def counted(images: ImageReader, plane: Plane, *window: slice) -> NDArray[Any]:
            self.reads.append(plane.name)
            return read(images, plane, *window)

        monkeypatch.setattr(ImageReader, "read", counted)
        monkeypatch.setattr(local, "load_predictor", lambda *_: self.segmenter)

    def put(self, name: str, pixels: NDArray[Any]) -> Path:
        """Writes an image, later than any that was there of this name."""
        path = self.folder / name
        before = path.stat().st_mtime_ns if path.exists() else None
        tifffile.imwrite(path, pixels)
        if before is not None:
            os.utime(path, ns=(before + 10**9, before + 10**9))
        return path

    def segment(self, segmenter: Threshold | None = None, *, shares: int | None = None, **options: Any) -> RunSummary:
        """The same command again; `notes`, `reads` and the segmenter's are those of this call."""
        self.segmenter, self.notes = segmenter or Threshold(), Notes()
        self.reads.clear()
        return local.run(self.prepared(shares=shares, **options), self.notes)

    def prepared(self, *, shares: int | None = None, **options: Any) -> job.Job:
        """The job of a call."""
        given = RunSettings(**options)
        return job.prepare(self.folder, self.store, None, self.settings, self.notes, shares=shares, options=given)

    def finish(self) -> finishing.RunOutcome:
        """What the command `finish` does."""
        planned = job.planned(self.store)
        return finishing.finish(planned, ProgressCounter(self.notes, planned.journal))

    def verify(self) -> VerificationResult:
        """What the command `verify` does."""
        return verify(job.planned(self.store), lambda done, total: None)

    @property
    def plan(self) -> Plan:
        return self.journal.load().plan

    @property
    def units(self) -> list[Unit]:
        return list(self.plan.units())

    def marker(self, unit: Unit) -> Marker:
        marker = self.journal.marker(unit)
        assert marker is not None
        return marker

    def results(self) -> dict[str, bytes]:
        """What a user has: the store and the tables, file by file."""
        files = [path for path in self.store.rglob("*") if path.is_file()]
        tables = [path for path in RunLayout(self.store).results.values() if path.exists()]
        return {path.relative_to(self.store.parent).as_posix(): path.read_bytes() for path in [*files, *tables]}

    def everything(self) -> dict[str, str]:
        """Hashes of the results and of the run folder without its logs, timings and what was verified."""
        run_files = {p.relative_to(self.store.parent).as_posix(): p for p in self.journal.folder.rglob("*")}
        clocked = {"timings", "verified"}
        told = {path for path in run_files.values() if path.suffix == ".txt" or path.parent.name in clocked}
        kept = {name: path for name, path in run_files.items() if path.is_file() and path not in told}
        contents = self.results() | {name: path.read_bytes() for name, path in kept.items()}
        return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}

    def times(self) -> dict[str, int]:
        """When each file was written, but logs and locks, in which every call says who it is."""
        names = [name for name in self.everything() if "/locks/" not in name]
        return {name: (self.store.parent / name).stat().st_mtime_ns for name in names}

    def masks(self) -> list[Path]:
        """Shards of the masks at full resolution."""
        return sorted(path for path in self.store.glob("*/labels/nuclei/0/c/**/*") if path.is_file())

    def with_settings(self, **more: Any) -> None:
        """Calls from here on have other settings."""
        self.settings = dataclasses.replace(self.settings, **more)


def small_run(place: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SmallRun:
    """A run of which nothing is there yet, without looks at how large nuclei are."""
    place.mkdir(parents=True, exist_ok=True)
    return SmallRun(place, monkeypatch, SegmentSettings(**{"diameter": 26.0, "region": 64, "workers": 2, **settings}))
