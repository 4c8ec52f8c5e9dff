"""The section on tracks: how many, how long, divisions, and the tracks of one movie over its first and last frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nucseg_batch.errors import NucsegError
from nucseg_batch.files.csv_rows import csv_records, open_table
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report.charts import Histogram
from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.linked_pictures import LinkedPicture, Path, draw_linked
from nucseg_batch.results.report.windows import window
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow
from nucseg_batch.results.tracks import ImageTracks, RunTracks


@dataclass(frozen=True)
class TracksSection:
    """What the report says of tracks."""

    count: int
    """Tracks."""
    movies: int
    """Movies with nuclei; each z-slice is one."""
    divisions: int
    """Tracks that end in a division."""
    gaps: int
    """Tracks with a time point at which the nucleus is missing."""
    charts: list[Histogram]
    """Lengths of tracks."""
    image: str
    """Image of the movie that is shown."""
    pictures: list[LinkedPicture]
    """Its first and last frame with nuclei; none where masks cannot be read."""


def tracks_section(run: FinishedRun) -> TracksSection | None:
    """Reads tracks.csv once; None of a run without tracks. Memory is that of the tracks of one movie."""
    path = RunLayout(run.store).tracks_csv
    if not path.is_file():
        return None
    lengths = Distribution()
    count = movies = divisions = gaps = most = 0
    image, depth = "", ""
    with open_table(path) as file:
        for key, group in itertools.groupby(csv_records(file), key=lambda row: (row["image"], row["z"])):
            spans, mothers = dict[str, list[int]](), set[str]()
            for row in group:
                span = spans.setdefault(row["track_id"], [int(row["t"]), 0, 0])
                span[1:] = int(row["t"]), span[2] + 1
                if row["parent_track_id"]:
                    mothers.add(row["parent_track_id"])
            long = np.array([last - first + 1 for first, last, _ in spans.values()])
            lengths.add(long.astype(np.float64))
            gaps += int((long > np.array([found for *_, found in spans.values()])).sum())
            count, movies, divisions = count + len(spans), movies + 1, divisions + len(mothers)
            if len(spans) > most:
                most, image, depth = len(spans), *key
    if not count:
        return None
    chart = Histogram(lengths, "Length of tracks", "time points from the first to the last", "tracks", whole=True)
    pictures = list(_pictures(run, file_name(image), depth))
    return TracksSection(count, movies, divisions, gaps, [chart], file_name(image), pictures)


def _pictures(run: FinishedRun, image: str, depth: str) -> Iterator[LinkedPicture]:
    """The first frame with nuclei, and the last one with the paths of all tracks, of the same part of the plane."""
    rows = [row for row in run.planes() if row.image == image and row.key[2] == depth and row.segmented and row.nuclei]
    tracks = RunTracks(run.store).of(rows[0]) if rows else None
    if tracks is None:
        return
    centres = np.concatenate([tracks.centres[row.key] for row in rows if row.key in tracks.centres])
    part = window(rows[0].shape, centres, np.ones(len(centres)), None)
    for row in dict.fromkeys((0, len(rows) - 1)):
        plane = rows[row]
        numbers = np.concatenate([[0], tracks.ids[plane.key]]).astype(np.uint32)
        try:
            mask = np.take(numbers, run.mask(plane, part.rows, part.columns), mode="clip")
        except NucsegError:
            continue
        last = row == len(rows) - 1 and row > 0
        what = f"time point {plane.t}{', with the paths of all tracks' if last else ''}"
        yield draw_linked(run, plane, mask, part, what, _paths(rows, tracks) if last else ())


def _paths(rows: list[PlaneRow], tracks: ImageTracks) -> Iterator[Path]:
    """The centroids of each track over time; those of a daughter begin with the last one of the mother."""
    found: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        for track, (y, x) in zip(tracks.ids[row.key].tolist(), tracks.centres[row.key].tolist(), strict=True):
            mother = found.get(tracks.parents.get((row.key[2], track), 0))
            found.setdefault(track, mother[-1:] if mother else []).append((y, x))
    return ((track, np.array(places)) for track, places in found.items())
