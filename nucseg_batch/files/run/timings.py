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
class DeviceTotal:
    """What the device did, over all streams of a process or of a run."""

    name: str = ""
    """Its name; of several kinds those of all, with semicolons."""
    driver: str = ""
    """Version of the driver of a GPU."""
    programs: int = 0
    """Programs that were compiled, by each process for itself."""
    compiling: float = 0.0
    """Seconds of their first calls, in which they are compiled, over all threads."""
    busy: float = 0.0
    """Seconds in which GPUs were at work, as their driver says; the mean of several."""
    of: float = 0.0
    """Seconds in which the driver was asked; 0 where that was not possible, as on a processor."""

    @property
    def share(self) -> float | None:
        """Part of the time in which GPUs were at work, 0 to 1; None where that is not known."""
        return self.busy / self.of if self.of else None

    def add(self, other: DeviceTotal) -> None:
        """Adds another."""
        self.name, self.driver = _both(self.name, other.name), _both(self.driver, other.driver)
        self.programs += other.programs
        self.compiling += other.compiling
        self.busy += other.busy
        self.of += other.of

    def lines(self) -> list[str]:
        """What to write into a log."""
        driver = f", driver {self.driver}" if self.driver else ""
        found = [f"device {self.name}{driver}"] if self.name else []
        if self.programs:
            found.append(f"device: {self.programs} programs compiled, {self.compiling:.1f} s in their first calls")
        if self.share is not None:
            found.append(f"device: at work {self.share:.0%} of {self.of:.1f} s, as the driver says")
        return found


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
    device: DeviceTotal = field(default_factory=DeviceTotal)
    """What the device did."""

    def add(self, other: Timings) -> None:
        """Adds the stages of another, and extends the time to that of both."""
        self.began, self.ended = min(self.began, other.began), max(self.ended, other.ended)
        self.device.add(other.device)
        for name, more in other.stages.items():
            total = self.stages.setdefault(name, StageTotal())
            total.work, total.busy, total.of = total.work + more.work, total.busy + more.busy, total.of + more.of


def now() -> datetime:
    """The time with its zone, in whole seconds."""
    return datetime.now().astimezone().replace(microsecond=0)


_adding = threading.Lock()
"""Workers of a cluster have several streams at a time."""


def add_timings(
    store: Path, began: datetime, stages: Mapping[str, StageTotal], device: DeviceTotal | None = None
) -> None:
    """Adds a stream that ends now to the file of this process; raises OSError where it cannot be written.

    A process that only asks the driver, while others compute, has no stages.
    """
    if not stages and device is None:
        return
    path = RunLayout(store).timings / f"{process_name()}.json"
    with _adding:
        path.parent.mkdir(exist_ok=True)
        total = Timings(began, now(), stages=dict(stages), device=device or DeviceTotal())
        if earlier := _read(path):
            total.add(earlier)
        write_whole(path, json.dumps(asdict(total), default=str, indent=1))


def read_timings(store: Path) -> Timings | None:
    """The sum over all processes of a run; None where nothing is known, as of runs of earlier versions."""
    whole: Timings | None = None
    for one in filter(None, map(_read, sorted(RunLayout(store).timings.glob("*.json")))):
        one.processes = 1 if one.stages else 0
        if whole is None:
            whole = one
        else:
            whole.add(one)
            whole.processes += one.processes
    return whole


def _read(path: Path) -> Timings | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_text(encoding="utf-8"))
        stages = {name: StageTotal(**total) for name, total in record["stages"].items()}
        began, ended = (datetime.fromisoformat(record[name]) for name in ("began", "ended"))
        device = DeviceTotal(**record.get("device", {}))  # runs begun by earlier versions have none
        return Timings(began, ended, stages=stages, device=device)
    return None


def _both(one: str, other: str) -> str:
    """Names without repetition."""
    return "; ".join(dict.fromkeys(filter(None, [*one.split("; "), *other.split("; ")])))
