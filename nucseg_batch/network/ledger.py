"""Keeps the calls of the network that run at the same time within a number of bytes."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator

from nucseg_batch.machine.memory import give_back_above

LARGE = 100_000_000
"""Bytes that a call must need for freed memory to be given back before it: not before each small one."""


class Ledger:
    """Bytes that are lent for the time of a call; threads share it.

    most: how many may be lent at once. A call that needs more than that runs alone. kept: where this process would
    hold more bytes of memory with a call, freed memory is given back to the system before it.
    """

    def __init__(self, most: float, kept: float = math.inf) -> None:
        self._most = most
        self._kept = kept
        self._lent = 0.0
        self._returned = threading.Condition()

    @contextlib.contextmanager
    def reserved(self, amount: float) -> Iterator[None]:
        """Waits until so many bytes are free, and lends them within the block; a block must not reserve again.

        Nothing is waited for where nothing is needed.
        """
        if not amount:
            yield
            return
        with self._returned:
            self._returned.wait_for(lambda: self._lent == 0 or self._lent + amount <= self._most)
            self._lent += amount
        if amount >= LARGE:
            give_back_above(self._kept - amount)
        try:
            yield
        finally:
            with self._returned:
                self._lent -= amount
                self._returned.notify_all()
