"""How busy the stages of a stream are, and how full its queues: what tells which of them bounds the speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nucseg_batch.files.run.timings import StageTotal


@dataclass
class _Stage:
    work: float = 0.0
    busy: float = 0.0
    threads: int = 0
    since: float = 0.0


class StageTimer:
    """Seconds of work and depths of queues by name; one for all threads of a stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._depths: dict[str, tuple[float, int, float]] = {}
        self._began: float | None = None
        self._ended = 0.0

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Counts the time in the block as work of a stage; several threads may be at it."""
        began = time.monotonic()
        with self._lock:
            self._began = began if self._began is None else self._began
            counts = self._stages.setdefault(stage, _Stage())
            counts.threads += 1
            counts.since = began if counts.threads == 1 else counts.since
        try:
            yield
        finally:
            ended = time.monotonic()
            with self._lock:
                counts.work += ended - began
                counts.threads -= 1
                counts.busy += ended - counts.since if counts.threads == 0 else 0.0
                self._ended = ended

    def depth(self, queue: str, length: float) -> None:
        """Notes how much waits in a queue."""
        with self._lock:
            total, count, most = self._depths.get(queue, (0.0, 0, 0.0))
            self._depths[queue] = total + length, count + 1, max(most, length)

    @property
    def seconds(self) -> float:
        """From the first work of any stage to the last."""
        with self._lock:
            return self._ended - self._began if self._began is not None else 0.0

    def share(self, stage: str) -> float:
        """Part of the time in which at least one thread was at a stage, 0 to 1."""
        seconds = self.seconds
        with self._lock:
            return self._stages.get(stage, _Stage()).busy / seconds if seconds else 0.0

    def totals(self) -> dict[str, StageTotal]:
        """The seconds of each stage, in the order in which they began."""
        seconds = self.seconds
        with self._lock:
            return {name: StageTotal(stage.work, stage.busy, seconds) for name, stage in self._stages.items()}

    def lines(self) -> list[str]:
        """What to write into a log: work and busy share of each stage, mean and largest depth of each queue."""
        stages = [
            f"stage {name}: at work {self.share(name):.0%} of {total.of:.1f} s; {total.work:.1f} s over all its "
            "threads, including waits for the device or a core"
            for name, total in self.totals().items()
        ]
        with self._lock:
            queues = [
                f"queue {name}: {total / count:.2g} on average, {most:.2g} at most"
                for name, (total, count, most) in self._depths.items()
            ]
        return stages + queues
