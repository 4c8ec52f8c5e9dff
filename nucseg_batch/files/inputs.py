"""Finds the images of a folder, reads their headers and opens them as lazy dask arrays.

The walk follows no link out of the folder, opens nothing that is not a regular file, and tells what it passed over.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
from dask.core import flatten

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.files.images import IMAGE_SUFFIXES, read_header, read_image
from nucseg_batch.plan import Failure, ImageInfo

HEADER_THREADS = 8
"""Headers read at once; they wait for the disk more than they compute."""


@dataclass(frozen=True)
class FileEntry:
    """An image file that was found."""

    key: str
    """Path relative to the input folder, with `/` and suffix."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of its last change, in nanoseconds."""


@dataclass(frozen=True)
class Discovery:
    """What a folder holds."""

    entries: tuple[FileEntry, ...]
    """Image files, sorted by key."""
    skipped: dict[str, int]
    """How many other things were passed over, by reason."""


def discover(folder: Path) -> Discovery:
    """Lists the image files below a folder, at any depth.

    Raises InputMissingError where there is no such folder and NothingToDoError where it holds no image.
    """
    if not folder.exists():
        raise InputMissingError(f"IN {folder}: there is no such folder.")
    if not folder.is_dir():
        raise InputMissingError(f"IN {folder}: this is a file; give the folder that holds the images.")
    skipped: Counter[str] = Counter()
    entries = sorted(_walk(folder, folder.resolve(), skipped), key=lambda entry: entry.key)
    if not entries:
        others = sum(skipped.values())
        raise NothingToDoError(
            f"IN {folder}: no image was found (PNG, JPEG or TIFF){f'; {others} other files were' if others else ''}"
            f"{' passed over' if others else ''}."
        )
    return Discovery(tuple(entries), dict(skipped))


def _walk(folder: Path, root: Path, skipped: Counter[str]) -> Iterator[FileEntry]:
    def refuse(error: OSError) -> None:
        skipped[f"folder that cannot be read ({error.strerror})"] += 1

    for place, folders, names in os.walk(folder, onerror=refuse):
        kept = []
        for name in folders:
            if name.startswith(".") or name.endswith(".zarr"):
                skipped["hidden folder" if name.startswith(".") else "zarr store"] += 1
            elif os.path.islink(os.path.join(place, name)):
                skipped["link to a folder"] += 1
            else:
                kept.append(name)
        folders[:] = sorted(kept)
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                skipped["hidden file"] += 1
            elif path.suffix.lower() not in IMAGE_SUFFIXES:
                skipped["file that is not PNG, JPEG or TIFF"] += 1
            elif reason := _refusal(path, root):
                skipped[reason] += 1
            else:
                status = path.stat()
                yield FileEntry(path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns)


def _refusal(path: Path, root: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "link that leads nowhere"
    if path.is_symlink() and root not in path.resolve().parents:
        return "link out of the folder"
    return None if stat.S_ISREG(mode) else "device, pipe or socket"


def read_headers(
    folder: Path, entries: tuple[FileEntry, ...], *, max_pixels: int, progress: Callable[[int], None]
) -> tuple[list[ImageInfo], list[Failure]]:
    """Reads every header; images that cannot be used become failures of stage `plan`.

    `progress` is called with the number of headers read so far. Raises NothingToDoError where no image can be used.
    """

    def read(entry: FileEntry) -> ImageInfo | Failure:
        try:
            header = read_header(folder / entry.key, max_pixels=max_pixels)
        except ImageError as error:
            return Failure(entry.key, "plan", _cause(error), str(error))
        shape = (header.height, header.width, header.channels)
        return ImageInfo(entry.key, entry.size, entry.mtime_ns, *shape, header.dtype, header.pixel_size)

    images: list[ImageInfo] = []
    failures: list[Failure] = []
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        for done, found in enumerate(pool.map(read, entries), start=1):
            if isinstance(found, Failure):
                failures.append(found)
            else:
                images.append(found)
            progress(done)
    return images, failures


def open_image(folder: Path, info: ImageInfo, *, max_pixels: int) -> da.Array:
    """An image as a lazy dask array of one block: (y, x), or (y, x, channel) for colour.

    Computing it raises ImageError where the file cannot be read or is no longer the planned one.
    """
    shape = _shape(info)
    name = f"image-{info.key}"
    block = (name, *(0 for _ in shape))
    chunks = tuple((length,) for length in shape)
    return da.Array({block: (_read_planned, folder / info.key, info, max_pixels)}, name, chunks, dtype=info.dtype)


def load(array: da.Array) -> Any:
    """Computes an array of one block in this thread; a fifth of what `compute` takes for so small a graph."""
    (pixels,) = dask.get(array.dask, list(flatten(array.__dask_keys__())))
    return pixels


def _shape(info: ImageInfo) -> tuple[int, ...]:
    plane = (info.height, info.width)
    return plane if info.channels == 1 else (*plane, info.channels)


def _read_planned(path: Path, info: ImageInfo, max_pixels: int) -> Any:
    pixels = read_image(path, max_pixels=max_pixels)
    status = path.stat()
    if (status.st_size, status.st_mtime_ns) != (info.size, info.mtime_ns):
        raise ImageError("the file was changed after it was planned; run the same command again.")
    if pixels.shape != _shape(info) or pixels.dtype.name != info.dtype:
        raise ImageError(f"its header promised {_shape(info)} {info.dtype}, but it is {pixels.shape} {pixels.dtype}.")
    return pixels


def failure_of(image: str, stage: str, error: Exception) -> Failure:
    """The failure of one image, with the class of the error that first went wrong."""
    first = next((line for line in str(error).splitlines() if line.strip()), "no further words")
    return Failure(image, stage, _cause(error), " ".join(first.split())[:300])


def _cause(error: BaseException) -> str:
    return type(error.__cause__ or error).__name__
