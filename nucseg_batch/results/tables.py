"""The tables of a run read back, row by row: of 10 million images none need be held."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import PLANE_KEY, PLANE_STATE, PLANE_SUMMARY, names
from nucseg_batch.errors import DamageError
from nucseg_batch.files.csv_rows import csv_rows, open_table, table_header
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run.dataset import dataset_columns, dataset_rows, is_dataset
from nucseg_batch.plan import PlaneStatus

PlaneKey = tuple[str, str, str]
"""The cells image, t and z of a row, as they stand in the tables."""


@dataclass(frozen=True, slots=True)
class PlaneRow:
    """A row of images.csv: one plane."""

    key: PlaneKey
    """What names the plane in all tables."""
    image: str
    """Path of the image relative to IN, as Python names files."""
    status: PlaneStatus
    """What became of it."""
    mask: str
    """Label group in the store; empty without a mask."""
    index: int | None
    """Place on axis i of the masks; None where they have no such axis."""
    t: int | None
    """Time point; None without such an axis."""
    z: int | None
    """Depth; None without such an axis."""
    time: int
    """Which of the image's time points, counted from 0: the place on axis t of the masks."""
    depth: int
    """Likewise on axis z."""
    values: Mapping[str, float]
    """The numbers of `columns.PLANE_SUMMARY` by name, where the table has one."""

    @property
    def segmented(self) -> bool:
        """Whether it has a mask."""
        return self.status is PlaneStatus.OK

    @property
    def name(self) -> str:
        """What to call it: `plate/A01.tif (t=3, z=1)`."""
        places = [f"{axis}={place}" for axis, place in (("t", self.t), ("z", self.z)) if place is not None]
        return f"{self.image} ({', '.join(places)})" if places else self.image

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels; of a plane with a mask."""
        return int(self.values["height"]), int(self.values["width"])

    @property
    def nuclei(self) -> int:
        """Nuclei found."""
        return int(self.values.get("nuclei", 0))


class PlaneNuclei:
    """The rows of nuclei.csv of one plane."""

    def __init__(self, columns: Sequence[str], rows: list[list[str]]) -> None:
        self.columns = tuple(columns)
        """Names of all columns."""
        self.rows = rows
        """The cells of each row."""

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Number of each nucleus in its mask, (n,)."""
        return self["label"].astype(np.int64)

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        """A column as numbers, (n,); NaN for empty cells. Raises KeyError where there is no such column."""
        if column not in self.columns:
            raise KeyError(column)
        place = self.columns.index(column)
        try:
            return np.array([float(row[place]) if row[place] else math.nan for row in self.rows], np.float64)
        except (IndexError, ValueError) as error:
            raise DamageError(
                f"the table of nuclei has a row that is cut or damaged in column {column}; `nucseg-batch finish` "
                "rewrites it."
            ) from error


def read_planes(table: Path) -> Iterator[PlaneRow]:
    """The rows of images.csv, in order; raises DamageError where the table is none of ours, or damaged."""
    with open_table(table) as file:
        rows = csv_rows(file)
        header = next(rows, [])
        if not set(names(PLANE_STATE)) <= set(header):
            raise DamageError(f"{table}: this is not a table of images that nucseg-batch wrote.")
        place = {name: header.index(name) for name in header}
        numbers = [(name, place[name]) for name in names(PLANE_SUMMARY) if name in place]
        for _, group in itertools.groupby(rows, key=lambda row: row[place["image"]]):
            yield from _planes_of_image(list(group), place, numbers)


def _planes_of_image(
    rows: list[list[str]], place: Mapping[str, int], numbers: Sequence[tuple[str, int]]
) -> Iterator[PlaneRow]:
    t, z = place["t"], place["z"]
    times = {cell: number for number, cell in enumerate(sorted({row[t] for row in rows}, key=_number))}
    depths = {cell: number for number, cell in enumerate(sorted({row[z] for row in rows}, key=_number))}
    for row in rows:
        index = row[place["index"]]
        yield PlaneRow(
            (row[place["image"]], row[t], row[z]),
            file_name(row[place["image"]]),
            PlaneStatus(row[place["status"]]),
            file_name(row[place["mask"]]),
            int(index) if index else None,
            int(row[t]) if row[t] else None,
            int(row[z]) if row[z] else None,
            times[row[t]],
            depths[row[z]],
            {name: float(row[i]) for name, i in numbers if row[i]},
        )


def _number(cell: str) -> int:
    return int(cell) if cell else -1


def nuclei_header(table: Path) -> tuple[str, ...]:
    """Names of the columns of the nuclei table, a CSV file or a dataset."""
    return dataset_columns(table) if is_dataset(table) else table_header(table)


@contextlib.contextmanager
def _nuclei_rows(table: Path) -> Iterator[Iterator[list[str]]]:
    """The rows of the nuclei table, the header first."""
    if is_dataset(table):
        yield dataset_rows(table)
        return
    with open_table(table) as file:
        yield csv_rows(file)


def read_nuclei(table: Path, planes: Iterable[PlaneRow]) -> Iterator[tuple[PlaneRow, PlaneNuclei]]:
    """Planes, in the order of the tables but not necessarily all of them, each with its rows of the nuclei table.

    The table is read once, from its beginning. Raises DamageError where it has rows of a plane that comes later in
    images.csv, or of none.
    """
    for plane, columns, rows in _nuclei_of(table, planes):
        yield plane, PlaneNuclei(columns, list(rows))


def read_nuclei_in_pieces(
    table: Path, planes: Iterable[PlaneRow], most: int = 100_000
) -> Iterator[tuple[PlaneRow, Iterator[PlaneNuclei]]]:
    """The same, each plane with its nuclei in pieces of at most so many: a slide has millions of them.

    The pieces of a plane must be taken before the next plane is.
    """

    def pieces(columns: Sequence[str], rows: Iterator[list[str]]) -> Iterator[PlaneNuclei]:
        while piece := list(itertools.islice(rows, most)):
            yield PlaneNuclei(columns, piece)

    for plane, columns, rows in _nuclei_of(table, planes):
        yield plane, pieces(columns, rows)


def _nuclei_of(
    table: Path, planes: Iterable[PlaneRow]
) -> Iterator[tuple[PlaneRow, Sequence[str], Iterator[list[str]]]]:
    """The planes, each with the names of the columns and its rows."""
    with _nuclei_rows(table) as rows:
        columns = next(rows, [])
        if tuple(columns[:3]) != names(PLANE_KEY):
            raise DamageError(f"{table}: this is not a table of nuclei that nucseg-batch wrote.")
        groups = itertools.groupby(rows, key=lambda row: (row[0], row[1], row[2]))
        key, group = next(groups, (None, None))
        for plane in planes:
            if not plane.nuclei:
                yield plane, columns, iter(())
                continue
            while key is not None and key != plane.key:
                key, group = next(groups, (None, None))
            if group is None:
                raise DamageError(f"{table}: it has no rows of {plane.name}; `nucseg-batch finish` rewrites it.")
            yield plane, columns, group
            key, group = next(groups, (None, None))
