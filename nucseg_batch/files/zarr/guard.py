"""What a zarr array must be before any of its pixels is read: real numbers, known codecs, pieces that fit in memory.

The metadata of an array are a few hundred bytes that can claim anything. How large the whole array is does not matter,
since only windows of it are read; how large one chunk is does, since a chunk is decoded whole.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.nodes import Node, below

MAX_CHUNK = 2**30
"""Largest chunk in bytes, decoded."""
MAX_INDEX = 64 * 2**20
"""Largest index of a shard in bytes: 16 for each of its chunks, kept whole in memory."""
MAX_AXES = 32
"""Axes that an array may have."""
PACKERS = frozenset({"blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"})
"""Codecs that make bytes fewer."""
CHECKSUMS = {"crc32c": 4, "crc32": 4, "adler32": 4, "fletcher32": 4}
"""Codecs that add a checksum, and its bytes."""
FILTERS = frozenset({"astype", "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle"})
"""Codecs that rearrange numbers."""
LAYOUTS = frozenset({"bytes", "transpose", "sharding_indexed"})
"""Codecs of format 3 that say how numbers lie in memory."""
_TYPES = {"bool", "float16", "float32", "float64"} | {f"{sign}int{8 << i}" for sign in ("", "u") for i in range(4)}


@dataclass(frozen=True)
class Codecs:
    """How the bytes of a chunk come about."""

    packer: str | None
    """What makes them fewer; None where nothing does."""
    trailing: int
    """Bytes of checksums behind what the packer wrote."""
    plain: bool
    """Whether the bytes are exactly those of the pixels, but for `trailing`."""


@dataclass(frozen=True)
class Sharding:
    """How a shard holds its chunks."""

    counts: tuple[int, ...]
    """Chunks along each axis."""
    at_end: bool
    """Whether the index lies at the end, else at the start."""
    index_bytes: int
    """Bytes of the index."""
    readable: bool
    """Whether the index is stored as plain numbers, so that it can be checked."""


@dataclass(frozen=True)
class ArrayFacts:
    """An array that may be read, in terms that both formats share."""

    shape: tuple[int, ...]
    """Lengths of its axes."""
    dtype: np.dtype[Any]
    """Of the stored pixels, in this machine's byte order."""
    chunk: tuple[int, ...]
    """Shape of the pieces that are decoded whole."""
    piece: tuple[int, ...]
    """Shape of the pieces that are a file each: shards where it has them, else chunks."""
    codecs: Codecs
    """Of a chunk."""
    sharding: Sharding | None
    """None where each chunk is a file."""
    prefix: str
    """What the names of its files begin with: `c` in format 3, else nothing."""
    separator: str
    """Between the numbers in the names of its files: `/` or `.`."""

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Files along each axis."""
        return tuple(-(-length // step) for length, step in zip(self.shape, self.piece, strict=True))

    def file_name(self, place: tuple[int, ...]) -> str:
        """Name of the file at a place of the grid."""
        return self.separator.join([*([self.prefix] if self.prefix else []), *map(str, place)])


def member_path(base: str, relative: object) -> str:
    """Path of what metadata name; raises ImageError for a name that leads out of the group or is none."""
    if not isinstance(relative, str) or not relative.isprintable() or "\\" in relative:
        raise ImageError(f"its metadata name a path {str(relative)[:60]!r}, which is none.")
    parts = relative.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ImageError(f"its metadata name a path {relative[:60]!r} that leads out of the store: refused.")
    return below(base, "/".join(parts))


def check_array(node: Node) -> ArrayFacts:
    """The facts of an array; raises ImageError for one that cannot or should not be read."""
    try:
        facts = _facts_two(node.metadata) if node.zarr_format == 2 else _facts_three(node.metadata)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"the metadata of its array are damaged ({type(error).__name__}: {error}).") from error
    size = facts.chunk_bytes
    if size > MAX_CHUNK:
        raise ImageError(
            f"its chunks of {'x'.join(map(str, facts.chunk))} take {size / 2**30:.1f} GiB each; {MAX_CHUNK >> 30} GiB "
            "is the most that is decoded at once: store it again in smaller chunks, such as 1024x1024."
        )
    return facts


def _facts_two(metadata: dict[str, Any]) -> ArrayFacts:
    shape, chunk = _shape(metadata["shape"]), _lengths(metadata["chunks"], "chunks")
    if len(shape) != len(chunk):
        raise ImageError(f"its array has {len(shape)} axes, but chunks of {len(chunk)}.")
    dtype = pixel_type(metadata["dtype"])
    packer = metadata.get("compressor")
    steps = [*(metadata.get("filters") or []), *([packer] if packer is not None else [])]
    codecs = _codecs([str(step["id"]) for step in steps])
    separator = metadata.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise ImageError(f"its chunks are named with {separator!r} between numbers, which zarr does not know.")
    return ArrayFacts(shape, dtype, chunk, chunk, codecs, None, "", separator)


def _facts_three(metadata: dict[str, Any]) -> ArrayFacts:
    shape = _shape(metadata["shape"])
    if metadata["chunk_grid"]["name"] != "regular":
        raise ImageError(f"its chunks are {metadata['chunk_grid']['name']}, not of one shape; store it again.")
    piece = _lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"], "chunks")
    if len(shape) != len(piece):
        raise ImageError(f"its array has {len(shape)} axes, but chunks of {len(piece)}.")
    if metadata.get("storage_transformers"):
        raise ImageError("its array uses storage transformers, which are not supported.")
    dtype = pixel_type(metadata["data_type"])
    chunk, codecs, sharding = _pieces(piece, metadata["codecs"])
    keys = metadata.get("chunk_key_encoding", "default")
    name = keys if isinstance(keys, str) else keys["name"]
    if name not in ("default", "v2"):
        raise ImageError(f"its chunks are named by the rule {str(name)[:40]!r}, which is not supported.")
    usual = "/" if name == "default" else "."
    separator = usual if isinstance(keys, str) else keys.get("configuration", {}).get("separator", usual)
    return ArrayFacts(
        shape, dtype, chunk, piece, codecs, sharding, "c" if name == "default" else "", "." if separator == "." else "/"
    )


def _pieces(piece: tuple[int, ...], steps: list[Any]) -> tuple[tuple[int, ...], Codecs, Sharding | None]:
    """Shape and codecs of what is decoded whole: chunks of a shard only where nothing is wound around the shard."""
    names = [_codec_name(step) for step in steps]
    if "transpose" in names:
        order = steps[names.index("transpose")]["configuration"]["order"]
        if not isinstance(order, list) or sorted(order) != list(range(len(piece))):
            raise ImageError(f"its chunks are transposed by {str(order)[:40]!r}, which is no order of its axes.")
    if "sharding_indexed" not in names:
        return piece, _codecs(names), None
    settings = steps[names.index("sharding_indexed")]["configuration"]
    inner = _lengths(settings["chunk_shape"], "chunks of shards")
    if len(inner) != len(piece) or any(whole % part for whole, part in zip(piece, inner, strict=True)):
        raise ImageError(f"its shards of {piece} do not divide into chunks of {inner}.")
    counts = tuple(whole // part for whole, part in zip(piece, inner, strict=True))
    index_codecs = [_codec_name(step) for step in settings.get("index_codecs", [])]
    index_bytes = 16 * math.prod(counts) + 4 * index_codecs.count("crc32c")
    if index_bytes > MAX_INDEX:
        raise ImageError(
            f"its shards hold {math.prod(counts)} chunks each, whose index of {index_bytes / 2**20:.0f} MiB is more "
            f"than the {MAX_INDEX >> 20} MiB allowed; store it again in larger chunks."
        )
    readable = set(index_codecs) <= {"bytes", "crc32c"}
    sharding = Sharding(counts, settings.get("index_location", "end") != "start", index_bytes, readable)
    chunk, codecs, deeper = _pieces(inner, settings["codecs"])
    if len(names) > 1:
        return piece, _codecs(names), None
    return chunk, codecs, None if deeper else sharding


def _codec_name(step: Any) -> str:
    return str(step if isinstance(step, str) else step["name"]).removeprefix("numcodecs.")


def _codecs(names: list[str]) -> Codecs:
    for name in names:
        if name not in PACKERS | FILTERS | LAYOUTS | CHECKSUMS.keys():
            raise ImageError(
                f"its chunks need the codec {name[:40]!r}, which is not among those that are safe and known "
                f"({', '.join(sorted(PACKERS))}); store it again with one of these."
            )
    trailing = 0
    for name in reversed(names):
        if name in PACKERS:
            return Codecs(name, trailing, False)
        if name not in CHECKSUMS:
            break
        trailing += CHECKSUMS[name]
    return Codecs(None, trailing, not set(names) & (PACKERS | FILTERS | {"sharding_indexed"}))


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, list) and any(length == 0 for length in value):
        raise ImageError(f"it has no pixels (its shape is {tuple(value)}).")
    return _lengths(value, "its array")


def _lengths(value: Any, what: str) -> tuple[int, ...]:
    good = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    if not good or any(not 0 < n < 2**63 for n in value) or len(value) > MAX_AXES:
        raise ImageError(f"the shape of {what} is {str(value)[:80]}, which is none.")
    return tuple(value)


def pixel_type(value: Any) -> np.dtype[Any]:
    """The type of the pixels, native; ImageError for what is no real number."""
    name = value
    if isinstance(value, str) and re.fullmatch(r"[<>|=]?[biufc]\d{1,2}", value):
        name = np.dtype(value).name
    if not isinstance(name, str) or name not in _TYPES:
        text = name if isinstance(name, str) else "a record"
        raise ImageError(
            f"its pixels are of type {text[:40]}; whole numbers of 8 to 64 bits, bool and float are read: convert it."
        )
    return np.dtype(name)


def read_type(dtype: np.dtype[Any]) -> str:
    """What pixels of a type are returned as: bool as uint8, floats as float32, integers as they are."""
    return {"b": "uint8", "f": "float32"}.get(dtype.kind, dtype.name)
