"""Where results are printed, and how much is said: what every command has in common.

Results go to standard output and what is told on the way to standard error. With `--json` standard output holds one
JSON object and nothing else, and results for people go to standard error, too. `voice` is set once, by `main`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from nucseg_batch.errors import EXIT_OK, StorageError
from nucseg_batch.files.names import readable


@dataclass
class Verbosity:
    """How much this call says, and in which form."""

    quiet: bool = False
    """Whether nothing is said but errors, and JSON where it was asked for."""
    verbose: bool = False
    """Whether each image and what every stage does are told."""
    json: bool = False
    """Whether standard output is for one JSON object."""
    answered: bool = False
    """Whether that object was printed."""


voice = Verbosity()
"""That of this call."""


class PipeSafeConsole(Console):
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
                raise _unwritten(error) from error
            self.quiet = True


def console_of_progress() -> Console:
    """A console on standard error, for what is told on the way."""
    return PipeSafeConsole(stderr=True, highlight=False, soft_wrap=True, quiet=voice.quiet)


def console(*, soft_wrap: bool = True) -> Console:
    """A console for results: long lines are not broken, so that they can be copied, unless `soft_wrap` is False."""
    return PipeSafeConsole(stderr=voice.json, highlight=False, soft_wrap=soft_wrap, quiet=voice.quiet)


def say(line: str) -> None:
    """Prints one line as it is."""
    console().print(readable(line), markup=False)


def answer(record: Mapping[str, Any], exit_code: int = EXIT_OK, *, error: str | None = None) -> None:
    """Prints what `--json` asked for: one object, with the exit code that the call ends with, and its error if any."""
    whole = {**record, "exit_code": exit_code, **({} if error is None else {"error": error})}
    voice.answered = True
    try:
        print(json.dumps(whole, indent=1), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as failed:
        raise _unwritten(failed) from failed


def answer_error(line: str, exit_code: int) -> None:
    """Prints an error where `--json` asked for an answer that was not given yet."""
    if voice.json and not voice.answered:
        with contextlib.suppress(StorageError):
            answer({}, exit_code, error=readable(line))


def _unwritten(error: OSError) -> StorageError:
    return StorageError(f"standard output cannot be written ({error.strerror}); what was done is on disk.")
