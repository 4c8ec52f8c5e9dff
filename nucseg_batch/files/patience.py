"""Tries again where storage stumbled: a file server that restarts, a stale handle, a call that took too long.

What is wrong with a file stays wrong however often it is read, so only errors that pass by themselves are waited for.
Readers turn what the operating system said into errors of their own, so it is looked for behind these.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

PASSING = frozenset({errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT})
"""Errors of the operating system that may be gone when a file is read again."""
PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait before each further try."""

T = TypeVar("T")


def patiently(action: Callable[[], T], *, pause: Callable[[float], object] = time.sleep) -> T:
    """What `action` returns; where an error that may pass stopped it, it is tried again after each of PAUSES.

    Any other error, and the last, is raised as it is. `pause` is given the seconds to wait.
    """
    for seconds in PAUSES:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
        pause(seconds)
    return action()


def may_pass(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of PASSING."""
    return any(isinstance(cause, OSError) and cause.errno in PASSING for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it came from, also where it was raised `from None`."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop()
        if id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += [behind for behind in (cause.__context__, cause.__cause__) if behind is not None]
