"""Joins what the units left into the three tables that a user reads, sorted by image whatever order units ran in.

Memory does not grow with the number of nuclei: a marker says how many bytes each image has in its unit's part, so rows
are copied as bytes from place to place.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nucseg_batch.files.journal import ImageResult, Journal
from nucseg_batch.files.mask_store import images_csv, label_path, sync
from nucseg_batch.files.tables import (
    FAILURES_COLUMNS,
    IMAGES_COLUMNS,
    NUCLEI_COLUMNS,
    SUMMARY_COLUMNS,
    csv_text,
)
from nucseg_batch.plan import Failure, Plan, Unit

OPEN_PARTS = 64
"""Parts that are held open at once; below any system's limit of open files."""


def table_paths(store: Path) -> dict[str, Path]:
    """The tables of a store by name: images, nuclei, failures."""
    names = {name: store.with_suffix(f".{name}.csv") for name in ("nuclei", "failures")}
    return {"images": images_csv(store), **names}


@dataclass(frozen=True)
class Entry:
    """What became of one image."""

    image: str
    """Key of the image."""
    outcome: ImageResult | Failure
    """Its result, or why it has none."""
    unit: Unit | None
    """The unit it belongs to; None for an image that was refused while planning."""
    index: int
    """Its place on axis i."""
    offset: int
    """Where its rows begin in the unit's part of nuclei.csv, in bytes."""


def collect(plan: Plan, journal: Journal) -> list[Entry]:
    """What became of every image of the units that are done, and of those refused while planning, sorted by image."""
    entries = [Entry(failure.image, failure, None, 0, 0) for failure in plan.failures]
    for unit in plan.units():
        marker = journal.marker(unit)
        offset = 0
        for index, outcome in enumerate(marker.images if marker else (), start=unit.start):
            entries.append(Entry(outcome.image, outcome, unit, index, offset))
            offset += outcome.part_bytes if isinstance(outcome, ImageResult) else 0
    return sorted(entries, key=lambda entry: entry.image)


def write_tables(store: Path, entries: list[Entry], journal: Journal) -> None:
    """Writes the three tables from what `collect` found; doing it again gives the same bytes."""
    paths = table_paths(store)
    with _whole(paths["images"]) as images, _whole(paths["nuclei"]) as nuclei, _Parts(journal) as parts:
        images.write(csv_text([IMAGES_COLUMNS]).encode())
        nuclei.write(csv_text([NUCLEI_COLUMNS]).encode())
        for entry in entries:
            images.write(csv_text([_images_row(entry)]).encode())
            if isinstance(entry.outcome, ImageResult) and entry.unit is not None:
                nuclei.write(parts.read(entry.unit, entry.offset, entry.outcome.part_bytes))
    failures = [entry.outcome for entry in entries if isinstance(entry.outcome, Failure)]
    with _whole(paths["failures"]) as file:
        rows = [(f.image, f.stage, f.error, f.message) for f in failures]
        file.write(csv_text([FAILURES_COLUMNS, *rows]).encode())


def _images_row(entry: Entry) -> list[Any]:
    if isinstance(entry.outcome, Failure) or entry.unit is None:
        return [entry.image, "failed", *[None] * (len(IMAGES_COLUMNS) - 2)]
    values = [entry.outcome.summary[name] for name in SUMMARY_COLUMNS]
    return [entry.image, "ok", label_path(entry.unit.stack), entry.index, None, None, *values]


class _Parts:
    """The units' parts of nuclei.csv, of which the most recently read stay open."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def read(self, unit: Unit, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        if unit.name not in self._open:
            if len(self._open) >= OPEN_PARTS:
                self._open.popitem(last=False)[1].close()
            self._open[unit.name] = open(self._journal.part(unit), "rb")  # noqa: SIM115 - closed by popitem or __exit__
        self._open.move_to_end(unit.name)
        file = self._open[unit.name]
        file.seek(offset)
        return file.read(length)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under its name, on disk, only when the block ends well."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
