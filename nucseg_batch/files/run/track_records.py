"""What a run remembers of movies whose nuclei are linked over time points, in the folder `tracks` of the run folder.

Of each group of movies: its rows of tracks.csv, and a record that is written last, when the rows are on disk. The
record says of which masks and rows the tracks are: where these are other ones now, it does not count.
"""

from __future__ import annotations

import dataclasses
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

from nucseg_batch.files.atomic_write import file_sha256, whole_file, write_whole
from nucseg_batch.files.run.journal import TRACK_RECORDS, Journal
from nucseg_batch.files.run.stack_records import state_of_units
from nucseg_batch.plan import MovieGroup


@dataclass(frozen=True)
class LinkedMovies:
    """What a group of movies whose nuclei are linked says of itself."""

    source: str
    """The state of the units that it was made of, see `TrackRecords.source_state`."""
    tracks: tuple[int, ...]
    """Tracks of each movie."""
    part_bytes: tuple[int, ...]
    """Length in bytes of the rows of each movie."""
    part_sha256: str = ""
    """Of the rows; `TrackRecords.commit` fills it in."""
    laptrack: str = ""
    """The version that linked them; `TrackRecords.commit` fills it in."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tracks of each movie."""
        return self.tracks


class TrackRecords:
    """The records of the movies of a run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folder = journal.folder / TRACK_RECORDS

    def source_state(self, group: MovieGroup) -> str | None:
        """A hash of the masks and rows that tracks of a group are made of; None where units are missing."""
        return state_of_units(self._journal, group.units, group.large_planes())

    def record(self, group: MovieGroup) -> LinkedMovies | None:
        """What was committed of a group; None where nothing was, or its record or rows are damaged."""
        try:
            values = json.loads(self._path(group).read_bytes())
            linked = LinkedMovies(**{**values, **{name: tuple(values[name]) for name in ("tracks", "part_bytes")}})
            whole = self.part(group).stat().st_size == sum(linked.part_bytes)
            return linked if whole and len(linked.part_bytes) == len(linked.tracks) == len(group.places) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def rows(self, group: MovieGroup) -> AbstractContextManager[IO[bytes]]:
        """The file for the rows of a group, which are written before it is committed."""
        self._folder.mkdir(exist_ok=True)
        return whole_file(self.part(group))

    def commit(self, group: MovieGroup, linked: LinkedMovies) -> None:
        """Records a group whose rows are written."""
        digest = file_sha256(self.part(group))
        done = dataclasses.replace(linked, part_sha256=digest, laptrack=metadata.version("laptrack"))
        write_whole(self._path(group), json.dumps(dataclasses.asdict(done), sort_keys=True))

    def retract(self, group: MovieGroup) -> None:
        """Takes the record of a group away, before it is linked again or because its rows are damaged."""
        self._journal.reopen()
        self._path(group).unlink(missing_ok=True)

    def part(self, group: MovieGroup) -> Path:
        """The rows of tracks.csv of a group."""
        return self._folder / f"{group.name}.tracks.csv"

    def committed_ns(self, group: MovieGroup) -> int:
        """When a group was committed, in nanoseconds."""
        return self._path(group).stat().st_mtime_ns

    def _path(self, group: MovieGroup) -> Path:
        return self._folder / f"{group.name}.json"
