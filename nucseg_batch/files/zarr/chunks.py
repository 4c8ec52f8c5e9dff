"""The chunks of one zarr array, read with a look at each before it is decoded.

A codec believes what a chunk says of itself: a small file can inflate to gigabytes, and some codecs read past the end
of one that was cut. So sizes are compared first.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import os
import stat
import zlib
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.guard import ArrayFacts, Codecs
from nucseg_batch.files.zarr.store import ATTEMPTS, MAX_METADATA, inside

SLACK = 65536
"""Bytes that a chunk may have beyond EXPANSION times its pixels: headers and checksums."""
EXPANSION = 8
"""How many times the bytes of its pixels a chunk may have, stored or unpacked: filters may store wider numbers."""
_FAILED: ContextVar[list[Exception] | None] = ContextVar("failed", default=None)
"""What went wrong in the read that a task belongs to; None outside of `read_part`."""
_READERS: set[asyncio.Task[Any]] = set()
"""Tasks of `read_part` that are under way, which must not wait for each other; used by zarr's loop only."""
_ROUNDS = 8
"""How often tasks that are left over are looked for: those that were found may have started others."""
METADATA = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
"""Files of a store that are no chunks."""
_SILENT: dict[str | None, Any] = {
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
"""Codecs that do not say how large a chunk is unpacked, which is found out before zarr unpacks it."""
_NONE = np.uint64(2**64 - 1)
"""What the index of a shard has in place of a chunk that is not there."""


async def read_part(array: zarr.AsyncArray[Any], where: tuple[slice, ...]) -> NDArray[Any]:
    """Reads a part of an array whose store is a `ChunkStore`; to be run by zarr's own loop.

    Zarr reads chunks at once, and after the first failure it leaves the other reads to themselves: they would go on,
    and each would complain on the screen when the program ends. Here they become empty, and are waited for.
    """
    failed: list[Exception] = []
    _FAILED.set(failed)
    before = asyncio.all_tasks()
    reader = asyncio.current_task()
    assert reader is not None
    _READERS.add(reader)
    try:
        values = np.asarray(await array.getitem(where))
    except Exception as error:  # codecs raise their own classes
        failed.append(error)
    if failed:
        for _ in range(_ROUNDS):
            left = asyncio.all_tasks() - before - _READERS
            if left:
                await asyncio.wait(left)
    _READERS.discard(reader)
    if failed:
        raise failed[0]
    return values


class ChunkStore(WrapperStore[Store]):
    """A read-only store that looks at the chunks of one array before they are decoded.

    A chunk that is cut, that would unpack to far more than its pixels, that is no regular file or that a link keeps
    elsewhere ends `read_part` with an ImageError.
    """

    def __init__(self, store: Store, facts: ArrayFacts, folder: Path | None) -> None:
        super().__init__(store)
        self._facts = facts
        self._folder = folder
        self._within: set[str] = set()

    def _with_store(self, store: Store) -> ChunkStore:
        return ChunkStore(store, self._facts, self._folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads a file or a part of it; None where there is none, or where another read has failed already."""
        failed = _FAILED.get()
        if failed is None:
            return await self._checked(key, prototype, byte_range)
        if not failed:
            try:
                return await self._checked(key, prototype, byte_range)
            except Exception as error:  # stores raise their own classes
                failed.append(error)
        return None

    async def _checked(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        metadata = key.rsplit("/", 1)[-1] in METADATA
        limit = MAX_METADATA if metadata else _file_limit(self._facts)
        data = None
        if self._folder is None:
            buffer = _part(await self._patiently(key, prototype, byte_range), byte_range)
        else:
            data = await asyncio.to_thread(self._read, key, byte_range, limit)
            buffer = None if data is None else prototype.buffer.from_bytes(data)
        if buffer is not None and not metadata:
            _check(key, memoryview(buffer.to_bytes() if data is None else data), self._facts, byte_range)
        return buffer

    async def _patiently(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        for attempt in range(ATTEMPTS - 1):
            try:
                return await self._store.get(key, prototype, byte_range)
            except (PermissionError, FileNotFoundError):
                raise
            except Exception as error:  # each file system has its own classes
                status = getattr(error, "status", None)
                if isinstance(status, int) and status < 500:
                    raise
                await asyncio.sleep(0.2 * 2**attempt)
        return await self._store.get(key, prototype, byte_range)

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
            start, stop = _span(byte_range, status.st_size)
            file.seek(start)
            return file.read(max(0, stop - start))


def _span(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
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
    start, stop = _span(byte_range, len(buffer))
    return buffer[start:stop] if len(buffer) > stop - start else buffer


def _limit(facts: ArrayFacts) -> int:
    return EXPANSION * facts.chunk_bytes + SLACK


def _file_limit(facts: ArrayFacts) -> int:
    if facts.sharding is None:
        return _limit(facts)
    return math.prod(facts.sharding.counts) * _limit(facts) + facts.sharding.index_bytes


def _check(key: str, view: memoryview, facts: ArrayFacts, byte_range: ByteRequest | None) -> None:
    """Looks at what was read before anything is decoded; raises ImageError."""
    if facts.sharding is None:
        _check_chunk(key, view, facts)
    elif isinstance(byte_range, RangeByteRequest):
        if len(view) != byte_range.end - byte_range.start:
            raise ImageError(f"its shard {key} is cut: its index leads to byte {byte_range.end}.")
        if byte_range.start > 0 or facts.sharding.at_end:
            _check_chunk(key, view, facts)
    elif byte_range is None:
        _check_shard(key, view, facts)
    elif len(view) < facts.sharding.index_bytes:
        raise ImageError(f"its shard {key} is cut: it has {len(view)} bytes, fewer than its index.")


def _check_shard(key: str, view: memoryview, facts: ArrayFacts) -> None:
    sharding = facts.sharding
    assert sharding is not None
    count = 16 * math.prod(sharding.counts)
    start = len(view) - sharding.index_bytes if sharding.at_end else 0
    if start < 0 or len(view) < sharding.index_bytes:
        raise ImageError(f"its shard {key} is cut: it has {len(view)} bytes, fewer than its index.")
    if not sharding.readable:
        return
    places = np.frombuffer(view[start : start + count], "<u8").reshape(-1, 2)
    for offset, length in places[(places != _NONE).any(axis=1)].tolist():
        if offset + length > len(view):
            raise ImageError(f"its shard {key} is cut: its index leads to byte {offset + length} of {len(view)}.")
        _check_chunk(key, view[offset : offset + length], facts)


def _check_chunk(key: str, view: memoryview, facts: ArrayFacts) -> None:
    codecs, limit = facts.codecs, _limit(facts)
    size = len(view) - codecs.trailing
    if size <= 0:
        raise ImageError(f"its chunk {key} is empty ({len(view)} bytes): the file was cut or never written to its end.")
    if codecs.plain and size != facts.chunk_bytes:
        raise ImageError(f"its chunk {key} has {size} bytes; its pixels take {facts.chunk_bytes}: the file is cut.")
    unpacked, stored = _claims(codecs, view[:size])
    if stored is not None and stored != size:
        raise ImageError(f"its chunk {key} has {size} of {stored} bytes: the file is cut.")
    if size > limit or (unpacked is not None and unpacked > limit) or _overflows(codecs, view[:size], limit):
        raise ImageError(
            f"its chunk {key} of {size} bytes would unpack to {unpacked or 'far more'} bytes, where its pixels take "
            f"{facts.chunk_bytes}: refused as a decompression bomb."
        )


def _overflows(codecs: Codecs, view: memoryview, limit: int) -> bool:
    """Whether a chunk whose codec does not say its size unpacks to more than `limit` bytes."""
    if codecs.packer not in _SILENT:
        return False
    try:
        return len(_SILENT[codecs.packer]().decompress(view, limit + 1)) > limit
    except (zlib.error, lzma.LZMAError, OSError, ValueError):
        return False  # the codec itself will say what is wrong


def _claims(codecs: Codecs, view: memoryview) -> tuple[int | None, int | None]:
    """Unpacked and stored size of a chunk as it says itself; None where it does not."""
    head = bytes(view[:18])
    if codecs.packer == "blosc" and len(head) >= 16:
        return int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little")
    if codecs.packer == "lz4" and len(head) >= 4:
        return int.from_bytes(head[:4], "little"), None
    if codecs.packer == "gzip" and len(view) >= 18:
        return int.from_bytes(view[-4:], "little"), None
    if codecs.packer == "zstd" and len(head) >= 6 and head[:4] == b"\x28\xb5\x2f\xfd":
        return zstd_size(head), None
    return None, None


def zstd_size(head: bytes) -> int | None:
    """Size of the content as the header of a Zstandard frame says (RFC 8878, 3.1.1.1)."""
    descriptor = head[4]
    flag, single = descriptor >> 6, descriptor >> 5 & 1
    length = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    if length == 0 or len(head) < start + length:
        return None
    return int.from_bytes(head[start : start + length], "little") + (256 if length == 2 else 0)
