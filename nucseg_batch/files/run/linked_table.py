"""Tables of linked nuclei, which are the rows of stacks or movies in the order of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from nucseg_batch.columns import Column, names
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.run.finish import TableParts
from nucseg_batch.plan import ImageInfo, MovieGroup, StackGroup

Group = TypeVar("Group", StackGroup, MovieGroup, contravariant=True)
Place = tuple[int, ...]
"""Where a stack or a movie lies along the axes of its array."""


class Linked(Protocol):
    """The record of a group."""

    @property
    def source(self) -> str:
        """The state of the units that it was made of."""

    @property
    def part_bytes(self) -> tuple[int, ...]:
        """Length in bytes of the rows of each stack or movie."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Volumes or tracks of each."""


class Records(Protocol[Group]):
    """The records of all groups of a run."""

    def record(self, group: Group) -> Linked | None:
        """What was committed of a group; None where nothing was."""

    def source_state(self, group: Group) -> str | None:
        """A hash of the masks and rows that it would be made of now; None where units are missing."""

    def part(self, group: Group) -> Path:
        """The file with its rows."""


def write_linked_table(
    path: Path,
    columns: Iterable[Column],
    groups: Iterable[Group],
    records: Records[Group],
    number: Callable[[Group, Place], int | None],
) -> int:
    """Writes a table from the rows of all groups that are linked, and returns the sum of their counts.

    number: the time point of a stack or the z-slice of a movie, by which those of one image are ordered; None without.
    """
    rows = sorted(_rows(groups, records, number), key=lambda one: one[:2])
    with whole_file(path) as file, TableParts() as parts:
        file.write(csv_text([names(columns)]).encode())
        for _, _, _, part, offset, length in rows:
            parts.copy(part, offset, length, [file])
    return sum(count for _, _, count, *_ in rows)


def _rows(
    groups: Iterable[Group], records: Records[Group], number: Callable[[Group, Place], int | None]
) -> Iterator[tuple[str, int, int, Path, int, int]]:
    """Of each stack or movie that is linked: image, number, count, and where its rows are."""
    for group in groups:
        linked = records.record(group)
        if linked is None or linked.source != records.source_state(group):
            continue
        offset = 0
        for place, count, length in zip(group.places, linked.counts, linked.part_bytes, strict=True):
            image: ImageInfo = group.image(place)
            at = number(group, place)
            yield image.key, -1 if at is None else at, count, records.part(group), offset, length
            offset += length
