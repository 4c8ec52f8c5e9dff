"""Which masks of a run are whole and final now: for readers of a run that is at work, was stopped, or is done again.

A mask without nuclei has no file, and neither has one that is not done yet; the run folder knows which is which. Before
a mask is written again, its record and the note that the run is finished are deleted. So a reader that finds these
before and after it reads, and unchanged, has read one whole mask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nucseg_batch.compartments import VOLUMES
from nucseg_batch.errors import MismatchError, UnfinishedError
from nucseg_batch.files.masks.store import label_path
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.plan import LabelArray, LargePlane, Plan, StackGroup, Unit

T = TypeVar("T")
Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """How some planes of one label array stand."""

    undone: int
    """Planes of these that are not done yet, or are being done again."""
    stamp: Stamp
    """When the records of all of them were written; it changes when any of them is done again."""


class WrittenMasks:
    """The masks of one run that are whole and final.

    plan: gives the plan, or None where it cannot be read; it is called only where the run is not finished.
    """

    def __init__(self, store: Path, plan: Callable[[], Plan | None] | None = None) -> None:
        self._journal = Journal(store)
        self._stacks = StackRecords(self._journal)
        self._plan = plan or self._read_plan
        self._arrays: Mapping[str, LabelArray] | None = None
        self._finished: tuple[Stamp, bool] = ((), False)
        self._good: dict[str, int] = {}

    def settled(self) -> Stamp | None:
        """What is the same before and after a time in which no mask was written; None while the run is not finished.

        Without a run folder it is always the same.
        """
        if self._is_finished():
            return self._finished[0]
        return None if self._journal.folder.is_dir() else ()

    def look(self, mask: str, where: Mapping[str, int]) -> Written | None:
        """How planes stand now; None where the run folder is gone or cannot be read, so that nothing is known.

        mask: their label group, of nuclei as in images.csv, or another beside it; where: their places along some of the
        axes t, i and z.
        """
        if self._is_finished():
            return Written(0, self._finished[0])
        group, _, label = mask.rpartition("/")
        if self._arrays is None:
            plan = self._plan()
            self._arrays = {} if plan is None else {labels_group(one): one for one in plan.label_arrays}
        label_array = self._arrays.get(group)
        return None if label_array is None else self._look(label_array, where, label)

    def read(self, name: str, mask: str, where: Mapping[str, int], values: Callable[[], T]) -> T:
        """What `values` reads of planes; it is called again where they were done again meanwhile.

        name: what to call them. Raises UnfinishedError where any of them is not done.
        """
        while True:
            before = self.check(name, mask, where)
            found = values()
            if before is None or self.check(name, mask, where) == before:
                return found

    def check(self, name: str, mask: str, where: Mapping[str, int]) -> Written | None:
        """How planes stand, as `look` finds; raises UnfinishedError where any of them is not done."""
        now = self.look(mask, where)
        if now is not None and now.undone:
            raise not_done(name, now.undone)
        return now

    def _is_finished(self) -> bool:
        """Whether the run is finished with no plane left out; the note of it is read again where it has changed."""
        state = self._journal.finish_state()
        if state != self._finished[0]:
            noted = self._journal.finished()
            self._finished = state, noted is not None and not noted.missing
        return self._finished[1]

    def _read_plan(self) -> Plan | None:
        try:
            return self._journal.load().plan if self._journal.exists() else None
        except (OSError, MismatchError):
            return None

    def _look(self, label_array: LabelArray, where: Mapping[str, int], label: str) -> Written:
        numbers = list(_shards(label_array, where))
        if label == VOLUMES:
            depth = math.prod(label_array.grid.counts[-3:])
            groups = dict.fromkeys(number // depth for number in numbers)
            stamps = [self._stacks_stamp(StackGroup(label_array, number)) for number in groups]
            planes = [_planes(label_array, where)] * len(stamps)
        elif label_array.regional:
            larges = dict.fromkeys(number // label_array.grid.per_plane for number in numbers)
            stamps = [self._large_stamp(LargePlane(label_array, number)) for number in larges]
            planes = [1] * len(stamps)
        else:
            units = [Unit(label_array, number) for number in numbers]
            stamps = [self._unit_stamp(unit) for unit in units]
            planes = [_planes(label_array, where, unit.shape) for unit in units]
        undone = sum(count for stamp, count in zip(stamps, planes, strict=True) if stamp is None)
        return Written(undone, tuple(stamp or 0 for stamp in stamps))

    def _unit_stamp(self, unit: Unit) -> int | None:
        try:
            stamp = self._journal.committed_ns(unit)
        except OSError:
            return None
        if self._good.get(unit.name) != stamp:
            if self._journal.marker(unit) is None:
                return None
            self._good[unit.name] = stamp
        return stamp

    def _large_stamp(self, large: LargePlane) -> int | None:
        """When a plane was joined; 0 for one that failed, which has no mask."""
        if self._journal.plane(large) is not None:
            try:
                return self._journal.plane_committed_ns(large)
            except OSError:
                return None
        markers = map(self._journal.marker, large.units)
        return 0 if any(marker is not None and marker.failures for marker in markers) else None

    def _stacks_stamp(self, group: StackGroup) -> int | None:
        linked = self._stacks.record(group)
        if linked is None or linked.source != self._stacks.source_state(group):
            return None
        try:
            return self._stacks.committed_ns(group)
        except OSError:
            return None


def labels_group(label_array: LabelArray) -> str:
    """The group that a label array's label images are in."""
    return label_path(label_array).rpartition("/")[0]


def not_done(name: str, count: int) -> UnfinishedError:
    """The error for planes that have no mask yet, or no longer."""
    planes = "1 plane of it is" if count == 1 else f"{count} planes of it are"
    return UnfinishedError(
        f"{name}: {planes} not segmented yet, or being segmented again; read it when `nucseg-batch status` says that "
        "the run is complete, or run the same `segment` again if no process works on it."
    )


def _shards(label_array: LabelArray, where: Mapping[str, int]) -> Iterator[int]:
    """Numbers of the shards that planes lie in."""
    grid = label_array.grid
    sides = zip(grid.axes, grid.counts, grid.shard, strict=True)
    blocks = [[where[axis] // step] if axis in where else range(count) for axis, count, step in sides]
    for block in itertools.product(*blocks):
        number = 0
        for place, count in zip(block, grid.counts, strict=True):
            number = number * count + place
        yield number


def _planes(label_array: LabelArray, where: Mapping[str, int], shape: tuple[int, ...] | None = None) -> int:
    """How many planes of a shape, or of the whole array, are at these places."""
    axes, lengths = label_array.axes[:-2], (shape or label_array.shape)[:-2]
    return math.prod(1 if axis in where else length for axis, length in zip(axes, lengths, strict=True))
