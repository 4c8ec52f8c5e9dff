"""The table of tracks: its columns, its rows, and the whole of it from the rows of all movies."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.tracks import FrameTracks
from nucseg_batch.columns import NUCLEUS_KEY, Column, names
from nucseg_batch.files.csv_rows import csv_row, csv_rows
from nucseg_batch.files.run.linked_table import write_linked_table
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.files.run.track_records import TrackRecords
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import MovieGroup

PLACE = ("centroid-0", "centroid-1")
"""Columns of nuclei.csv that tracks.csv repeats."""
TRACKS_COLUMNS = (
    *NUCLEUS_KEY,
    Column(
        "track_id",
        "track of the nucleus, 1 to n in each image, and with z-slices in each of these: ordered by the first time "
        "point, and in it by label",
        type="int32",
    ),
    Column("parent_track_id", "track that this one comes from by division", empty="none", type="int32"),
    Column("centroid-0", "mean row, as in nuclei.csv", "px"),
    Column("centroid-1", "mean column, as in nuclei.csv", "px"),
)
"""Columns of tracks.csv."""


@dataclass(frozen=True)
class FrameNuclei:
    """The nuclei of a frame, by label."""

    places: NDArray[np.float64]
    """(n, 3): row and column of the centroid, and area, of the labels 1..n, in pixels."""
    cells: list[tuple[str, str]]
    """The cells of the centroids."""


@dataclass(frozen=True)
class TrackTable:
    """The table of tracks of a run, computed from its table of nuclei."""

    nuclei: NucleiTable
    """The columns of nuclei.csv."""

    def frame(self, text: str) -> FrameNuclei:
        """The nuclei of a frame, from its rows of nuclei.csv; ValueError or IndexError where it is none of such."""
        known = names(self.nuclei.columns)
        label, area, *place = (known.index(name) for name in ("label", "area", *PLACE))
        rows = list(csv_rows(io.StringIO(text, newline="")))
        if [int(row[label]) for row in rows] != list(range(1, len(rows) + 1)):
            raise ValueError("labels are not 1 to n")
        values = [[float(row[at]) for at in (*place, area)] for row in rows]
        return FrameNuclei(
            np.array(values, np.float64).reshape(-1, 3), [(row[place[0]], row[place[1]]) for row in rows]
        )

    def text(self, group: MovieGroup, place: tuple[int, ...], t: int, frame: FrameNuclei, found: FrameTracks) -> str:
        """Rows of tracks.csv of a frame."""
        plane = group.label_array.plane((t, *place))
        start = csv_row((plane.image.key, plane.t, plane.z))
        rows = zip(found.ids.tolist(), found.parents.tolist(), frame.cells, strict=True)
        return "".join(
            f"{start},{label},{track},{parent or ''},{','.join(cells)}\n"
            for label, (track, parent, cells) in enumerate(rows, start=1)
        )


def write_tracks(store: Path, groups: Iterable[MovieGroup], records: TrackRecords) -> int:
    """Writes tracks.csv from the rows of all movies that are linked, by image and z-slice; returns how many tracks."""
    return write_linked_table(RunLayout(store).tracks_csv, TRACKS_COLUMNS, groups, records, MovieGroup.depth)
