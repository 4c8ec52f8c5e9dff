"""The chunk files of a zarr array in a folder: whether they are where its metadata say, and how many there are.

A chunk that has no file is read by zarr as the array's fill value. Whether it was empty or got lost cannot be told from
that, so that all this can do is to count, and to notice where none could ever be found.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.fetch import METADATA
from nucseg_batch.files.zarr.guard import ArrayFacts

_LOOKED_AT = 64
"""Files of an array that are looked at to tell whether they are named as its metadata say."""


@dataclass(frozen=True)
class ChunkCount:
    """Chunk files of an array in a folder."""

    present: int
    """Files that are there."""
    expected: int
    """Files that a full array would have."""
    stored_bytes: int
    """Their size in bytes."""
    counted: bool
    """Whether all were looked at; False where there were too many."""

    @property
    def missing(self) -> int:
        """Files that are not there: chunks that are empty, or got lost."""
        return self.expected - self.present


def has_chunks(folder: Path, facts: ArrayFacts) -> bool:
    """Whether an array has any chunk file.

    Raises ImageError where its files are not named as its metadata say: all would read as empty.
    """
    pattern = re.compile(_first_name(facts))
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in METADATA or entry.name.startswith(".") or entry.name.endswith(".partial"):
                    continue
                if pattern.fullmatch(entry.name):
                    return True
                found.append(entry.name)
                if len(found) == _LOOKED_AT:
                    break
    except OSError:
        return False
    if found:
        expected = facts.file_name((0,) * len(facts.shape))
        raise ImageError(
            f"its chunks are not where its metadata say: it has {min(found)[:40]!r}, but names such as {expected!r} "
            "are expected; every pixel would read as empty. Is the dimension separator right?"
        )
    return False


def _first_name(facts: ArrayFacts) -> str:
    """Pattern of the names that lie directly in the folder of an array."""
    if facts.separator == "/":
        return facts.prefix or r"\d+"
    numbers = r"\d+" + r"\.\d+" * (len(facts.shape) - 1)
    return rf"{facts.prefix}\.{numbers}" if facts.prefix else numbers


def count_chunks(folder: Path, facts: ArrayFacts, *, limit: int = 200_000) -> ChunkCount:
    """Counts the chunk files (of shards, where it has them) of an array in a folder, at most `limit` of them.

    Says nothing of chunks that are missing within a shard.
    """
    expected = math.prod(facts.grid)
    present = size = 0
    start = folder / facts.prefix if facts.separator == "/" else folder
    waiting: list[tuple[str, tuple[int, ...]]] = [(os.fspath(start), ())]
    while waiting:
        place, above = waiting.pop()
        for entry in _entries(place):
            numbers = _numbers(entry.name, above, facts)
            if numbers is None or any(n >= length for n, length in zip(numbers, facts.grid, strict=False)):
                continue
            if len(numbers) < len(facts.grid):
                waiting.append((entry.path, numbers))
                continue
            if present == limit:
                return ChunkCount(present, expected, size, counted=False)
            present, size = present + 1, size + entry.stat().st_size
    return ChunkCount(present, expected, size, counted=True)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _numbers(name: str, above: tuple[int, ...], facts: ArrayFacts) -> tuple[int, ...] | None:
    """Place along the first axes that a file or folder stands for; None for what is no chunk."""
    if facts.separator == "." and facts.prefix:
        name = name.removeprefix(f"{facts.prefix}.")
    parts = name.split(facts.separator)
    if not all(part.isdecimal() and part.isascii() for part in parts) or len(above) + len(parts) > len(facts.grid):
        return None
    return (*above, *map(int, parts))
