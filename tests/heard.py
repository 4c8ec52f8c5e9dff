"""Who listens to a training in tests."""

from __future__ import annotations


class Heard:
    """Remembers what a training told, and can stop it after a pass as a kill would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.steps = 0
        self._stop_after = stop_after

    def note(self, line: str) -> None:
        self.lines.append(line)

    def step(self, epoch: int, done: int, total: int, loss: float) -> None:
        if self._stop_after is not None and epoch > self._stop_after and done == 2:
            raise KeyboardInterrupt
        self.steps += 1

    def epoch(self, row: dict[str, float]) -> None:
        self.rows.append(row)
