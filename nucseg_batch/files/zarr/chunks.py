"""The chunks of one zarr array, read with a look at each before it is decoded.

A codec believes what a chunk says of itself: a small file can inflate to gigabytes, and some codecs read past the end
of one that was cut. So sizes are compared first.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, RangeByteRequest, Store

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.fetch import FetchStore, ReadOnlyStore, is_metadata
from nucseg_batch.files.zarr.guard import ArrayFacts, Codecs, Sharding

SLACK = 65536
"""Bytes that a chunk may have beyond EXPANSION times its pixels: headers and checksums."""
EXPANSION = 8
"""How many times the bytes of its pixels a chunk may have, stored or unpacked: filters may store wider numbers."""
_FAILED: ContextVar[list[BaseException] | None] = ContextVar("failed", default=None)
"""What went wrong in the read that a task belongs to; None outside of `read_part`."""
_READERS: set[asyncio.Task[Any]] = set()
"""Tasks of `read_part` that are under way, which must not wait for each other; used by one loop only."""
_ROUNDS = 8
"""How often tasks that are left over are looked for: those that were found may have started others."""
_SILENT: dict[str | None, Any] = {
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}
"""Codecs that do not say how large a chunk is unpacked, which is found out before zarr unpacks it."""
_NONE = np.uint64(2**64 - 1)
"""What the index of a shard has in place of a chunk that is not there."""


async def read_part(array: zarr.AsyncArray[Any], where: tuple[slice, ...]) -> NDArray[Any]:
    """Reads a part of an array whose store is a `ChunkStore`; to be run by the loop that opened it.

    Zarr reads chunks at once, and after the first failure it leaves the other reads to themselves: they would go on,
    and each would complain on the screen when the program ends. Here they become empty, and are waited for.
    """
    failed: list[BaseException] = []
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


class ChunkStore(ReadOnlyStore):
    """A read-only store that looks at the chunks of one array before they are decoded.

    A chunk that is cut, that would unpack to far more than its pixels, that is no regular file or that a link keeps
    elsewhere ends `read_part` with an ImageError.
    """

    def __init__(self, store: Store, facts: ArrayFacts, folder: Path | None) -> None:
        super().__init__()
        self._facts = facts
        self._fetch: Any = FetchStore(store, folder, _file_limit(facts))  # Any: `get_ranges` is new in zarr 3.3

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

    async def get_ranges(
        self, key: str, byte_ranges: Sequence[ByteRequest | None], *, prototype: BufferPrototype, **limits: Any
    ) -> AsyncIterator[Sequence[tuple[int, Buffer | None]]]:
        """Reads chunks of a shard, neighbours in one request, and checks each by itself. Only zarr >= 3.3 calls this.

        `limits` are zarr's, on how far requests are merged. Yields nothing where another read has failed already.
        """
        failed = _FAILED.get()
        if failed:
            return
        try:
            for byte_range in byte_ranges:
                _check_length(key, byte_range, self._facts)
            groups = self._fetch.get_ranges(key, byte_ranges, prototype=prototype, **limits)
            async with aclosing(groups):
                async for group in groups:
                    for number, buffer in group:
                        _check(key, _view(buffer), self._facts, byte_ranges[number])
                    yield group
        except Exception as error:  # as above
            reason = _first(error)
            if isinstance(reason, FileNotFoundError):
                reason = _removed(key)
            if failed is None:
                raise reason from error
            failed.append(reason)

    async def _checked(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        metadata = is_metadata(key)
        if not metadata:
            _check_length(key, byte_range, self._facts)
        buffer: Buffer | None = await self._fetch.get(key, prototype, byte_range)
        if buffer is None and isinstance(byte_range, RangeByteRequest) and not _is_index(byte_range, self._facts):
            raise _removed(key)
        if buffer is not None and not metadata:
            _check(key, _view(buffer), self._facts, byte_range)
        return buffer


def _removed(key: str) -> ImageError:
    """The error of a chunk that is not there, though the index of its shard was."""
    return ImageError(f"its shard {key} was removed while it was read.")


def _view(buffer: Buffer) -> memoryview:
    return buffer.as_numpy_array().view(np.uint8).data


def _first(error: BaseException) -> BaseException:
    """The first error of a group, or the error itself."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _limit(facts: ArrayFacts) -> int:
    return EXPANSION * facts.chunk_bytes + SLACK


def _file_limit(facts: ArrayFacts) -> int:
    if facts.sharding is None:
        return _limit(facts)
    return math.prod(facts.sharding.counts) * _limit(facts) + facts.sharding.index_bytes


def _is_index(byte_range: ByteRequest | None, facts: ArrayFacts) -> bool:
    """Whether a part of a shard is its index, not a chunk."""
    sharding = facts.sharding
    if sharding is None or sharding.at_end:
        return not isinstance(byte_range, RangeByteRequest)
    return isinstance(byte_range, RangeByteRequest) and (byte_range.start, byte_range.end) == (0, sharding.index_bytes)


def _check_length(key: str, byte_range: ByteRequest | None, facts: ArrayFacts) -> None:
    """Refuses a chunk of a shard that is too long, by its index, before it is read; raises ImageError."""
    if facts.sharding is None or not isinstance(byte_range, RangeByteRequest) or _is_index(byte_range, facts):
        return
    length = byte_range.end - byte_range.start
    if length > _limit(facts):
        raise ImageError(
            f"a chunk of its shard {key} has {length} bytes by the index, where its pixels take {facts.chunk_bytes}: "
            "refused as a decompression bomb."
        )
    if byte_range.end > _file_limit(facts):
        raise ImageError(f"the index of its shard {key} is damaged: it leads to byte {byte_range.end}.")


def _check(key: str, view: memoryview, facts: ArrayFacts, byte_range: ByteRequest | None) -> None:
    """Looks at what was read before anything is decoded; raises ImageError."""
    if facts.sharding is None:
        _check_chunk(key, view, facts)
    elif byte_range is None:
        _check_shard(key, view, facts)
    elif not _is_index(byte_range, facts):
        _check_chunk(key, view, facts)
    elif len(view) < facts.sharding.index_bytes:
        raise ImageError(f"its shard {key} is cut: it has {len(view)} bytes, fewer than its index.")
    elif facts.sharding.readable and _places(view, facts.sharding).max(initial=0) >= 2**63:
        raise ImageError(f"the index of its shard {key} is damaged: it leads to a byte that no file has.")


def _check_shard(key: str, view: memoryview, facts: ArrayFacts) -> None:
    sharding = facts.sharding
    assert sharding is not None
    start = len(view) - sharding.index_bytes if sharding.at_end else 0
    if start < 0 or len(view) < sharding.index_bytes:
        raise ImageError(f"its shard {key} is cut: it has {len(view)} bytes, fewer than its index.")
    if not sharding.readable:
        return
    for offset, length in _places(view[start:], sharding).tolist():
        if offset + length > len(view):
            raise ImageError(f"its shard {key} is cut: its index leads to byte {offset + length} of {len(view)}.")
        _check_chunk(key, view[offset : offset + length], facts)


def _places(index: memoryview, sharding: Sharding) -> NDArray[np.uint64]:
    """Offset and length of each chunk that is there, by the index of a shard."""
    places = np.frombuffer(index[: 16 * math.prod(sharding.counts)], "<u8").reshape(-1, 2)
    return places[(places != _NONE).any(axis=1)]


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
