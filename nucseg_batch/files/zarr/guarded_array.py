"""One array of a store whose chunks are checked before they are decoded; the only code that decodes those of others."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import zarr
from fsspec.asyn import get_loop, sync  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.api.asynchronous import open_array

from nucseg_batch.errors import ImageError
from nucseg_batch.files.missing import is_filling
from nucseg_batch.files.zarr.chunks import ChunkStore, read_part
from nucseg_batch.files.zarr.header import ZarrHeader
from nucseg_batch.files.zarr.opening import configured
from nucseg_batch.files.zarr.store import StoreFiles, reason

LARGE_CHUNK = 128 * 2**20
"""Chunks of more bytes than this are decoded one at a time, whatever the number of threads."""
_OPENING = threading.Lock()
"""Held while zarr opens an array: its warnings can be silenced by one thread at a time only."""
_DECODING = threading.Lock()
"""Held while large chunks are read."""


class GuardedArray:
    """The array of an image at full resolution, opened when it is first read; for many threads at once.

    ours: whether this program wrote it, see `array_config`.
    """

    def __init__(self, files: StoreFiles, image: ZarrHeader, *, ours: bool = False) -> None:
        self._files = files
        self._ours = ours
        self._image = image
        self._array: zarr.AsyncArray[Any] | None = None
        self._lock = threading.Lock()

    def read(self, where: tuple[slice, ...]) -> NDArray[Any]:
        """A part of it as stored; raises ImageError where its chunks cannot be read."""
        try:
            array = self._opened()
            if self._image.facts.chunk_bytes <= LARGE_CHUNK:
                return np.asarray(sync(get_loop(), read_part, array, where))
            with _DECODING, zarr.config.set({"async.concurrency": 1}):
                return np.asarray(sync(get_loop(), read_part, array, where))
        except ImageError:
            raise
        except Exception as error:  # stores and codecs raise their own classes
            raise ImageError(
                f"the chunks of its array {self._image.array or '(the root)'} cannot be read ({reason(error)})."
            ) from error

    @property
    def fill_value(self) -> float:
        """What missing pixels of floats are; 0 where that is not finite."""
        value: Any = self._opened().metadata.fill_value
        return float(value) if value is not None and not is_filling(np.array(value, np.float64)) else 0.0

    def close(self) -> None:
        """Lets go of it; reading opens it again."""
        with self._lock:
            self._array = None

    def _opened(self) -> zarr.AsyncArray[Any]:
        with self._lock:
            if self._array is None:
                image = self._image
                store = ChunkStore(self._files.store(), image.facts, self._files.local)
                with _OPENING, warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of codecs and types that are not in the standard yet
                    opened = sync(
                        get_loop(),
                        open_array,
                        store=store,
                        mode="r",
                        path=image.array,
                        zarr_format=image.zarr_format,
                    )
                    self._array = configured(opened, ours=self._ours)
            return self._array
