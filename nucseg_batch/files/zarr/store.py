"""Where the small files of a zarr store come from: a folder, or a URL through fsspec.

Discovery reads metadata in batches, because behind a URL each file costs a round trip. Nothing outside the root is
read: a link that leads out of a folder is refused, and only regular files of a sane size are opened.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from nucseg_batch.errors import ImageError, InputMissingError
from nucseg_batch.files.retry import SERVER_RETRY

MAX_METADATA = 64 * 2**20
"""Largest metadata file in bytes; that of a plate of 1536 wells and nine fields has some hundred thousand."""
THREADS = 8
"""Files of a folder that are read at once: over a network they wait more than they compute."""
FEW = 32
"""So many files are read faster without threads."""
REQUESTS = 64
"""Requests behind a URL that are under way at once."""
INSTALL = "pip install 'nucseg-batch[remote]'"
"""What brings the packages that URLs need."""


class NotAllowedError(ImageError):
    """A server forbids a file, which some also say of a file that is not there."""


@dataclass(frozen=True)
class MetadataFile:
    """A small file of a store."""

    data: bytes
    """Its content."""
    mtime_ns: int
    """Time of its last change in nanoseconds; 0 behind a URL."""


class StoreFiles(Protocol):
    """The files below the root of a store."""

    @property
    def root(self) -> str:
        """Path or URL, as it is told to the user."""
        ...

    @property
    def local(self) -> Path | None:
        """The root folder; None behind a URL."""
        ...

    @property
    def links(self) -> int:
        """How many links to folders `folders` has left out."""
        ...

    def fetch(self, names: Iterable[str]) -> dict[str, MetadataFile | ImageError]:
        """Reads files; those that are not there are left out, those that cannot be read come as the reason."""
        ...

    def folders(self, path: str) -> list[str] | None:
        """Names of the folders in a folder, sorted, links not among them; None where that cannot be found out."""
        ...

    def store(self) -> Store:
        """The same as a read-only store of zarr."""
        ...


def is_url(root: str | os.PathLike[str]) -> bool:
    """Whether it is a URL, such as `s3://bucket/plate.zarr`, and no path."""
    return isinstance(root, str) and "://" in root and not root.startswith("file://")


def open_files(root: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> StoreFiles:
    """The files below a path or URL; `storage_options` go to fsspec.

    Raises InputMissingError where there is no such folder, or where a URL needs packages that are not installed.
    """
    if is_url(root):
        return RemoteFiles(str(root), storage_options)
    return LocalFiles(Path(str(root).removeprefix("file://")))


class LocalFiles:
    """The files below a folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            what = "this is a file; unpack it, or give the folder of the store" if root.exists() else "it is not there"
            raise InputMissingError(f"{root}: {what}.")
        self._folder = root
        self._real = os.path.realpath(root)
        self._links = 0

    @property
    def links(self) -> int:
        """How many links to folders `folders` has left out."""
        return self._links

    @property
    def root(self) -> str:
        """The folder."""
        return str(self._folder)

    @property
    def local(self) -> Path | None:
        """The folder."""
        return self._folder

    def fetch(self, names: Iterable[str]) -> dict[str, MetadataFile | ImageError]:
        """Reads files, many at once; see `StoreFiles`."""
        wanted = list(names)
        if len(wanted) <= FEW:
            return {name: found for name in wanted if (found := self._read(name)) is not None}
        with ThreadPoolExecutor(THREADS) as pool:
            return {name: found for name, found in zip(wanted, pool.map(self._read, wanted), strict=True) if found}

    def _read(self, name: str) -> MetadataFile | ImageError | None:
        path = self._folder / name
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                return ImageError(f"{name} is not a regular file.")
            if status.st_size > MAX_METADATA:
                return ImageError(f"{name} has {status.st_size} bytes, more than any metadata needs.")
            if not inside(os.path.realpath(path), self._real):
                return ImageError(f"{name} leads out of the store by a link; copy the data into it.")
            return MetadataFile(path.read_bytes(), status.st_mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            return ImageError(f"{name} cannot be read ({reason(error)}).")

    def folders(self, path: str) -> list[str] | None:
        """Names of the folders in a folder; see `StoreFiles`."""
        try:
            with os.scandir(self._folder / path) as entries:
                found = [entry for entry in entries if entry.is_dir()]
            self._links += sum(entry.is_symlink() for entry in found)
            return sorted(entry.name for entry in found if not entry.is_symlink())
        except OSError:
            return None

    def store(self) -> Store:
        """The folder as a store of zarr."""
        return LocalStore(self._folder, read_only=True)


class RemoteFiles:
    """The files below a URL. Web servers (http) cannot be listed; object stores can."""

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self._url = url.rstrip("/")
        self._options = dict(storage_options or {})
        self._connect()

    def _connect(self) -> None:
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            self._system, self._base = url_to_fs(self._url, **self._options)
        except (ImportError, ValueError) as error:
            what = INSTALL if isinstance(error, ImportError) else "give a path, or a URL of s3 or http"
            raise InputMissingError(f"{self._url} cannot be opened ({reason(error)}): {what}.") from error
        self._base = self._base.rstrip("/")

    @property
    def root(self) -> str:
        """The URL."""
        return self._url

    @property
    def local(self) -> Path | None:
        """None: it is no folder."""
        return None

    @property
    def links(self) -> int:
        """0: there are none."""
        return 0

    def fetch(self, names: Iterable[str]) -> dict[str, MetadataFile | ImageError]:
        """Reads many files at once; see `StoreFiles`. Without credentials, buckets are read as public ones."""
        wanted = list(names)
        answers: dict[str, bytes | BaseException] = {}
        for pause in (0.0, *SERVER_RETRY.pauses):
            time.sleep(pause)
            answers |= dict(zip(wanted, self._request(wanted), strict=True))
            if any(type(answer).__name__ == "NoCredentialsError" for answer in answers.values()):
                self._options.setdefault("anon", True)
                self._connect()
            wanted = [
                name
                for name, answer in answers.items()
                if isinstance(answer, Exception) and SERVER_RETRY.may_pass(answer)
            ]
            if not wanted:
                break
        found = {name: _document(name, answer) for name, answer in answers.items()}
        return {name: document for name, document in found.items() if document is not None}

    def _request(self, names: list[str]) -> list[bytes | BaseException]:
        paths = [f"{self._base}/{name}" for name in names]
        room = {"batch_size": REQUESTS} if self._system.async_impl else {}
        return list(self._system.cat_ranges(paths, None, None, on_error="return", **room))

    def folders(self, path: str) -> list[str] | None:
        """Names of the folders in a folder; see `StoreFiles`."""
        if urlsplit(self._url).scheme in ("http", "https"):
            return None
        try:
            entries = self._system.ls(f"{self._base}/{path}".rstrip("/"), detail=True)
        except Exception:  # each file system has its own classes
            return None
        return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")

    def store(self) -> Store:
        """The URL as a store of zarr."""
        return FsspecStore.from_url(self._url, storage_options=self._options, read_only=True)


def inside(path: str, root: str) -> bool:
    """Whether a resolved path is a resolved root or lies below it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def reason(error: BaseException) -> str:
    """An error of any library in a few words on one line."""
    status = getattr(error, "status", None)  # of aiohttp, whose text repeats the whole URL
    if isinstance(status, int):
        return f"HTTP {status}"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = " ".join(text.split())[:200].rstrip(" .")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _document(name: str, answer: bytes | BaseException) -> MetadataFile | ImageError | None:
    if isinstance(answer, bytes):
        return MetadataFile(answer, 0)
    if isinstance(answer, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return None
    if not isinstance(answer, Exception):
        raise answer
    if isinstance(answer, PermissionError) or getattr(answer, "status", None) in (401, 403):
        return NotAllowedError(f"{name} cannot be read ({reason(answer)}).")
    return ImageError(f"{name} cannot be read ({reason(answer)}).")
