"""Mistakes that a program of this kind could make, for the tests to find: each function makes one in this process.

Only the driver calls them. A harness that overlooks one of them would overlook a real one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from nucseg_batch.executors import pending
from nucseg_batch.files.masks import nodes, store
from nucseg_batch.files.run import finish
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Plan


def marker_before_mask() -> None:
    """A unit is called done before its masks are there."""
    waiting: list[tuple[Path, bytes]] = []
    commit, write = Journal.commit, nodes.write_whole

    def mistaken(self: Journal, *arguments: Any) -> None:
        commit(self, *arguments)
        while waiting:
            write(*waiting.pop(0))

    def later(path: Path, content: bytes) -> None:
        waiting.append((path, content)) if "c" in path.parts else write(path, content)

    Journal.commit = mistaken
    nodes.write_whole = later


def append_to_the_table() -> None:
    """The table of nuclei is added to where it should be replaced."""
    whole_file = finish.whole_file

    @contextlib.contextmanager
    def mistaken(path: Path, **options: Any) -> Iterator[IO[bytes]]:
        if path.name.endswith(".nuclei.csv"):
            with open(path, "ab") as file:
                yield file
        else:
            with whole_file(path, **options) as file:
                yield file

    finish.whole_file = mistaken


def resume_by_chunks() -> None:
    """Units count as done when there are masks, whatever the markers say."""

    def mistaken(self: Any, unit: Any) -> UnitTask | None:
        return None if pending.shard_bytes(self._store, unit) else UnitTask(unit)

    pending._Finder.task = mistaken


def shares_of_the_scheduler() -> None:
    """The number of shares is what the scheduler says of the array, not what was planned."""
    share = Plan.share

    def mistaken(self: Plan, number: int, count: int) -> Any:
        return share(self, number, int(os.environ.get("SLURM_ARRAY_TASK_COUNT", count)))

    Plan.share = mistaken


def time_in_attributes() -> None:
    """The store says when it was made."""
    label_attributes = store.label_attributes
    store.label_attributes = lambda *a, **more: {**label_attributes(*a, **more), "made": {"at": time.time_ns()}}
