"""Joins what the units left into the three tables that a user reads, sorted by image whatever order units ran in.

Memory does not grow with the number of nuclei: a marker says how many bytes each image has in its unit's part, so rows
are copied as bytes from place to place. Nor does it grow with the number of images that share an array: these are in
the order of the table, so that the markers of an array are read one after the other, and all arrays are merged.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from nucseg_batch.columns import FAILURES, IMAGES, PLANE_SUMMARY, names
from nucseg_batch.files.atomic_write import file_sha256, whole_file, whole_folder
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.masks.store import label_path
from nucseg_batch.files.run.dataset import DatasetWriter
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.files.run.wells import remove_wells
from nucseg_batch.files.run_layout import CSV, PARQUET, RunLayout
from nucseg_batch.plan import Failure, LabelArray, LargePlane, MovieGroup, Plan, PlaneStatus, StackGroup, Unit

OPEN_PARTS = 32
"""Parts that are held open at once; below any system's limit of open files."""
COPIED = 2**24
"""Bytes that are copied at once."""
ROWS = 1000
"""Rows of images.csv that are made into text at once."""


@dataclass(frozen=True, slots=True)
class PlaneEntry:
    """What became of one plane."""

    image: str
    """Key of the image."""
    outcome: PlaneResult | Failure | None
    """Its result, or why it has none; None where it was not done yet."""
    t: int | None = None
    """Its time point; None without such an axis, and for an image that was refused while planning."""
    z: int | None = None
    """Its depth likewise."""
    label_array: LabelArray | None = None
    """Where its mask is; None for an image that was refused while planning."""
    index: int | None = None
    """Its place on axis i; None where the masks have no such axis."""
    part: Path | None = None
    """The file that holds its rows of nuclei.csv."""
    offset: int = 0
    """Where its rows begin in that file, in bytes."""
    pixels_sha256: str = ""
    """Of its pixels as they were read; of a plane that was done by regions, of the hashes of these."""

    @property
    def order(self) -> tuple[str, int, int]:
        """What entries are sorted by."""
        return self.image, -1 if self.t is None else self.t, -1 if self.z is None else self.z


def collect(plan: Plan, journal: Journal, digests: dict[str, bytes] | None = None) -> Iterator[PlaneEntry]:
    """What became of every plane, and of images refused while planning, in order; each marker is read once.

    digests: takes the hashes of the markers that were read; see `Journal.state`.
    """
    refused = (PlaneEntry(failure.image, failure) for failure in plan.failures)
    label_arrays = (_collect_stack(label_array, journal, digests) for label_array in plan.label_arrays)
    return heapq.merge(refused, *label_arrays, key=_order)


def _collect_stack(label_array: LabelArray, journal: Journal, digests: dict[str, bytes] | None) -> Iterator[PlaneEntry]:
    """The same of one label array."""
    alone = Plan((label_array,), ())
    entries = (
        (collect_large(large, journal, digests) for large in alone.large_planes())
        if label_array.regional
        else (entry for unit in alone.units() for entry in collect_unit(unit, journal, digests))
    )
    if "t" in label_array.axes and "i" in label_array.axes:  # there, times come before images
        return iter(sorted(entries, key=_order))
    return entries


def _order(entry: PlaneEntry) -> tuple[str, int, int]:
    return entry.order


def collect_unit(unit: Unit, journal: Journal, digests: dict[str, bytes] | None = None) -> Iterator[PlaneEntry]:
    """What became of the planes of a unit that holds whole ones."""
    marker = journal.marker(unit, digests)
    offset, part = 0, journal.part(unit)
    outcomes = marker.whole_planes if marker else [None] * unit.plane_count
    inputs = marker.seen if marker else [None] * unit.plane_count
    for place, plane, outcome, seen in zip(unit.places, unit.planes, outcomes, inputs, strict=True):
        index, digest = _index(unit.label_array, place), "" if seen is None else seen.sha256
        yield PlaneEntry(plane.image.key, outcome, plane.t, plane.z, unit.label_array, index, part, offset, digest)
        offset += outcome.part_bytes if isinstance(outcome, PlaneResult) else 0


def collect_large(large: LargePlane, journal: Journal, digests: dict[str, bytes] | None = None) -> PlaneEntry:
    """What became of a plane that is done by regions: joined, not done yet, or failed as soon as one region did."""
    plane, index = large.plane, _index(large.label_array, large.place)
    joined = journal.plane(large, digests)
    outcome: PlaneResult | Failure | None = joined.result if joined is not None else None
    markers = [journal.marker(unit) for unit in large.units]
    if joined is None:
        outcome = next((failure for marker in markers if marker is not None for failure in marker.failures), None)
    seen = [one.sha256 for marker in markers if marker is not None for one in marker.seen if one is not None]
    digest = hashlib.sha256("".join(seen).encode()).hexdigest()
    return PlaneEntry(
        plane.image.key, outcome, plane.t, plane.z, large.label_array, index, journal.plane_part(large), 0, digest
    )


def collect_group(group: StackGroup | MovieGroup, journal: Journal) -> dict[tuple[int, ...], PlaneEntry]:
    """What became of each plane of a group, by its place along the axes before y."""
    if group.label_array.regional:
        return {large.place: collect_large(large, journal) for large in group.large_planes()}
    return {
        place: entry
        for unit in group.units
        for place, entry in zip(unit.places, collect_unit(unit, journal), strict=True)
    }


def _index(label_array: LabelArray, place: tuple[int, ...]) -> int | None:
    return place[label_array.axes.index("i")] if "i" in label_array.axes else None


def write_tables(layout: RunLayout, entries: Iterable[PlaneEntry], table: NucleiTable) -> None:
    """Writes the tables from what `collect` finds; doing it again gives the same bytes.

    A table of wells is deleted, since it may no longer agree with them.
    """
    remove_wells(layout.store)
    paths, failures = layout.results, list[Failure]()
    with whole_file(paths["images.csv"]) as images, _nuclei(layout, table) as nuclei, TableParts() as parts:
        images.write(csv_text([names(IMAGES)]).encode())
        waiting: list[list[Any]] = []
        for entry in entries:
            waiting.append(_images_row(entry))
            if len(waiting) >= ROWS:
                images.write(csv_text(waiting).encode())
                waiting.clear()
            if isinstance(entry.outcome, PlaneResult) and entry.part is not None:
                parts.copy(entry.part, entry.offset, entry.outcome.part_bytes, nuclei)
            elif isinstance(entry.outcome, Failure):
                failures.append(entry.outcome)
        images.write(csv_text(waiting).encode())
    with whole_file(paths["failures.csv"]) as file:
        rows = [(f.image, f.stage, f.error, f.message) for f in failures]
        file.write(csv_text([names(FAILURES), *rows]).encode())


@contextlib.contextmanager
def _nuclei(layout: RunLayout, table: NucleiTable) -> Iterator[list[_Rows]]:
    """The nuclei table in all its formats, each of which takes rows."""
    with contextlib.ExitStack() as stack:
        formats: list[_Rows] = []
        if CSV in layout.formats:
            file = stack.enter_context(whole_file(layout.results["nuclei.csv"]))
            file.write(csv_text([names(table.columns)]).encode())
            formats.append(file)
        if PARQUET in layout.formats:
            folder = stack.enter_context(whole_folder(layout.results["nuclei.parquet"]))
            formats.append(stack.enter_context(DatasetWriter(folder, table.columns)))
        yield formats


def table_hashes(layout: RunLayout) -> dict[str, str]:
    """The sha256 of each table that is there, by what its name ends in."""
    return {name: digest for name, digest in result_hashes(layout).items() if name != "provenance.json"}


def result_hashes(layout: RunLayout) -> dict[str, str]:
    """The sha256 of each of these that is there."""
    return {name: file_sha256(path) for name, path in layout.results.items() if path.exists()}


def _images_row(entry: PlaneEntry) -> list[Any]:
    if entry.outcome is None:
        return [entry.image, PlaneStatus.MISSING, None, None, entry.t, entry.z, *[None] * len(PLANE_SUMMARY)]
    if isinstance(entry.outcome, Failure) or entry.label_array is None:
        return [entry.image, PlaneStatus.FAILED, None, None, entry.t, entry.z, *[None] * len(PLANE_SUMMARY)]
    values = [entry.outcome.summary[column.name] for column in PLANE_SUMMARY]
    return [entry.image, PlaneStatus.OK, label_path(entry.label_array), entry.index, entry.t, entry.z, *values]


class _Rows(Protocol):
    """Takes rows of nuclei.csv as bytes, of which a piece may end within a row."""

    def write(self, rows: bytes, /) -> object: ...


class TableParts:
    """The parts of a table, of which the most recently read stay open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, IO[bytes]] = OrderedDict()

    def __enter__(self) -> TableParts:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def copy(self, part: Path, offset: int, length: int, to: Iterable[_Rows]) -> None:
        """Copies so many bytes of a part to some tables."""
        if length == 0:
            return
        if part not in self._open:
            if len(self._open) >= OPEN_PARTS:
                self._open.popitem(last=False)[1].close()
            self._open[part] = open(part, "rb")  # noqa: SIM115 - closed by popitem or __exit__
        self._open.move_to_end(part)
        file = self._open[part]
        file.seek(offset)
        while length > 0:
            piece = file.read(min(length, COPIED))
            if not piece:
                raise OSError(f"{part} ends before its rows do")
            for one in to:
                one.write(piece)
            length -= len(piece)
