"""Shards of arrays of ours, encoded in one pass: the bytes that zarr-python writes, at a fifth of its processor time.

zarr-python writes any array, chunk by chunk through its event loop and a pool of threads, which costs several times
what compressing does. Arrays of ours have one layout: chunks of little-endian numbers, each compressed by Zstandard,
one after the other in the order of Morton codes, and then the index of all chunks with its checksum, as the sharding
codec of zarr version 3 has it (https://zarr-specs.readthedocs.io, `sharding_indexed`). Arrays of any other layout are
left to zarr-python, which reads all of them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

_MISSING = 2**64 - 1
"""Offset and length, in the index, of a chunk that is all zeros and not stored."""
_CASTAGNOLI = 0x82F63B78
"""The polynomial of CRC-32C, its bits reversed (RFC 3720)."""


class ShardEncoder:
    """Encodes the shards of an array.

    shard, chunk: lengths along each axis. dtype: of the array's values. level: of Zstandard.
    """

    def __init__(self, shard: Sequence[int], chunk: Sequence[int], dtype: np.dtype[Any], level: int) -> None:
        self.shard, self._chunk = tuple(shard), tuple(chunk)
        self._dtype = dtype.newbyteorder("<")
        self._packer = Zstd(level=level, checksum=True)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> ShardEncoder | None:
        """The encoder of an array, from the content of its zarr.json; None where it is not laid out as ours are."""
        try:
            (sharding,) = metadata["codecs"]
            inner = sharding["configuration"]
            level = inner["codecs"][1]["configuration"]["level"]
            shard, chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"], inner["chunk_shape"]
            dtype = np.dtype(metadata["data_type"])
            of_bytes = _codec("bytes", endian="little")
            expected = {
                "chunk_shape": chunk,
                "codecs": [
                    _codec("bytes") if dtype.itemsize == 1 else of_bytes,
                    _codec("zstd", level=level, checksum=True),
                ],
                "index_codecs": [of_bytes, _codec("crc32c")],
                "index_location": "end",
            }
            ours = (metadata["zarr_format"], metadata["chunk_grid"]["name"], sharding["name"]) == (
                3,
                "regular",
                "sharding_indexed",
            )
            if ours and inner == expected and metadata["fill_value"] == 0 and not metadata.get("storage_transformers"):
                return cls(shard, chunk, dtype, level)
        except (KeyError, TypeError, ValueError, IndexError):
            pass
        return None

    def parts(self, bounds: Sequence[slice]) -> Iterator[tuple[slice, ...]]:
        """The parts of `bounds`, counted from where these begin, that are a shard each, the last axis fastest."""
        sides = [
            [slice(i, min(i + step, part.stop - part.start)) for i in range(0, part.stop - part.start, step)]
            for part, step in zip(bounds, self.shard, strict=True)
        ]
        return itertools.product(*sides)

    def encoded(self, values: NDArray[Any]) -> bytes | None:
        """A shard's file from its values, which the array's type holds; None where all are zero.

        Values may be fewer than a shard has, where it reaches beyond the end of the array.
        """
        grid = tuple(whole // part for whole, part in zip(self.shard, self._chunk, strict=True))
        index = np.full((math.prod(grid), 2), _MISSING, "<u8")
        pieces: list[bytes] = []
        at = 0
        for number, place in _ordered(grid):
            where = tuple(slice(i * step, (i + 1) * step) for i, step in zip(place, self._chunk, strict=True))
            piece = self._packed(values[where])
            if piece is not None:
                index[number] = at, len(piece)
                pieces.append(piece)
                at += len(piece)
        if not pieces:
            return None
        listed = index.tobytes()
        return b"".join((*pieces, listed, crc32c(listed).to_bytes(4, "little")))

    def _packed(self, part: NDArray[Any]) -> bytes | None:
        """A chunk as it is stored; None where it is all zeros, or beyond the end of the array."""
        if not part.size:
            return None
        if part.shape != self._chunk:
            whole = np.zeros(self._chunk, self._dtype)
            whole[tuple(map(slice, part.shape))] = part
            part = whole
        part = np.ascontiguousarray(part, self._dtype)
        if not part.view(f"u{part.itemsize}").max():  # by bits: -0.0 is not a missing value
            return None
        return bytes(self._packer.encode(part))


def crc32c(content: bytes) -> int:
    """The checksum CRC-32C of an index, which is short."""
    table, value = _crc_table(), 0xFFFFFFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CASTAGNOLI if value & 1 else 0)
        table.append(value)
    return table


@functools.lru_cache(maxsize=64)
def _ordered(grid: tuple[int, ...]) -> list[tuple[int, tuple[int, ...]]]:
    """The chunks of a shard in the order in which they are stored: number in the index, and place along each axis.

    That is the order of their Morton codes, in which the bits of places are interleaved, those of the first axis
    lowest; an axis has no more bits than its length needs.
    """
    needed = [(length - 1).bit_length() for length in grid]

    def code(place: tuple[int, ...]) -> int:
        value, at = 0, 0
        for bit in range(max(needed)):
            for i, bits in zip(place, needed, strict=True):
                if bit < bits:
                    value |= (i >> bit & 1) << at
                    at += 1
        return value

    places = itertools.product(*map(range, grid))
    return sorted(enumerate(places), key=lambda one: code(one[1]))


def _codec(name: str, **configuration: object) -> dict[str, object]:
    return {"name": name, "configuration": configuration} if configuration else {"name": name}
