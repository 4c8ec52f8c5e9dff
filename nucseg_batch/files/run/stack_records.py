"""What a run remembers of stacks whose nuclei are joined over z-slices, in the folder `volumes` of the run folder.

Of each group of stacks: its rows of volumes.csv, and a record that is written last, when shards and rows are on disk.
The record says of which masks and rows the volumes are: where these are other ones now, it does not count.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from nucseg_batch.files.atomic_write import file_sha256, whole_file, write_whole
from nucseg_batch.files.run.journal import VOLUME_RECORDS, Journal
from nucseg_batch.plan import Failure, LargePlane, StackGroup, Unit


@dataclass(frozen=True)
class LinkedStacks:
    """What a group of stacks whose nuclei are joined says of itself."""

    source: str
    """The state of the units that it was made of, see `source_state`."""
    volumes: tuple[int, ...]
    """Volumes of each stack."""
    part_bytes: tuple[int, ...]
    """Length in bytes of the rows of each stack."""
    shard_bytes: tuple[int, ...]
    """Sizes of the shards, one for each unit; 0 where there is none."""
    sha256: tuple[str, ...]
    """Of the contents of these shards."""
    part_sha256: str = ""
    """Of the rows; `StackRecords.commit` fills it in."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Volumes of each stack."""
        return self.volumes


class StackRecords:
    """The records of the stacks of a run."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folder = journal.folder / VOLUME_RECORDS

    def source_state(self, group: StackGroup) -> str | None:
        """A hash of the masks and rows that volumes of a group are made of; None where units are missing."""
        return state_of_units(self._journal, group.units, group.large_planes())

    def record(self, group: StackGroup) -> LinkedStacks | None:
        """What was committed of a group; None where nothing was, or its record or rows are damaged."""
        try:
            values = json.loads(self._path(group).read_bytes())
            lists = ("volumes", "part_bytes", "shard_bytes", "sha256")
            linked = LinkedStacks(**{**values, **{name: tuple(values[name]) for name in lists}})
            whole = self.part(group).stat().st_size == sum(linked.part_bytes)
            whole &= len(linked.shard_bytes) == len(linked.sha256) == len(group.units)
            return linked if whole and len(linked.part_bytes) == len(group.places) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def rows(self, group: StackGroup) -> AbstractContextManager[IO[bytes]]:
        """The file for the rows of a group, which are written before it is committed."""
        self._folder.mkdir(exist_ok=True)
        return whole_file(self.part(group))

    def commit(self, group: StackGroup, linked: LinkedStacks) -> None:
        """Records a group whose rows and shards are on disk."""
        done = dataclasses.replace(linked, part_sha256=file_sha256(self.part(group)))
        write_whole(self._path(group), json.dumps(dataclasses.asdict(done), sort_keys=True))

    def retract(self, group: StackGroup) -> None:
        """Takes the record of a group away, before its shards are written again or because they are damaged."""
        self._journal.reopen()
        self._path(group).unlink(missing_ok=True)

    def part(self, group: StackGroup) -> Path:
        """The rows of volumes.csv of a group."""
        return self._folder / f"{group.name}.volumes.csv"

    def committed_ns(self, group: StackGroup) -> int:
        """When a group was committed, in nanoseconds."""
        return self._path(group).stat().st_mtime_ns

    def _path(self, group: StackGroup) -> Path:
        return self._folder / f"{group.name}.json"


def state_of_units(journal: Journal, units: Sequence[Unit], large_planes: Sequence[LargePlane]) -> str | None:
    """A hash of the masks and rows of units; None where some are missing.

    large_planes: all planes that they are regions of; none where they hold whole planes.
    """
    state = hashlib.sha256()
    markers = list(map(journal.marker, units))
    if any(marker is None for marker in markers):
        return None
    if large_planes:
        for large in large_planes:
            joined = journal.plane(large)
            if joined is None and not any(
                marker is None or marker.failures for marker in map(journal.marker, large.units)
            ):
                return None  # its regions are done, but not joined yet
            state.update(repr(None if joined is None else (joined.sha256, joined.part_sha256)).encode())
        return state.hexdigest()
    for marker in markers:
        assert marker is not None
        failed = [isinstance(plane, Failure) for plane in marker.planes]
        state.update(repr((marker.sha256, marker.part_sha256, failed)).encode())
    return state.hexdigest()
