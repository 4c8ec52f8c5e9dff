"""Shows how far a training is: a row for each pass, and on a terminal a bar for the pass that runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from nucseg_batch.cli.console import console_of_progress
from nucseg_batch.cli.progress import duration
from nucseg_batch.files.names import readable

COLUMNS = {
    "loss": "loss",
    "val_loss": "val loss",
    "val_foreground_iou": "fg IoU",
    "val_ap50": "AP@.5",
    "val_ap": "AP",
}
"""What a row shows of a pass, and its heading."""
WIDTH = 9
LINE_SECONDS = 60.0
"""Where there is no terminal, time between lines within a pass."""


class TrainingProgress:
    """Progress of `train` on stderr; `clock` gives seconds and is only passed in by tests."""

    def __init__(
        self, epochs: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or console_of_progress()
        self._epochs = epochs
        self._clock = clock
        self._began: float | None = None
        self._first = 0
        self._said = clock()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, line: str) -> None:
        """One line that stays."""
        self._console.print(readable(line), markup=False)

    def step(self, epoch: int, done: int, total: int, loss: float) -> None:
        """So many batches of a pass are done."""
        if self._began is None:
            self._began, self._first = self._clock(), epoch
            heads = "".join(f"{head:>{WIDTH}}" for head in COLUMNS.values())
            self._console.print(f"{'epoch':>{WIDTH}}{heads}     time left", markup=False)
        if self._console.is_terminal and self._bar is None:
            columns = (TextColumn("  epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn())
            self._bar = Progress(
                *columns,
                TextColumn("loss {task.fields[loss]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total, epoch=epoch, loss="")
            self._bar.start()
        elif not self._console.is_terminal and self._clock() - self._said > LINE_SECONDS:
            self._said = self._clock()
            self.note(f"epoch {epoch}: {done} of {total} batches, loss {loss:.3f}")
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, epoch=epoch, loss=f"{loss:.3f}")

    def epoch(self, row: dict[str, float]) -> None:
        """A pass is done: one row."""
        done = int(row["epoch"])
        values = "".join(f"{_number(row[name]):>{WIDTH}}" for name in COLUMNS)
        left = ""
        if self._began is not None and done < self._epochs:
            left = duration((self._clock() - self._began) / (done - self._first + 1) * (self._epochs - done))
        self._console.print(f"{f'{done}/{self._epochs}':>{WIDTH}}{values}{left:>14}", markup=False)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
