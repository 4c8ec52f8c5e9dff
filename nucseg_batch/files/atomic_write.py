"""Files that appear complete, on disk, or not at all: written under a temporary name, synchronised, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO

LONGEST_STEM = 150
"""Characters of a name that its temporary name keeps."""
PARTIAL = ".partial"
"""How temporary names end; they begin with a dot and the name that is meant."""
_numbers = itertools.count()


def process_name() -> str:
    """The machine and the number of this process, as part of a file name without dots."""
    return f"{platform.node()[:40].replace('.', '-')}-{os.getpid()}"


@contextlib.contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A file to write, which appears under its name only when the block ends well.

    The temporary name is this writer's own, so that two processes that write one file, as after the death of a node, do
    not meet: one whole file replaces the other. `durable` waits until it is on disk.
    """
    temporary = path.with_name(f".{path.name[:LONGEST_STEM]}.{process_name()}-{next(_numbers)}{PARTIAL}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file; text as UTF-8, in which bytes of file names that are none stay what they are."""
    with whole_file(path) as file:
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_leftovers(folder: Path, names: Container[str] | None = None) -> None:
    """Deletes what killed writers left under temporary names in a folder: of all files, or of those of these names.

    Only for files that no other process can be writing.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(".") and entry.name.endswith(PARTIAL):
                meant = entry.name[1 : -len(PARTIAL)].rpartition(".")[0]
                if names is None or meant in names:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk and not only in the system's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
