"""Movies whose frames are all done: one track for each nucleus over time, from masks of two frames at a time.

Tracks are a table and no label image: each frame keeps its labels, which its rows of nuclei.csv name, and a join by
image, t and label adds the track to these. Memory is that of a few frames, their masks as runs, whatever the length of
the movie; pixels that labels share are added up over regions of large planes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import LabelRuns, Overlaps, overlaps, summed
from nucseg_batch.arrays.tracks import tracks
from nucseg_batch.errors import DamageError
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.run.finish import PlaneEntry, collect_group
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.track_records import LinkedMovies, TrackRecords
from nucseg_batch.files.run.track_table import FrameNuclei, TrackTable
from nucseg_batch.plan import MovieGroup

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
    lengths, counts = list[int](), list[int]()
    with records.rows(group) as file:
        for place in group.places:
            frames, begin, count = _Frames(group, place, entries, table, writer), file.tell(), 0
            for t, found in enumerate(tracks(frames)):
                file.write(table.text(group, place, t, frames.taken(t), found).encode())
                count = max(count, int(found.ids.max(initial=0)))
            lengths.append(file.tell() - begin)
            counts.append(count)
    linked = LinkedMovies(source, tuple(counts), tuple(lengths))
    records.commit(group, linked)
    return linked


class _Frames:
    """The frames of a movie one after the other, as `tracks` takes them; those that it holds are kept."""

    def __init__(
        self,
        group: MovieGroup,
        place: Place,
        entries: Mapping[Place, PlaneEntry],
        table: TrackTable,
        writer: MaskWriter,
    ) -> None:
        self._group = group
        self._place = place
        self._entries = entries
        self._table = table
        self._path = writer.path
        self._array = writer.open(group.label_array)
        self._kept: dict[int, FrameNuclei] = {}

    def __iter__(self) -> Iterator[tuple[NDArray[np.float64], Overlaps | None]]:
        before: list[LabelRuns] | None = None
        for t in range(self._group.frames):
            entry = self._entries[t, *self._place]
            frame = self._kept[t] = _frame(entry, self._table)
            here = [LabelRuns.of(self._window(t, region)) for region in range(self._group.label_array.grid.per_plane)]
            areas = np.sum([runs.areas(len(frame.places)) for runs in here], axis=0)
            if areas[-1] or not areas[:-1].all():  # areas may differ by pixels on which regions did not agree
                raise DamageError(
                    f"{entry.image}: the mask of time point {t} does not hold the nuclei of its rows; {_MEND}"
                )
            near = None if before is None else summed(list(map(overlaps, before, here)))
            before = here
            yield frame.places, near

    def taken(self, t: int) -> FrameNuclei:
        """The nuclei of a frame that was given, once."""
        return self._kept.pop(t)

    def _window(self, t: int, region: int) -> NDArray[np.uint32]:
        """A region of a frame."""
        try:
            part: tuple[Any, ...] = (t, *self._place, *self._group.unit(t, region).bounds[-2:])
            return np.asarray(self._array[part], np.uint32)
        except OSError:
            raise
        except Exception as error:  # what zarr and its codecs raise for damaged chunks is of many classes
            name = self._group.label_array.name
            raise DamageError(
                f"{self._path}: masks of {name} cannot be read ({type(error).__name__}); {_MEND}"
            ) from error


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
