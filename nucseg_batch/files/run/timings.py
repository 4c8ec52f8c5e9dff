"""How long the stages of a run took: one file per process, which the report adds up."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from nucseg_batch.files.atomic_write import process_name, write_whole
from nucseg_batch.files.run_layout import RunLayout


@dataclass
class StageTotal:
    """One stage, over all streams of a process or of a run."""

    work: float = 0.0
    """Seconds over all threads."""
    busy: float = 0.0
    """Seconds in which at least one thread was at it."""
    of: float = 0.0
    """Seconds of the streams that it was part of."""


@dataclass
class Timings:
    """What processes took."""

    began: datetime
    """When the first stream began."""
    ended: datetime
    """When the last one ended."""
    processes: int = 1
    """How many processes."""
    stages: dict[str, StageTotal] = field(default_factory=dict)
    """By name, in the order of work."""

    def add(self, other: Timings) -> None:
        """Adds the stages of another, and extends the time to that of both."""
        self.began, self.ended = min(self.began, other.began), max(self.ended, other.ended)
        for name, more in other.stages.items():
            total = self.stages.setdefault(name, StageTotal())
            total.work, total.busy, total.of = total.work + more.work, total.busy + more.busy, total.of + more.of


def now() -> datetime:
    """The time with its zone, in whole seconds."""
    return datetime.now().astimezone().replace(microsecond=0)


_adding = threading.Lock()
"""Workers of a cluster have several streams at a time."""


def add_timings(store: Path, began: datetime, stages: Mapping[str, StageTotal]) -> None:
    """Adds a stream that ends now to the file of this process; raises OSError where it cannot be written."""
    if not stages:
        return
    path = RunLayout(store).timings / f"{process_name()}.json"
    with _adding:
        path.parent.mkdir(exist_ok=True)
        total = Timings(began, now(), stages=dict(stages))
        if earlier := _read(path):
            total.add(earlier)
        write_whole(path, json.dumps(asdict(total), default=str, indent=1))


def read_timings(store: Path) -> Timings | None:
    """The sum over all processes of a run; None where nothing is known, as of runs of earlier versions."""
    whole: Timings | None = None
    for one in filter(None, map(_read, sorted(RunLayout(store).timings.glob("*.json")))):
        if whole is None:
            whole = one
        else:
            whole.add(one)
            whole.processes += 1
    return whole


def _read(path: Path) -> Timings | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_text(encoding="utf-8"))
        stages = {name: StageTotal(**total) for name, total in record["stages"].items()}
        began, ended = (datetime.fromisoformat(record[name]) for name in ("began", "ended"))
        return Timings(began, ended, stages=stages)
    return None
