"""Movies whose frames are all done: one track for each nucleus over time, from masks of two frames at a time.

Tracks are a table and no label image: each frame keeps its labels, which its rows of nuclei.csv name, and a join by
image, t and label adds the track to these. Memory is that of two frames as runs, and about 2 kB for each nucleus
of each frame, most of it in laptrack; pixels that labels share are added up over regions of large planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, Overlaps, overlaps, summed
from nucseg_batch.arrays.tracks import track
from nucseg_batch.errors import DamageError
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.run.finish import PlaneEntry, collect_group
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.track_records import LinkedMovies, TrackRecords
from nucseg_batch.files.run.track_table import FrameNuclei, TrackTable
from nucseg_batch.plan import MovieGroup, Unit

Place = tuple[int, ...]
"""Where a movie lies along the axes of its array between t and y."""
_MEND = "`nucseg-batch verify --redo` and then the same `segment` mend it."


def link_movies(group: MovieGroup, *, journal: Journal, writer: MaskWriter, table: TrackTable) -> LinkedMovies:
    """Links the nuclei of a group of movies whose units are all done, and writes their rows.

    Doing it again gives the same bytes. Raises DamageError where masks or rows cannot be read.
    """
    records = TrackRecords(journal)
    source = records.source_state(group)
    assert source is not None, group.name
    records.retract(group)
    entries = collect_group(group, journal)
    texts, counts = list[bytes](), list[int]()
    for place in group.places:
        movie = [entries[t, *place] for t in range(group.frames)]
        frames = [_frame(entry, table) for entry in movie]
        found = track([frame.places for frame in frames], _overlaps(group, place, frames, movie, writer))
        texts.append(table.text(group, place, frames, found).encode())
        counts.append(found.parents.size - 1)
    linked = LinkedMovies(source, tuple(counts), tuple(map(len, texts)))
    records.commit(group, linked, b"".join(texts))
    return linked


def _frame(entry: PlaneEntry, table: TrackTable) -> FrameNuclei:
    """The nuclei of a frame; none of one that failed."""
    if not isinstance(entry.outcome, PlaneResult) or entry.part is None:
        return table.frame("")
    try:
        with open(entry.part, "rb") as file:
            file.seek(entry.offset)
            return table.frame(file.read(entry.outcome.part_bytes).decode())
    except (ValueError, IndexError) as error:
        raise DamageError(f"{entry.part}: its rows cannot be read ({type(error).__name__}); {_MEND}") from error


def _overlaps(
    group: MovieGroup, place: Place, frames: Sequence[FrameNuclei], movie: Sequence[PlaneEntry], writer: MaskWriter
) -> list[Overlaps]:
    """For each frame but the first the pixels that labels of the frame before share with its own."""
    array = writer.open(group.label_array)

    def window(t: int, unit: Unit) -> NDArray[np.uint32]:
        try:
            part: tuple[Any, ...] = (t, *place, *unit.bounds[-2:])
            return np.asarray(array[part], np.uint32)
        except OSError:
            raise
        except Exception as error:  # what zarr and its codecs raise for damaged chunks is of many classes
            raise DamageError(
                f"{writer.path}: masks of {group.label_array.name} cannot be read ({type(error).__name__}); {_MEND}"
            ) from error

    found: list[list[Overlaps]] = [[] for _ in frames]
    areas = [np.zeros(len(frame.places) + 1, np.int64) for frame in frames]
    for region in range(group.label_array.grid.per_plane):  # one after the other, so that two of them are held
        before: LabelRuns | None = None
        for t, frame in enumerate(frames):
            here = LabelRuns.of(window(t, group.unit(t, region)))
            areas[t] += here.areas(len(frame.places))
            if before is not None:
                found[t].append(overlaps(before, here))
            before = here
    for t, counted in enumerate(areas):
        if counted[-1] or not counted[:-1].all():  # areas may differ by pixels on which regions did not agree
            raise DamageError(
                f"{movie[t].image}: the mask of time point {t} does not hold the nuclei of its rows; {_MEND}"
            )
    return [summed(parts) for parts in found[1:]]
