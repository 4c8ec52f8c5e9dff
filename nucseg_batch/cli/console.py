"""Where results are printed."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from nucseg_batch.cli.text import readable


class PatientConsole(Console):
    """A console that goes on in silence when nobody reads what it prints: the work is done and its exit code stands."""

    def on_broken_pipe(self) -> None:
        """Sends what is left to say to nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """A console for results: long lines are not broken, so that they can be copied."""
    return PatientConsole(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Prints one line as it is."""
    console().print(readable(line), markup=False)
