"""Walks folders: which of their files are images to segment, and what is passed over and told.

A walk follows no link to a folder and no link out of the root, opens nothing that is not a regular file, and passes
over annotation that lies beside its images and what microscopes write beside theirs.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from nucseg_batch.errors import ImageError
from nucseg_batch.files.bioio_source import BIOIO_SUFFIXES
from nucseg_batch.files.find.entries import FileEntry
from nucseg_batch.files.find.name_rules import byproduct, label_images
from nucseg_batch.files.find.stores import is_store, read_store
from nucseg_batch.files.images import IMAGE_SUFFIXES
from nucseg_batch.plan import Failure

ANNOTATION_FOLDERS = frozenset({"labels", "masks"})
"""Folders that hold annotation where a folder `images` lies beside them."""
NO_BIOIO = "file that only bioio reads, which is not installed"
"""Why formats of single microscopes are passed over."""


class Finder:
    """What a search has come upon."""

    def __init__(self, axes: str | None = None) -> None:
        """Axes are those of zarr arrays that do not say them."""
        self._axes = axes
        self.entries: list[FileEntry] = []
        self.failures: list[Failure] = []
        self.skipped: Counter[str] = Counter()
        self.metadata: dict[str, dict[str, Any]] = {}

    def add_store(self, root: str, group: str) -> None:
        """Takes the images of the store at a path below the root; raises ImageError for one that cannot be read."""
        content = read_store(root, group, axes=self._axes)
        self.entries.extend(content.entries)
        self.failures.extend(content.failures)
        self.skipped.update(content.skipped)
        self.metadata |= content.metadata

    def try_store(self, root: str, group: str) -> None:
        """As `add_store`, but a store that cannot be read becomes a failure."""
        try:
            self.add_store(root, group)
        except ImageError as error:
            self.failures.append(Failure(group, "plan", type(error.__cause__ or error).__name__, str(error)))


def listed(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:
        return []


def walk(top: str, root: str, found: Finder) -> None:
    """Takes all images at and below a folder."""
    waiting = [top]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as listing:
                items = list(listing)
        except OSError as error:
            found.skipped[f"folder that cannot be read ({error.strerror})"] += 1
            continue
        folders: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        for item in items:
            (folders if item.is_dir(follow_symlinks=False) else files).append(item)
        names = {item.name for item in folders}
        for folder in folders:
            if folder.name.startswith("."):
                found.skipped["hidden folder"] += 1
            elif "images" in names and folder.name in ANNOTATION_FOLDERS:
                found.skipped["folder of annotation beside images/"] += 1
            elif is_store(folder.path):
                found.try_store(root, os.path.relpath(folder.path, root))
            else:
                waiting.append(folder.path)
        _take(files, place, root, found)


def take_files(folder: str, names: list[str], root: str, found: Finder) -> None:
    """Takes files of one folder by name, by the rules of a walk."""
    wanted = set(names)
    _take([item for item in listed(folder) if item.name in wanted], folder, root, found)


def _take(items: list[os.DirEntry[str]], folder: str, root: str, found: Finder) -> None:
    """Takes those of a folder's files that are images; the others are counted."""
    names = {item.name for item in items}
    images = {name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}
    foreign = {name for name in names if os.path.splitext(name)[1].lower() in BIOIO_SUFFIXES}
    if foreign and importlib.util.find_spec("bioio"):
        images |= foreign
    annotation = label_images(images)
    below = "" if os.path.samefile(folder, root) else os.path.relpath(folder, root) + "/"
    for item in items:
        if item.name.startswith("."):
            found.skipped["hidden file"] += 1
        elif item.is_symlink() and os.path.isdir(item.path):
            found.skipped["link to a folder"] += 1
        elif item.name not in images:
            found.skipped[NO_BIOIO if item.name in foreign else "file that is no image"] += 1
        elif item.name in annotation:
            found.skipped["annotation beside its image"] += 1
        elif reason := byproduct(item.name, names):
            found.skipped[reason] += 1
        else:
            entry = _regular(item, below + item.name, root)
            if isinstance(entry, FileEntry):
                found.entries.append(entry)
            else:
                found.skipped[entry] += 1


def _regular(item: os.DirEntry[str], key: str, root: str) -> FileEntry | str:
    """A file that a walk came upon, or why it is passed over."""
    try:
        status = item.stat()
    except OSError:
        return "link that leads nowhere" if item.is_symlink() else "file that vanished"
    if not stat.S_ISREG(status.st_mode):
        return "device, pipe or socket"
    if item.is_symlink() and Path(root).resolve() not in Path(item.path).resolve().parents:
        return "link out of the folder"
    return FileEntry(key, status.st_size, status.st_mtime_ns)
