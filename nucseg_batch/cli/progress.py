"""Shows how far a run is: a moving bar on a terminal, one plain line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from nucseg_batch.cli.console import console_of_progress, voice
from nucseg_batch.cli.text import three_digits
from nucseg_batch.files.names import readable

LINE_SECONDS = 5.0
"""Time between plain lines."""
ENOUGH = 0.02
"""Part of all pixels that must be done before it is told how long the others take."""
QUIET_SECONDS = 2.0
"""Work shorter than this shows no progress."""


class RunProgress:
    """Progress of `segment`; a context manager, all of whose output goes to stderr.

    `clock` gives seconds and is only passed in by tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or console_of_progress()
        self._clock = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = "images"
        self._began = self._last_line = clock()
        self._first: tuple[float, int] | None = None  # when the first image was finished, and its pixels
        self._images = self._total_images = self._pixels = self._total_pixels = self._nuclei = self._failed = 0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, line: str) -> None:
        """One line that stays."""
        self._console.print(readable(line), markup=False)

    def detail(self, line: str) -> None:
        """One line for those who asked for more."""
        if voice.verbose:
            self.note(line)

    def headers(self, done: int, total: int) -> None:
        """So many headers of all were read."""
        now = self._clock()
        if now - self._began > QUIET_SECONDS and (now - self._last_line > LINE_SECONDS or done == total):
            self._last_line = now
            self.note(f"planning: {done} of {total} headers read")

    def start(self, count: int, pixels: int, what: str) -> None:
        """Segmenting begins: so many images, planes or regions, as `what` says."""
        self._total_images, self._total_pixels, self._what = count, pixels, what
        self._began = self._last_line = self._clock()
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                MofNCompleteColumn(),
                TextColumn(what),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=count, speed="")
            self._bar.start()

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None:
        """One more plane, or region of one, is finished."""
        self._images += 1
        self._pixels += pixels
        self._nuclei += nuclei
        self._failed += failed
        now = self._clock()
        self._first = self._first or (now, pixels)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, speed=self._speed(now))
        elif now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self.note(
                f"{self._images} of {self._total_images} {self._what}, {self._nuclei} nuclei, {self._speed(now)}"
                f"{self._left(now)}"
            )

    def _left(self, now: float) -> str:
        """How long it takes yet; nothing while too little is done to say, as where small images come first.

        Counted from the first image on: until then loops may be compiled, and graphs are made.
        """
        began, pixels = self._first or (now, 0)
        done = self._pixels - pixels
        if done <= 0 or self._pixels < ENOUGH * self._total_pixels:
            return ""
        left = (self._total_pixels - self._pixels) * (now - began) / done
        return f", about {duration(left)} left"

    def _speed(self, now: float) -> str:
        seconds = max(now - self._began, 1e-9)
        images, megapixels = self._images / seconds, self._pixels / seconds / 1e6
        text = f"{three_digits(images)} {self._what}/s, {three_digits(megapixels)} Mpx/s"
        return f"{text}, {self._failed} failed" if self._failed else text


class StepProgress:
    """Progress of a loop with a known number of steps, as plain lines; silent for short ones."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._began = self._last_line = clock()

    def __call__(self, done: int, total: int) -> None:
        """So many steps of all are done."""
        now = self._clock()
        if not voice.quiet and now - self._began > QUIET_SECONDS and now - self._last_line > LINE_SECONDS:
            self._last_line = now
            with contextlib.suppress(OSError):
                print(f"{self._what}: {done} of {total}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: 43 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
