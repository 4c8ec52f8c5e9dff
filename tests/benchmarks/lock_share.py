"""How long work holds Python's lock: a loop that needs no lock watches the word that says whether it is held.

CPython names no such word, so it is searched for: in the memory of its runtime, which it exports for debuggers, it is
the one that is 1 whenever a function copies that memory with the lock, and 0 whenever one does without.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

SEARCHED = 20_000, 400_000
"""Bytes of the runtime in which the word is looked for; since Python 3.12 it lies in that of the first interpreter."""
ROUNDS = 50
FEWEST_LOOKS = 1000


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _copied(memory: Any, into: Any) -> int:
    spent = 0
    for i in range(100_000):  # while others have time to take the lock
        spent += i * i % 7
    for i in range(memory.size):
        into[i] = memory[i]
    return spent


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _watched(word: Any, stop: Any, counts: Any) -> None:
    while stop[0] == 0:
        counts[0] += 1
        counts[1] += word[0] == 1


def _lock_word() -> NDArray[np.int32] | None:
    start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    with_lock = ctypes.pythonapi.PyBytes_FromStringAndSize
    with_lock.restype, with_lock.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_ssize_t]
    for size in SEARCHED:
        memory = np.frombuffer((ctypes.c_char * size).from_address(start), np.int32)
        free = np.empty_like(memory)
        found = np.ones(memory.size, bool)

        def narrow(size: int = size, memory: Any = memory, free: Any = free, found: Any = found) -> None:
            for _ in range(ROUNDS):
                held = np.frombuffer(with_lock(start, size), np.int32)
                _copied(memory, free)
                found &= (held == 1) & (free == 0)

        narrow()
        other = threading.Thread(target=narrow)  # since 3.13 there is such a word of each thread, too
        other.start()
        other.join()
        if found.sum() == 1:
            (place,) = np.flatnonzero(found)
            return memory[place : place + 1]
    return None


class LockWatch:
    """Measures how long work of the calling thread holds the lock, where no other thread runs.

    Raises RuntimeError where the lock cannot be found, as in a Python without one.
    """

    def __init__(self) -> None:
        word = _lock_word()
        if word is None:
            raise RuntimeError("the word that says whether Python's lock is held was not found")
        self._word = word

    def share(self, work: Callable[[], object]) -> float:
        """The part of its time for which `work` holds the lock, 0 to 1: that of the looks that found it held.

        Short work is done several times. It takes longer than without the looks, which keep another core busy.
        """
        stop, counts = np.zeros(1, np.int64), np.zeros(2, np.int64)
        watch = threading.Thread(target=_watched, args=(self._word, stop, counts))
        _watched(self._word, np.ones(1, np.int64), counts)  # compiled
        watch.start()
        while not counts[0]:
            time.sleep(0.001)
        counts[:] = 0
        work()
        while counts[0] < FEWEST_LOOKS:
            work()
        looks, held = counts.tolist()
        stop[0] = 1
        watch.join()
        return float(held / looks)
