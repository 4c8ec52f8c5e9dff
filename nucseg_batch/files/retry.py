"""Which failures are retried, how often, and after how long.

| failure | retried | then |
|---|---|---|
| storage stumbles: EIO, ESTALE, EAGAIN, ETIMEDOUT | by `STORAGE_RETRY`, after 1, 2 and 4 s | the image fails |
| a server fails to answer a request | by `SERVER_RETRY`, after 0.2 and 0.4 s | the image fails |
| the device has no memory for a batch | at once, in batches of half the size (`pipeline.stream`) | the image fails |
| a process dies | by the next process; after `CAREFUL_AFTER` deaths plane by plane | the plane fails (`FAILS_AFTER`) |
| workers of a cluster die, and no unit is to blame | `STRIKES` times in a row | the run stops |
| an image failed with an error of `TRANSIENT` | by the next call of the same command | |

Everything else fails at once: damaged files, files that are missing or not allowed, answers 4xx of a server, and other
errors of the device. Such an image is done again when it has changed or with `--retry-failed`. A full disk stops the
run. For locks see `files.run.locks`.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nucseg_batch.errors import ImageError

PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT})
"""Errors of the operating system that may be gone when a file is read again."""
LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError, ImageError)
"""Errors of a request that another one would meet too."""
KILLED = "KilledWorker"
"""What failures of planes are called on which process after process died."""
TRANSIENT = frozenset(
    {"OSError", "TimeoutError", "BlockingIOError", "PermissionError", "FileNotFoundError", "NotADirectoryError"}
    | {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError", "XlaRuntimeError", "JaxRuntimeError", KILLED}
)
"""Classes of errors after which the same image may be done by a later call without having changed."""
CAREFUL_AFTER = 3
"""Deaths at a unit after which it is done plane by plane."""
FAILS_AFTER = 2
"""Deaths at a plane, of a unit that is done plane by plane, after which the plane fails."""
HOPELESS = 30
"""Deaths at a unit in a cluster after which all planes that are left of it fail."""
STRIKES = 5
"""Tasks in a row on which all workers of a cluster died, with nothing done or learned: it is not the images."""

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often an action is tried again, and after which errors."""

    pauses: tuple[float, ...]
    """Seconds to wait before each further try."""
    may_pass: Callable[[BaseException], bool]
    """Whether another try may succeed after an error."""

    def run(self, action: Callable[[], T], *, pause: Callable[[float], object] = time.sleep) -> T:
        """What `action` returns at its first try without an error that may pass.

        Any other error, and the last, is raised as it is. `pause` is given the seconds to wait.
        """
        for seconds in self.pauses:
            try:
                return action()
            except Exception as error:
                if not self.may_pass(error):
                    raise
            pause(seconds)
        return action()


def storage_may_recover(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of PASSING: readers turn these into errors of their own."""
    return any(isinstance(cause, OSError) and cause.errno in PASSING for cause in _causes(error))


def server_may_recover(error: BaseException) -> bool:
    """Whether a request may succeed later; each file system has its own classes of errors."""
    status = getattr(error, "status", None)
    return not isinstance(error, LASTING) and (not isinstance(status, int) or status >= 500)


STORAGE_RETRY = RetryPolicy((1.0, 2.0, 4.0), storage_may_recover)
"""Of images and their headers."""
SERVER_RETRY = RetryPolicy((0.2, 0.4), server_may_recover)
"""Of files behind a URL."""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from, also where it was raised `from None`."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop()
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [behind for behind in (cause.__context__, cause.__cause__) if behind is not None]
