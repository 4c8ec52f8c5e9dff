"""Zarr stores in one zip archive, such as `image.ozx` (OME-Zarr, RFC 9) or `plate.zarr.zip`, read without unpacking.

An archive says how large each of its files is. That is compared with what can belong before anything is unpacked, and
no more than that is ever unpacked; what comes out is held against the archive's checksum.
"""

from __future__ import annotations

import asyncio
import os
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.fetch import ReadOnlyStore, span
from nucseg_batch.files.zarr.store import MAX_METADATA, MetadataFile, reason

SUFFIXES = (".ozx", ".zarr.zip")
"""Endings of names of archives that hold a store."""
_ENCRYPTED = 0x1
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
"""What reading an archive raises, RuntimeError for one that is encrypted."""


def is_archive(path: str | os.PathLike[str], *, named: bool = False) -> bool:
    """Whether a file is an archive that holds a store, by its name; named: the user gave it, so any .zip is one."""
    name = os.fspath(path).lower()
    return name.endswith((*SUFFIXES, ".zip") if named else SUFFIXES) and os.path.isfile(path)


def within_archive(root: str, path: str) -> tuple[str, str]:
    """An archive and a path in it, for a path below a root that leads into one; the same root and path for others."""
    parts = path.split("/")
    for count, part in enumerate(parts, start=1):
        if part.lower().endswith(SUFFIXES) and is_archive(place := os.path.join(root, *parts[:count])):
            return place, "/".join(parts[count:])
    return root, path


class ZipFiles:
    """The files in an archive; implements `StoreFiles`. Threads may read at once."""

    def __init__(self, path: Path) -> None:
        """Reads the list of files; raises ImageError for an archive that is damaged or encrypted."""
        try:
            self._status = os.stat(path)
            self._zip = zipfile.ZipFile(path)
            infos = self._zip.infolist()
        except _DAMAGE as error:
            raise ImageError(
                f"the zip archive cannot be read ({reason(error)}): it is damaged or truncated."
            ) from error
        if any(info.flag_bits & _ENCRYPTED for info in infos):
            raise ImageError("the zip archive is encrypted; unpack it.")
        self._path = path
        self._lock = threading.Lock()
        self._infos = {info.filename: info for info in infos if not info.is_dir()}
        self._below: dict[str, set[str]] = defaultdict(set)
        for name in self._infos:
            parts = name.split("/")[:-1]
            for count, part in enumerate(parts):
                self._below["/".join(parts[:count])].add(part)

    @property
    def root(self) -> str:
        """The archive."""
        return str(self._path)

    @property
    def local(self) -> Path | None:
        """None: it is no folder."""
        return None

    @property
    def links(self) -> int:
        """0: links in an archive are not followed."""
        return 0

    def size(self, name: str) -> int | None:
        """Bytes of a file once it is unpacked; None where there is none."""
        info = self._infos.get(name)
        return None if info is None else info.file_size

    def read(self, name: str, start: int, stop: int | None) -> bytes:
        """Bytes of a file that is there; raises ImageError where they are not as the archive says."""
        info = self._infos[name]
        end = info.file_size if stop is None else min(stop, info.file_size)
        try:
            with self._lock, self._zip.open(info) as file:
                if start:
                    file.seek(start)
                data = file.read(max(0, end - start))
        except _DAMAGE as error:
            raise ImageError(f"{name} cannot be read from the zip archive ({reason(error)}).") from error
        if len(data) != max(0, end - start):
            raise ImageError(f"{name} is shorter than the zip archive says: it is damaged or truncated.")
        return data

    def fetch(self, names: Iterable[str]) -> dict[str, MetadataFile | ImageError]:
        """Reads files; see `StoreFiles`."""
        found: dict[str, MetadataFile | ImageError] = {}
        for name in names:
            size = self.size(name)
            if size is None:
                continue
            if size > MAX_METADATA:
                found[name] = ImageError(f"{name} has {size} bytes, more than any metadata needs.")
                continue
            try:
                found[name] = MetadataFile(self.read(name, 0, None), self._status.st_mtime_ns)
            except ImageError as error:
                found[name] = error
        return found

    def folders(self, path: str) -> list[str] | None:
        """Names of the folders in a folder; see `StoreFiles`."""
        return sorted(self._below.get(path, ()))

    def store(self) -> Store:
        """The archive as a read-only store of zarr."""
        return ZippedStore(self)


class ZippedStore(ReadOnlyStore):
    """The files of an archive for zarr."""

    def __init__(self, files: ZipFiles) -> None:
        super().__init__()
        self.files = files

    def size(self, key: str) -> int | None:
        """Bytes of a file once it is unpacked; None where there is none."""
        return self.files.size(key)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads a file or a part of it; None where there is none."""
        size = self.files.size(key)
        if size is None:
            return None
        start, stop = span(byte_range, size)
        data = await asyncio.to_thread(self.files.read, key, start, stop)
        return prototype.buffer.from_bytes(data)
