"""What the device of this process is used for besides segmenting: the programs that are compiled for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any


class Compilations:
    """Counts programs and the time of their first calls, in which they are compiled; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._programs, self._seconds = 0, 0.0
        self._told: tuple[int, float] = (0, 0.0)

    def counted(
        self, function: Callable[..., Any], signature: Callable[[tuple[Any, ...]], Hashable]
    ) -> Callable[..., Any]:
        """`function`, of which the first call of each signature of its arguments is counted as a compilation."""
        seen: set[Hashable] = set()

        def call(*arguments: Any) -> Any:
            key = signature(arguments)
            with self._lock:
                first = key not in seen
                seen.add(key)
            if not first:
                return function(*arguments)
            try:
                with self._timed():
                    return function(*arguments)
            except BaseException:
                with self._lock:
                    seen.discard(key)
                raise

        return call

    def total(self) -> tuple[int, float]:
        """Programs that were compiled in this process, and the seconds of that over all threads."""
        with self._lock:
            return self._programs, self._seconds

    def since_told(self) -> tuple[int, float]:
        """The same since the last call of this method."""
        with self._lock:
            programs, seconds = self._programs - self._told[0], self._seconds - self._told[1]
            self._told = self._programs, self._seconds
            return programs, seconds

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Counts a program, if the block does not fail, and the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            with self._lock:
                self._seconds += seconds
        with self._lock:
            self._programs += 1


compilations = Compilations()
"""Those of this process."""
