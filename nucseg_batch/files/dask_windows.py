"""Windows of a dask array, read from within a task of another graph.

Which windows of a large plane are needed depends on what others have shown, such as how wide its nuclei are, so that
they cannot be part of a graph that is made beforehand. A window is put together from blocks of the array, which are
computed in the calling thread. The latest blocks are kept, because windows overlap.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from itertools import product
from typing import Any

import dask
import numpy as np
from dask.optimization import cull
from numpy.typing import NDArray

KEPT_BYTES = 256 * 2**20
"""Bytes of computed blocks of an array that a process keeps, besides those that a window is being made of."""
Key = tuple[Any, ...]


class DaskWindows:
    """A dask array that is read by windows; threads may read at once, and processes may be sent it."""

    def __init__(self, array: Any) -> None:
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        (optimized,) = dask.optimize(array)
        self._futures = _futures_of(array)
        self._graph: dict[Any, Any] = {**dict.fromkeys(self._futures), **optimized.__dask_graph__()}
        self._name: str = optimized.name
        self._starts = [np.cumsum([0, *lengths]) for lengths in optimized.chunks]
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_blocks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __getitem__(self, where: tuple[int | slice, ...]) -> NDArray[Any]:
        """A window: places and slices with step 1, one for each axis."""
        bounds = [
            (one, one + 1) if isinstance(one, int) else one.indices(length)[:2]
            for one, length in zip(where, self.shape, strict=True)
        ]
        touched = [
            range(int(np.searchsorted(starts, first, "right")) - 1, int(np.searchsorted(starts, last, "left")))
            for starts, (first, last) in zip(self._starts, bounds, strict=True)
        ]
        places = list(product(*touched))
        window = np.empty([last - first for first, last in bounds], self.dtype)
        for place, block in zip(places, self._computed(places), strict=True):
            here, there = [], []
            for starts, number, (first, last) in zip(self._starts, place, bounds, strict=True):
                top, end = int(starts[number]), int(starts[number + 1])
                low, high = max(first, top), min(last, end)
                here.append(slice(low - first, high - first))
                there.append(slice(low - top, high - top))
            window[tuple(here)] = block[tuple(there)]
        return window[tuple(0 if isinstance(one, int) else slice(None) for one in where)]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Key, Future[NDArray[Any]]] = OrderedDict()

    def _computed(self, places: Sequence[Key]) -> list[NDArray[Any]]:
        """Blocks of the array; what another thread is computing is waited for."""
        with self._lock:
            missing: dict[Key, Future[NDArray[Any]]] = {p: Future() for p in places if p not in self._blocks}
            kept = self._blocks | missing
            if not self._futures:  # a cluster needs the thread that would wait
                self._blocks.update(missing)
        if missing:
            self._compute(missing)
        found = [kept[place].result() for place in places]
        with self._lock:
            self._blocks.update({place: kept[place] for place in places})
            for place in places:
                self._blocks.move_to_end(place)
            self._trim()
        return found

    def _compute(self, missing: Mapping[Key, Future[NDArray[Any]]]) -> None:
        """Computes blocks for all threads that wait for them."""
        keys = [(self._name, *place) for place in missing]
        try:
            blocks = [np.asarray(block) for block in _results(*self._needed(keys), keys)]
        except BaseException as error:
            with self._lock:
                for place in missing:
                    self._blocks.pop(place, None)
            for future in missing.values():
                future.set_exception(error)
            raise
        for future, block in zip(missing.values(), blocks, strict=True):
            future.set_result(block)

    def _needed(self, keys: Sequence[Key]) -> tuple[dict[Any, Any], list[Any]]:
        """The part of the graph that keys need, and what of it a cluster holds."""
        graph = dict(cull(self._graph, keys)[0])
        held = {key: self._futures[key] for key in graph if key in self._futures}
        return graph | held, list(held.values())

    def _trim(self) -> None:
        """Lets go of the blocks that were used first, down to KEPT_BYTES."""
        sizes = {
            place: math.prod(int(starts[n + 1] - starts[n]) for starts, n in zip(self._starts, place, strict=True))
            * self.dtype.itemsize
            for place, future in self._blocks.items()
            if future.done()
        }
        held = sum(sizes.values())
        for place, size in sizes.items():
            if held <= KEPT_BYTES:
                break
            del self._blocks[place]
            held -= size


def _futures_of(array: Any) -> dict[Any, Any]:
    """What a cluster holds of an array that was persisted, by key; nothing of others."""
    if "distributed" not in sys.modules:
        return {}
    from distributed import futures_of

    return {future.key: future for future in futures_of(array)}


def _results(graph: Mapping[Any, Any], futures: Sequence[Any], keys: Sequence[Key]) -> Sequence[Any]:
    """What a graph gives for keys, computed in this thread; by the cluster where that holds a part of it.

    While a worker waits for its cluster, it can do other tasks.
    """
    if not futures:
        return dask.get(graph, keys)
    from distributed import get_worker, worker_client

    try:
        get_worker()
    except ValueError:  # not in a worker
        return futures[0].client.get(graph, keys)
    with worker_client() as client:
        return client.get(graph, keys)
