"""Every error that nucseg-batch raises on purpose, and the exit code that each one ends with.

A caller's mistake, bad stored data and a failing disk are different classes, because what to do next differs.
Each class is also a builtin, so that code which does not know this package still catches it sensibly.
The codes follow sysexits.h, which schedulers and shell scripts already understand.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, ClassVar, get_args

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130
CLOSE = 0.75
"""Similarity, as difflib measures it, from which a word is taken for another one with a typing error."""


class NucsegError(Exception):
    """The base of all errors raised on purpose; its text is one line for the user."""

    exit_code: ClassVar[int] = EXIT_BUG


class UsageError(NucsegError, ValueError):
    """An option or argument that cannot be meant."""

    exit_code = EXIT_USAGE


class SettingError(UsageError):
    """A setting with a value that it cannot have; the text names the setting as it is called in Python."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(setting, problem)
        self.setting = setting
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.setting} {self.problem}"

    @property
    def as_option(self) -> str:
        """The same for the command line, where the setting is an option."""
        return f"--{self.setting.replace('_', '-')} {self.problem}"


class NothingToDoError(NucsegError, ValueError):
    """The input holds nothing that can be used."""

    exit_code = 65


class DoubtfulInputError(NucsegError, ValueError):
    """The input can be read in several ways, and `--strict` forbids to guess."""

    exit_code = 65


class InputMissingError(NucsegError, FileNotFoundError):
    """The input or the model is not there."""

    exit_code = 66


class DeviceError(NucsegError, RuntimeError):
    """The device that was asked for is not there."""

    exit_code = 69


class OutputError(NucsegError, OSError):
    """The output cannot be made, or is not ours to write to."""

    exit_code = 73


class StorageError(NucsegError, OSError):
    """The disk failed or is full while results were written."""

    exit_code = 74


class LockedError(NucsegError, RuntimeError):
    """Another process is writing this output: run the same command again when it is done."""

    exit_code = 75


class UnfinishedError(NucsegError, LookupError):
    """A mask that is not made yet, or is being made again: read it when the run is complete."""

    exit_code = 75


class StoppedError(NucsegError, RuntimeError):
    """A signal asked to stop (INT is KeyboardInterrupt): the same command again goes on."""

    exit_code = 75


class FailuresError(NucsegError, RuntimeError):
    """More images failed than the caller allows."""

    exit_code = EXIT_SOME_FAILED


class DamageError(NucsegError, ValueError):
    """Results on disk are not what they were when they were written."""

    exit_code = 74


class MismatchError(NucsegError, ValueError):
    """Settings or model differ from those that the existing output was made with."""

    exit_code = 78


class LostPlanError(MismatchError):
    """The plan of images that were added to a run is lost or damaged, so that nobody knows which images these were."""

    exit_code = 74


class ModelError(NucsegError, ValueError):
    """A model file that is damaged, foreign or unsafe."""

    exit_code = 78


class ImageError(NucsegError, ValueError):
    """One image cannot be used: a row in the failures file of a run, the end of a comparison or a training."""

    exit_code = 65


def nearest(word: str, known: Collection[str]) -> str | None:
    """The known word that is meant by one with a typing error, or of which it is the beginning or a longer form.

    Both are given without regard to capitals and to the dashes of options; None where nothing is near.
    """
    plain = {name.lower().lstrip("-"): name for name in known}
    word = word.lower().lstrip("-")
    begun = [
        name for name in plain if min(len(name), len(word)) > 2 and (name.startswith(word) or word.startswith(name))
    ]
    whole = [name for name in begun if name.startswith(f"{word}-") or word.startswith(f"{name}-")]
    close = whole or difflib.get_close_matches(word, plain, n=1, cutoff=CLOSE) or begun
    return plain[close[0]] if close else None


def did_you_mean(word: str, known: Collection[str], *, mark: str = "'") -> str:
    """`; did you mean 'segment'?`, to put behind a message; nothing where no known word is near."""
    close = nearest(word, known)
    return f"; did you mean {mark}{close}{mark}?" if close else ""


def check(condition: bool, name: str, expected: str, received: object) -> None:
    """Raises SettingError for a setting that is not what is expected."""
    if not condition:
        raise SettingError(name, f"must be {expected}, but is {received!r}.")


def check_choice(name: str, value: str, choices: Any) -> None:
    """The same for a setting that is to be one of the words of a Literal."""
    allowed = get_args(choices)
    check(value in allowed, name, "one of " + ", ".join(allowed), value)
