"""How loops over pixels are compiled: without Python's lock, and kept on disk for the next process.

Numba keeps what it compiled beside the source or, where that folder is read-only, in the user's cache folder;
`NUMBA_CACHE_DIR` names another. A process that can write to none of them, or whose disk is full, compiles for itself,
and one that finds a damaged cache replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import numba
from numba.core.event import Event, Listener, install_listener

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Kernel(Generic[Arguments, Result]):
    """A function of arrays and numbers that is compiled for the types of its arguments when it is called.

    Threads may call it at once. Called from another compiled function it must be `inlined` instead.
    """

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self.python = function
        """The function as it is written, for tests."""
        self._alone: Any = numba.njit(nogil=True, error_model="numpy")(function)
        self._kept: Any = self._cached() or self._alone
        update_wrapper(self, function)

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Computes the function; raises what it raises."""
        kept, alone = self._kept, self._alone
        try:
            result: Result = kept(*args, **kwargs)
            return result
        except Exception:  # the function's own, or any class of a cache that is damaged or has no room
            if kept is alone:
                raise
        emptied = self._cached()
        with suppress(Exception):
            emptied.recompile()  # which nothing was compiled for yet: this empties its part of the cache
            result = emptied(*args, **kwargs)
            self._kept = emptied
            return result
        self._kept = alone
        result = alone(*args, **kwargs)
        return result

    @property
    def signatures(self) -> frozenset[str]:
        """The types of arguments for which this process has compiled it or loaded it from the cache."""
        return frozenset(map(str, (*self._kept.signatures, *self._alone.signatures)))

    def _cached(self) -> Any:
        """The function with a cache on disk; None where no folder for the cache can be written."""
        with suppress(RuntimeError):
            return numba.njit(nogil=True, error_model="numpy", cache=True)(self.python)
        return None


def compiled(function: Callable[Arguments, Result]) -> Kernel[Arguments, Result]:
    """Makes a `Kernel` of a function, which divides as NumPy does and sums in the order that is written."""
    return Kernel(function)


def inlined(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Makes a part that only kernels of the same file call: a change of another file would not compile them again."""
    part: Callable[Arguments, Result] = numba.njit(nogil=True, error_model="numpy")(function)
    return part


@contextmanager
def compilation_told(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` when a kernel is compiled for the first time while the block runs, in whatever thread.

    Kernels that are found in the cache do not count.
    """
    listener = _FirstCompilation(tell)
    with install_listener("numba:compile", listener):
        yield


class _FirstCompilation(Listener):  # type: ignore[misc]  # numba is untyped
    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: Event) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell()

    def on_end(self, event: Event) -> None: ...
