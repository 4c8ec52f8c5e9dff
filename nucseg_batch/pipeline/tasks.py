"""What one process is to do: units, whole or in part, with what is known of earlier tries."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from nucseg_batch.files.masks.store import shards_written
from nucseg_batch.files.retry import KILLED
from nucseg_batch.files.run.attempts import History
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, PlaneResult
from nucseg_batch.plan import Failure, Plane, Unit


@dataclass(frozen=True)
class UnitTask:
    """A unit that is to be done."""

    unit: Unit
    """The unit."""
    kept: Marker | None = None
    """What an earlier call left, where only some planes are done again."""
    again: frozenset[int] = frozenset()
    """These planes, as numbers in the unit; all where nothing is kept."""
    history: History = field(default_factory=History)
    """Earlier tries that ended with the death of a process."""

    @property
    def indices(self) -> list[int]:
        """The planes that are done, as numbers in the unit."""
        return sorted(self.again) if self.kept is not None else list(range(self.unit.plane_count))

    @property
    def pixels(self) -> int:
        """Pixels of these planes."""
        if self.unit.label_array.regional:
            return self.unit.pixels
        return len(self.indices) * self.unit.label_array.height * self.unit.label_array.width


def killer(plane: Plane) -> Failure:
    """The failure of a plane on which process after process died."""
    return Failure(
        plane.image.key,
        "segment",
        KILLED,
        "every process that worked on it was killed: because of the file, lack of memory, or from outside; the same "
        "command tries it again",
    )


def kept_rows(task: UnitTask, store: Path, journal: Journal) -> dict[int, str] | None:
    """The rows of nuclei.csv of the planes of a task that are kept, by number of the plane.

    None where these rows or the unit's masks are not what the marker says: then all of the unit must be done again.
    """
    assert task.kept is not None
    content = journal.part(task.unit).read_bytes()
    intact = hashlib.sha256(content).hexdigest() == task.kept.part_sha256
    if not intact or shards_written(store, task.unit).sha256 != task.kept.sha256:
        return None
    rows, start = {}, 0
    for index, plane in enumerate(task.kept.planes):
        length = plane.part_bytes if isinstance(plane, PlaneResult) else 0
        if index not in task.again:
            rows[index] = content[start : start + length].decode("utf-8", "surrogateescape")
        start += length
    return rows
