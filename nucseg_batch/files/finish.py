"""Joins what the units left into the three tables that a user reads, sorted by image whatever order units ran in.

Memory does not grow with the number of nuclei: a marker says how many bytes each image has in its unit's part, so rows
are copied as bytes from place to place.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
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


def finish(store: Path, plan: Plan, journal: Journal) -> tuple[int, list[Failure]]:
    """Writes the three tables; returns the number of nuclei and the failures, sorted by image.

    Doing it again gives the same bytes. Units that are not done have no rows.
    """
    paths = table_paths(store)
    entries: list[tuple[str, Unit | None, int, ImageResult | Failure]] = [
        (failure.image, None, 0, failure) for failure in plan.failures
    ]
    offsets: dict[str, int] = {}
    for unit in plan.units():
        marker = journal.marker(unit)
        offset = 0
        for index, image in enumerate(marker.images if marker else (), start=unit.start):
            entries.append((image.image, unit, index, image))
            if isinstance(image, ImageResult):
                offsets[image.image] = offset
                offset += image.part_bytes
    entries.sort(key=lambda entry: entry[0])
    nuclei = 0
    failures = []
    with _whole(paths["images"]) as images, _whole(paths["nuclei"]) as rows, _Parts(journal) as parts:
        images.write(csv_text([IMAGES_COLUMNS]).encode())
        rows.write(csv_text([NUCLEI_COLUMNS]).encode())
        for key, owner, index, entry in entries:
            if isinstance(entry, Failure) or owner is None:
                assert isinstance(entry, Failure)
                failures.append(entry)
                images.write(csv_text([(key, "failed", *[None] * (len(IMAGES_COLUMNS) - 2))]).encode())
                continue
            nuclei += entry.nuclei
            values = [entry.summary[name] for name in SUMMARY_COLUMNS]
            place: list[Any] = [key, "ok", label_path(owner.stack), index, None, None]
            images.write(csv_text([[*place, *values]]).encode())
            rows.write(parts.read(owner, offsets[key], entry.part_bytes))
    with _whole(paths["failures"]) as file:
        rows_of_failures = [(f.image, f.stage, f.error, f.message) for f in failures]
        file.write(csv_text([FAILURES_COLUMNS, *rows_of_failures]).encode())
    return nuclei, failures


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
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)
