"""What was parsed of a TIFF, for other files whose headers have the same bytes.

Small images of a folder often differ in nothing but their pixels, and tifffile takes longer to parse such a file than
to read it. What it finds depends only on the bytes that it read and on the size of the file. So these bytes are noted,
and a file that has all of them in the same places is not parsed again. Where one byte differs, as in a time, it is.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

MISSES = 8
"""Files in a row of which none had a known header, after which few are looked up and noted."""
SOME = 16
"""Of how many files one is looked up then."""
KEPT_HEADERS = 4
"""Headers that are remembered, those that were of use last."""
MAX_NOTED = 2**16
"""Bytes of a header that is remembered, at most."""
Stretches = tuple[tuple[int, bytes], ...]
"""Places in a file, and the bytes there."""


class NotedFile(io.FileIO):
    """A file that is read without a buffer, and notes what was read of it."""

    def __init__(self, path: Path) -> None:
        """Opens a file; raises OSError where that fails."""
        super().__init__(path, "rb")
        self.name = os.path.realpath(path)
        self._stretches: dict[int, bytes] = {}
        self._bytes = 0

    @property
    def noted(self) -> Stretches | None:
        """What was read; None where that is more than MAX_NOTED bytes."""
        if self._bytes > MAX_NOTED:
            return None
        joined: list[tuple[int, bytes]] = []
        for at, data in sorted(self._stretches.items()):
            start, before = joined[-1] if joined else (0, b"")
            if joined and at <= start + len(before):
                joined[-1] = (start, before + data[start + len(before) - at :])
            else:
                joined.append((at, data))
        return tuple(joined)

    def note(self, offset: int, count: int) -> None:
        """Notes bytes that were read by other means."""
        self._note(offset, os.pread(self.fileno(), count, offset))

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file does."""
        at = self.tell()
        data = super().read(size)
        self._note(at, data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """As a file does."""
        at = self.tell()
        count = super().readinto(buffer)
        self._note(at, bytes(memoryview(buffer).cast("B")[:count]))
        return count

    def _note(self, offset: int, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= MAX_NOTED and len(data) > len(self._stretches.get(offset, b"")):
            self._stretches[offset] = data


class KnownHeaders:
    """What was parsed of the latest files, by the bytes that it depends on; for many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Any, Stretches], Any] = OrderedDict()
        self._misses = 0
        self._passed = 0

    def is_worth_looking(self) -> bool:
        """Whether the next file should be looked up and noted: rarely where files differ in more than their pixels."""
        with self._lock:
            if self._misses < MISSES:
                return True
            self._passed = (self._passed + 1) % SOME
            return self._passed == 0

    def find(self, path: Path, *rest: Any) -> tuple[os.stat_result, Any] | None:
        """The state of a file, and what was parsed of one with the same header and `rest`; None where there was none.

        Raises OSError where it cannot be read.
        """
        with self._lock:
            if not self._known:
                return None
            known = list(reversed(self._known.items()))
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            group = (status.st_size, path.suffix.lower(), *rest)
            for key, value in known:
                if key[0] == group and all(os.pread(descriptor, len(data), at) == data for at, data in key[1]):
                    with self._lock:
                        self._misses = 0
                        if key in self._known:
                            self._known.move_to_end(key)
                    return status, value
        finally:
            os.close(descriptor)
        with self._lock:
            self._misses += 1
        return None

    def note(self, path: Path, size: int, noted: Stretches, value: Any, *rest: Any) -> None:
        """Remembers what was parsed of a file of `size` bytes, of which `noted` was read."""
        with self._lock:
            self._known[(size, path.suffix.lower(), *rest), noted] = value
            while len(self._known) > KEPT_HEADERS:
                self._known.popitem(last=False)
