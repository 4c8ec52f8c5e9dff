"""Walks folders: which of their files are images to segment, and what is passed over and told.

A walk follows no link to a folder and no link out of the root, opens nothing that is not a regular file, and passes
over annotation that lies beside its images and what microscopes write beside theirs.
"""

from __future__ import annotations

import importlib.util
import os
import stat
from pathlib import Path
from typing import Any

from nucseg_batch.errors import ImageError
from nucseg_batch.files.bioio_source import BIOIO_SUFFIXES
from nucseg_batch.files.find.entries import FileEntry
from nucseg_batch.files.find.leftovers import (
    ANNOTATION,
    OUTPUT_FOLDERS,
    SYSTEM,
    SYSTEM_FOLDERS,
    TAKEN,
    is_output_folder,
    leftovers,
    stem_of,
)
from nucseg_batch.files.find.name_rules import byproduct, label_images
from nucseg_batch.files.find.skipped import OURS, SkipCounter, unread
from nucseg_batch.files.find.stores import read_store
from nucseg_batch.files.kinds import IMAGE_SUFFIXES
from nucseg_batch.files.run_layout import FOLDER_ENDING, OUTPUT_NAME, PLAN
from nucseg_batch.files.zarr.folders import is_store
from nucseg_batch.files.zarr.zipped import SUFFIXES
from nucseg_batch.plan import Failure

ANNOTATION_FOLDERS = frozenset({"labels", "masks"})
"""Folders that hold annotation where a folder `images` lies beside them."""
BESIDE_IMAGES = "folder of annotation beside images/"
"""Why these are passed over."""
SIBLINGS = 100
"""Folders beside one of outputs in which images of its files' names are looked for."""
NO_BIOIO = "file that only bioio reads, which is not installed"
"""Why formats of single microscopes are passed over."""
NO_METADATA = (
    "it is called a zarr store, but has no metadata (zarr.json, .zgroup or .zarray), and there is no image in it: the "
    "copy is incomplete."
)
"""What is wrong with a folder `*.zarr` that is neither a store nor holds images."""
EXPORTED = "nucseg-export.json"
"""The file by which a folder of exports or overlays is known, wherever it lies."""


class Finder:
    """What a search has come upon."""

    def __init__(self, axes: str | None = None, *, nested: bool = False) -> None:
        """Axes are those of zarr arrays that do not say them; nested: within a folder that is called a store."""
        self._axes = axes
        self._nested = nested
        self.entries: list[FileEntry] = []
        self.failures: list[Failure] = []
        self.passed = SkipCounter()
        self.doubted = SkipCounter()
        """Entries that may be no images to segment, by the reason."""
        self.unused_axes = 0
        """Images in stores of which other axes are known than were given, which therefore are not used."""
        self.metadata: dict[str, dict[str, Any]] = {}

    def add_store(self, root: str, group: str) -> None:
        """Takes the images of the store at a path below the root; raises ImageError for one that cannot be read."""
        content = read_store(root, group, axes=self._axes)
        self.entries.extend(content.entries)
        self.failures.extend(content.failures)
        self.passed.counts.update(content.skipped)
        self.unused_axes += content.unused_axes
        self.metadata |= content.metadata

    def try_store(self, root: str, group: str) -> None:
        """As `add_store`, but a store that cannot be read becomes a failure."""
        try:
            self.add_store(root, group)
        except ImageError as error:
            self.failures.append(Failure(group, "plan", type(error.__cause__ or error).__name__, str(error)))

    def add_whole(self, place: str, root: str) -> bool:
        """Takes a folder that is no mere folder: a store, what should be one, or what a run left; False for others."""
        key = os.path.relpath(place, root)
        if is_store(place):
            self.try_store(root, key)
        elif is_left_by_run(place) or os.path.isfile(os.path.join(place, EXPORTED)):
            self.passed.add(OURS, key)
        elif place.lower().endswith(".zarr") and not self._nested:
            self._add_nameless(place, root)
        else:
            return False
        return True

    def _add_nameless(self, place: str, root: str) -> None:
        """Takes the images in a folder that is called a store and is none; where there are none it is a failure."""
        inner = Finder(self._axes, nested=True)
        walk(place, root, inner)
        if not inner.entries and not inner.failures:
            self.failures.append(Failure(os.path.relpath(place, root), "plan", "ImageError", NO_METADATA))
            return
        self.entries += inner.entries
        self.failures += inner.failures
        self.passed.take(inner.passed)
        self.doubted.take(inner.doubted)
        self.unused_axes += inner.unused_axes
        self.metadata |= inner.metadata


def listed(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as items:
            return sorted(items, key=lambda item: item.name)
    except OSError:
        return []


def walk(top: str, root: str, found: Finder) -> None:
    """Takes all images at and below a folder that is no store."""
    waiting = [top]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as listing:
                items = list(listing)
        except OSError as error:
            found.passed.add(f"folder that cannot be read ({error.strerror})", os.path.relpath(place, root))
            continue
        folders: list[os.DirEntry[str]] = []
        files: list[os.DirEntry[str]] = []
        for item in items:
            (folders if item.is_dir(follow_symlinks=False) else files).append(item)
        around = _FolderContext(folders, [item.name for item in files])
        for folder in folders:
            if folder.name.startswith("."):
                found.passed.add("hidden folder", os.path.relpath(folder.path, root))
            elif SYSTEM_FOLDERS.fullmatch(folder.name):
                found.passed.add(SYSTEM, os.path.relpath(folder.path, root))
            elif around.images and folder.name.lower() in ANNOTATION_FOLDERS:
                found.passed.add(BESIDE_IMAGES, os.path.relpath(folder.path, root))
            elif reason := around.reason(folder):
                found.passed.add(reason, os.path.relpath(folder.path, root))
            elif not found.add_whole(folder.path, root):
                waiting.append(folder.path)
        _take(files, place, root, found, {item.name for item in items})


class _FolderContext:
    """What lies in one folder, to tell which of the folders in it hold images and which outputs."""

    def __init__(self, folders: list[os.DirEntry[str]], files: list[str]) -> None:
        self._folders, self._files = folders, files
        self.images = any(folder.name.lower() == "images" for folder in folders)
        """Whether one of the folders is called `images`."""
        self._stems: set[str] | None = None

    def reason(self, folder: os.DirEntry[str]) -> str | None:
        """Why a folder is skipped as one of outputs; None for all others, which are not looked into."""
        if not OUTPUT_FOLDERS.fullmatch(folder.name):
            return None
        if self._stems is None:
            others = [one for one in self._folders if not OUTPUT_FOLDERS.fullmatch(one.name)][:SIBLINGS]
            names = [*self._files, *(item.name for one in others for item in listed(one.path))]
            self._stems = {stem_of(name) for name in names if is_image_name(name)}
        files = [item.name for item in listed(folder.path) if is_image_name(item.name)]
        return is_output_folder(folder.name, files, self._stems)


def is_image_name(name: str) -> bool:
    """Whether a walk takes a file of this name for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def take_files(folder: str, names: list[str], root: str, found: Finder) -> None:
    """Takes files of one folder by name, by the rules of a walk."""
    wanted, there = set(names), listed(folder)
    _take([item for item in there if item.name in wanted], folder, root, found, {item.name for item in there})


def _take(items: list[os.DirEntry[str]], folder: str, root: str, found: Finder, around: set[str]) -> None:
    """Takes those of a folder's files that are images; the others are passed over. around: all names in the folder."""
    names = {item.name for item in items}
    images = {name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES}
    foreign = {name for name in names if os.path.splitext(name)[1].lower() in BIOIO_SUFFIXES}
    if foreign and importlib.util.find_spec("bioio"):
        images |= foreign
    annotation = label_images(images)
    byproducts = {name: why for name in images - annotation if (why := byproduct(name, names))}
    left = byproducts | leftovers(images - annotation - byproducts.keys())
    below = "" if os.path.samefile(folder, root) else os.path.relpath(folder, root) + "/"
    for item in items:
        entry: FileEntry | str
        if item.name.startswith("."):
            entry = "hidden file"
        elif item.is_symlink() and os.path.isdir(item.path):
            entry = "link to a folder"
        elif item.name.lower().endswith(SUFFIXES):
            entry = _regular(item, below + item.name, root)
            if isinstance(entry, FileEntry):
                found.try_store(root, entry.key)
                continue
        elif item.name not in images:
            entry = NO_BIOIO if item.name in foreign else OURS if _is_table(item.name, around) else unread(item.name)
        elif item.name in annotation:
            entry = ANNOTATION
        elif item.name in left and left[item.name] not in TAKEN:
            entry = left[item.name]
        else:
            entry = _regular(item, below + item.name, root)
        if isinstance(entry, FileEntry):
            found.entries.append(entry)
            if item.name in left:
                found.doubted.add(left[item.name], entry.key)
        else:
            found.passed.add(entry, below + item.name)


def is_left_by_run(folder: str) -> bool:
    """Whether a folder is the run folder of a run of this program."""
    return folder.endswith(FOLDER_ENDING) and os.path.isfile(os.path.join(folder, PLAN))


def _is_table(name: str, around: set[str]) -> bool:
    """Whether a file is a table that a run of this program wrote."""
    table = OUTPUT_NAME.fullmatch(name)
    return table is not None and not around.isdisjoint({table[1] + FOLDER_ENDING, table[1] + ".zarr"})


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
