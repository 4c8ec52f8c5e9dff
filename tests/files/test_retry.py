from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import read_image
from nucseg_batch.files.retry import PASSING, SERVER_RETRY, STORAGE_RETRY


class Attempts:
    """Raises the given errors, one a call, and then returns 7; remembers the pauses between its calls."""

    def __init__(self, *errors: Callable[[], None]) -> None:
        self.calls = 0
        self.pauses: list[float] = []
        self._errors = errors

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= len(self._errors):
            self._errors[self.calls - 1]()
        return 7

    def run(self) -> int:
        return STORAGE_RETRY.run(self, pause=self.pauses.append)


def system(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "plate/a.tif")

    return fail


def wrapped(number: int) -> None:
    """As the readers of images raise it."""
    try:
        system(number)()
    except OSError as error:
        raise ImageError("it cannot be decoded.") from error


def hidden(number: int) -> None:
    """As a decoder raises it that hides where an error came from."""
    try:
        wrapped(number)
    except ImageError:
        raise ValueError("damaged") from None


def damaged() -> None:
    raise ImageError("the PNG ends within its header.")


@pytest.mark.parametrize("number", sorted(PASSING), ids=errno.errorcode.get)
def test_an_error_that_passes_costs_a_pause(number: int) -> None:
    """Python has classes of its own for some of these; all count."""
    attempts = Attempts(system(number), lambda: wrapped(number), lambda: hidden(number))
    assert attempts.run() == 7
    assert attempts.pauses == [1, 2, 4]


def test_what_goes_well_is_done_once() -> None:
    attempts = Attempts()
    assert attempts.run() == 7
    assert (attempts.calls, attempts.pauses) == (1, [])


def test_an_error_that_stays_is_raised_after_three_more_tries() -> None:
    """A disk that is broken must end in a failure, seven seconds later."""
    attempts = Attempts(*[lambda: wrapped(errno.ESTALE)] * 4)
    with pytest.raises(ImageError, match="cannot be decoded"):
        attempts.run()
    assert (attempts.calls, attempts.pauses) == (4, [1, 2, 4])


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINVAL])
def test_errors_that_do_not_pass_are_raised_at_once(number: int) -> None:
    """Waiting for a file without the right to read it would cost seven seconds of each of a million."""
    attempts = Attempts(lambda: wrapped(number))
    with pytest.raises(ImageError):
        attempts.run()
    assert (attempts.calls, attempts.pauses) == (1, [])


def test_damage_is_never_tried_again_not_even_after_an_error_that_passed() -> None:
    """The second error is not a consequence of the first."""
    attempts = Attempts(system(errno.EIO), damaged, system(errno.EIO))
    with pytest.raises(ImageError, match="PNG ends"):
        attempts.run()
    assert (attempts.calls, attempts.pauses) == (2, [1])


def test_a_request_to_stop_is_not_held_up() -> None:
    """Ctrl-C while an error is handled is a Ctrl-C."""

    def stop() -> None:
        try:
            system(errno.EIO)()
        except OSError:
            raise KeyboardInterrupt from None

    attempts = Attempts(stop)
    with pytest.raises(KeyboardInterrupt):
        attempts.run()
    assert attempts.calls == 1


def test_errors_that_name_each_other_end() -> None:
    """A chain may be a circle."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not STORAGE_RETRY.may_pass(first)
    second.__context__ = OSError(errno.EIO, "Input/output error")
    assert STORAGE_RETRY.may_pass(first)


def test_a_file_that_the_system_cannot_give_is_told_from_one_that_is_damaged(tmp_path: Path) -> None:
    """The system's own EIO, which /proc/self/mem answers to who reads its first page, and the reader's of a cut PNG."""
    (tmp_path / "cut.png").write_bytes(imagecodecs.png_encode(np.zeros((5, 7), np.uint8))[:40])
    with pytest.raises(ImageError) as damage:
        read_image(tmp_path / "cut.png", max_pixels=99)
    assert not STORAGE_RETRY.may_pass(damage.value)
    with pytest.raises(OSError) as broken, open("/proc/self/mem", "rb") as file:  # noqa: PT011  # EIO has no words that every system shares
        file.read(16)
    assert broken.value.errno == errno.EIO
    assert STORAGE_RETRY.may_pass(broken.value)


class StatusError(Exception):
    """As aiohttp raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (StatusError(503), True),
        (StatusError(404), False),
        (ConnectionResetError(), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ImageError("its chunk is cut."), False),
    ],
    ids=repr,
)
def test_a_request_is_sent_again_where_the_server_is_to_blame(error: Exception, passes: bool) -> None:
    """Asking three times for a chunk that is not there, as empty ones are not, would take three times as long."""
    assert SERVER_RETRY.may_pass(error) == passes
