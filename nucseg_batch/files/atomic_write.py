"""Files that appear complete, on disk, or not at all: written under a temporary name, synchronised, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import shutil
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
    temporary = _temporary(path)
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


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to put files into, which gets its name, and takes the place of an earlier one, when the block ends well.

    For a moment between the two there is none of this name. All files are on disk then.
    """
    new, old = (_temporary(path) for _ in range(2))
    try:
        new.mkdir()
        yield new
        for file in (*new.iterdir(), new):
            sync(file)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        os.rename(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    sync(path.parent)


def _temporary(path: Path) -> Path:
    """A name beside a file or folder that is this writer's own."""
    return path.with_name(f".{path.name[:LONGEST_STEM]}.{process_name()}-{next(_numbers)}{PARTIAL}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file; text as UTF-8, in which bytes of file names that are none stay what they are."""
    with whole_file(path) as file:
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def file_state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written again: its inode, size, and time of last change in ns; zeros for no file."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content; of a folder, of the names and the sha256 of its files."""
    if path.is_dir():
        lines = (f"{file.name} {file_sha256(file)}\n" for file in sorted(path.iterdir()))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
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
                        remove(Path(entry.path))


def remove(path: Path) -> None:
    """Deletes a file, or a folder of files; raises FileNotFoundError where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk and not only in the system's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
