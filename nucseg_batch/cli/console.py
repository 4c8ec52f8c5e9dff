"""Where results are printed."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console

from nucseg_batch.cli.text import readable
from nucseg_batch.errors import StorageError


class PatientConsole(Console):
    """A console that goes on in silence when nobody reads what it prints: the work is done and its exit code stands."""

    def on_broken_pipe(self) -> None:
        """Sends what is left to say to nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), (sys.stderr if self.stderr else sys.stdout).fileno())

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; results that cannot be printed are an error, what is told on the way is not."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.stderr:
                raise StorageError(
                    f"standard output cannot be written ({error.strerror}); what was done is on disk."
                ) from error
            self.quiet = True


def console_of_progress() -> Console:
    """A console on standard error, for what is told on the way."""
    return PatientConsole(stderr=True, highlight=False, soft_wrap=True)


def console() -> Console:
    """A console for results: long lines are not broken, so that they can be copied."""
    return PatientConsole(highlight=False, soft_wrap=True)


def say(line: str) -> None:
    """Prints one line as it is."""
    console().print(readable(line), markup=False)
