"""The files of a zarr store, read for zarr itself: regular files of a sane size that lie inside the store.

zarr's `WrapperStore` forwards every method that a subclass does not override to the wrapped store, past all checks, and
new zarr versions add such methods. `ReadOnlyStore` derives from `Store` itself, where each method that reads is either
abstract or built on `get`: a method that a later version adds cannot bypass `get`.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NoReturn

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import default_buffer_prototype

from nucseg_batch.errors import ImageError
from nucseg_batch.files.retry import SERVER_RETRY
from nucseg_batch.files.zarr.store import MAX_METADATA, inside

METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Files of a store that are no chunks."""


def is_metadata(key: str) -> bool:
    """Whether a key is that of a metadata file."""
    return key.rsplit("/", 1)[-1] in METADATA


class ReadOnlyStore(Store):
    """A store that reads through `get` alone, which subclasses implement. It cannot be written or listed.

    Without `get_sync`, zarr reads it by `get` and, since version 3.3, by `get_ranges`, whichever codec pipeline is
    configured.
    """

    def __init__(self) -> None:
        super().__init__(read_only=True)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Reads parts of files by `get`, in the order of `key_ranges`."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether `get` finds a file."""
        return await self.get(key, default_buffer_prototype()) is not None

    @property
    def supports_writes(self) -> bool:
        """False."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """False."""
        return False

    @property
    def supports_partial_writes(self) -> Any:
        """False; abstract before zarr 3.1.4."""
        return False

    @property
    def supports_listing(self) -> bool:
        """False."""
        return False

    async def set(self, key: str, value: Buffer) -> None:
        """Raises PermissionError."""
        _refuse()

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, Any]]) -> None:
        """Raises PermissionError; abstract before zarr 3.1.4."""
        _refuse()

    async def delete(self, key: str) -> None:
        """Raises PermissionError."""
        _refuse()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Raises PermissionError."""
        _refuse()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Raises PermissionError."""
        _refuse()

    def list(self) -> AsyncIterator[str]:
        """Raises PermissionError."""
        _refuse()


def _refuse() -> NoReturn:
    raise PermissionError("This store is only read, file by file.")


class FetchStore(ReadOnlyStore):
    """The files of a store, with a check of where each lies and how large it is, and retries behind a URL.

    `store` is read where `folder` is None; else the files of `folder` are read directly. `limit` is the largest size of
    a chunk file in bytes.
    """

    def __init__(self, store: Store, folder: Path | None, limit: int) -> None:
        super().__init__()
        self._inner = store
        self._folder = folder
        self._limit = limit
        self._within: set[str] = set()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads a file or a part of it; None where there is none.

        Raises ImageError for a file outside the store, one that is not regular or too large, and for a range that the
        file is too short for; other errors are those of the file system.
        """
        size = getattr(self._inner, "size", None)  # of an archive, whose files are known before they are unpacked
        if size is not None and (found := size(key)) is not None and found > self._most(key):
            raise ImageError(f"its chunk {key} has {found} bytes, where at most {self._most(key)} can belong.")
        if self._folder is None:
            buffer = _part(await self._patiently(key, prototype, byte_range), byte_range)
        else:
            data = await asyncio.to_thread(self._read, key, byte_range, self._most(key))
            buffer = None if data is None else prototype.buffer.from_bytes(data)
        if (
            buffer is not None
            and isinstance(byte_range, RangeByteRequest)
            and len(buffer) != byte_range.end - byte_range.start
        ):
            raise ImageError(f"its shard {key} is cut: its index leads to byte {byte_range.end}.")
        return buffer

    def _most(self, key: str) -> int:
        return MAX_METADATA if is_metadata(key) else self._limit

    async def _patiently(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        for seconds in SERVER_RETRY.pauses:
            try:
                return await self._inner.get(key, prototype, byte_range)
            except Exception as error:
                if not SERVER_RETRY.may_pass(error):
                    raise
            await asyncio.sleep(seconds)
        return await self._inner.get(key, prototype, byte_range)

    def _check_place(self, path: str, key: str) -> None:
        if not inside(os.path.realpath(path), os.path.realpath(self._folder or "")):
            raise ImageError(f"its chunk {key} leads out of the store by a link.")

    def _read(self, key: str, byte_range: ByteRequest | None, limit: int) -> bytes | None:
        assert self._folder is not None
        place, name = os.path.split(os.path.join(self._folder, key))
        try:
            if place not in self._within:
                self._check_place(place, key)
                self._within.add(place)
            path = os.path.join(place, name)
            if os.path.islink(path):
                self._check_place(path, key)
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for a writer for ever
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(handle, "rb") as file:
            status = os.fstat(handle)
            if stat.S_ISDIR(status.st_mode):
                return None
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"its chunk {key} is not a regular file.")
            if status.st_size > limit:
                raise ImageError(f"its chunk {key} has {status.st_size} bytes, where at most {limit} can belong.")
            start, stop = (min(place, status.st_size) for place in span(byte_range, status.st_size))
            file.seek(start)
            return file.read(max(0, stop - start))


def span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """First byte of a range of a file of this size, and the one behind its last."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, byte_range.end
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    return 0, size


def _part(buffer: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
    """The part that was asked for, also of a whole file, which is what web servers that know no ranges send."""
    if buffer is None or not isinstance(byte_range, (RangeByteRequest, SuffixByteRequest)):
        return buffer
    start, stop = span(byte_range, len(buffer))
    return buffer[start:stop] if len(buffer) > stop - start else buffer
