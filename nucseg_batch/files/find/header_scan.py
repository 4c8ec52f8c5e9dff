"""Reads the headers of all images that were found, and says of each what is planned, or why it is refused.

An OME-TIFF of several files is one image: the first of its files stands for all, and the others are passed over.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from nucseg_batch.errors import ImageError, NothingToDoError, UsageError
from nucseg_batch.files.find.entries import Discovery, FileEntry
from nucseg_batch.files.find.select import image_info
from nucseg_batch.files.find.skipped import first_names
from nucseg_batch.files.masks.pixels import storable
from nucseg_batch.files.opened import open_source
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.source import Header, Source
from nucseg_batch.plan import Assumption, Failure, ImageInfo, merged
from nucseg_batch.settings import SegmentSettings

HEADER_THREADS = 8
"""Headers read at once where that means to wait for the disk more than to compute."""
ROUND = 2048
"""Headers for which this is found out anew; a disk may be slower in one folder than in another."""
TRIED = 32
"""The first of them, read one after the other to find it out."""
WAITS = 0.5
"""How often this process must wait for each of these, for several threads to be quicker. Waits are counted and not
timed, so that a busy machine is not taken for a slow disk: there, threads take three times as long."""
BATCH = 16
"""Headers that a thread reads before it looks for more: handing over each would cost more than reading it."""
PART = "further file of an OME-TIFF of several files"
"""Why a file of a set is passed over."""


@dataclass(frozen=True, slots=True)
class ScannedImage:
    """One image that was found, with what is known of it."""

    entry: FileEntry
    """Where it is."""
    header: Header | None
    """What it says of itself; None where that cannot be read, or was not to be kept."""
    outcome: ImageInfo | Failure
    """What is planned, or why it cannot be used."""


@dataclass(frozen=True)
class HeaderScan:
    """All images of a place, before any pixel is read."""

    found: Discovery
    """What was found; files that are parts of others' images are counted as passed over."""
    scanned: tuple[ScannedImage, ...]
    """Each image, sorted by key."""

    @property
    def images(self) -> list[ImageInfo]:
        """Images that can be segmented."""
        return [one.outcome for one in self.scanned if isinstance(one.outcome, ImageInfo)]

    @property
    def failures(self) -> list[Failure]:
        """Images that cannot, and what was asked for by name and is not there."""
        return [*self.found.failures, *(one.outcome for one in self.scanned if isinstance(one.outcome, Failure))]


def scan_headers(
    found: Discovery,
    settings: SegmentSettings,
    progress: Callable[[int], None],
    *,
    headers: bool = True,
    only: Collection[str] | None = None,
) -> HeaderScan:
    """Reads every header; images that cannot be used become failures of stage `plan`.

    found: a discovery whose channels were put together. `progress` is called with the number of headers read so far.
    headers: whether these are kept, which for millions of images takes memory, or only what is planned. only: keys of
    the images that are read, None for all; a file of a set is skipped unless all files of the set are among them.
    Raises UsageError for settings that are no selection, and where the pixels of no image can be stored with its masks.
    """
    reader = _Reader(found, settings)
    scanned: list[ScannedImage] = []
    entries = found.entries if only is None else [entry for entry in found.entries if entry.key in only]
    for done, one in enumerate(_each(reader.read, entries), start=1):
        if one is not None:
            scanned.append(one if headers else ScannedImage(one.entry, None, one.outcome))
        progress(done)
    known = {first for key, first in reader.first_of.items() if only is not None and key not in only}
    whole = [
        one
        for one in scanned
        if reader.first_of.get(one.entry.key, one.entry.key) == one.entry.key and one.entry.key not in known
    ]
    kept = {one.entry.key for one in whole}
    parts = [entry.key for entry in entries if entry.key not in kept]
    if settings.with_images:
        whole = _with_pixels(whole)
    if parts:
        skipped, passed = found.skipped | {PART: len(parts)}, found.passed | {PART: first_names(parts)}
        found = replace(found, skipped=skipped, passed=passed)
    if reader.assumptions:
        of_images = [one for key, own in sorted(reader.assumptions.items()) if key in kept for one in own]
        found = replace(found, assumptions=merged([*found.assumptions, *of_images]))
    unused = len(reader.unused_axes & kept)
    if unused:
        images = f"{unused} image{'s' * (unused > 1)}"
        note = f"--axes {settings.axes} is not used for {images} in files, whose axes are known, and others"
        found = replace(found, notes=(*found.notes, note))
    return HeaderScan(found, tuple(whole))


def _each(
    read: Callable[[FileEntry], ScannedImage | None], entries: Sequence[FileEntry]
) -> Iterator[ScannedImage | None]:
    """What `read` makes of each entry, in order; in several threads where reading is waiting for the disk."""
    with ThreadPoolExecutor(HEADER_THREADS) as pool:
        for first in range(0, len(entries), ROUND):
            last = min(first + ROUND, len(entries))
            before = _waits()
            tried = [read(entry) for entry in entries[first : min(first + TRIED, last)]]
            waited = _waits() - before
            yield from tried
            if waited < WAITS * len(tried):
                yield from map(read, entries[first + TRIED : last])
                continue
            batches = [entries[i : min(i + BATCH, last)] for i in range(first + TRIED, last, BATCH)]
            for made in pool.map(lambda batch: [read(entry) for entry in batch], batches):
                yield from made


def _waits() -> int:
    """How often this process has waited for something, such as a disk, until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _with_pixels(scanned: list[ScannedImage]) -> list[ScannedImage]:
    """The same, where images whose pixels cannot be stored with their masks are failures."""
    kept, refused = storable([one.outcome for one in scanned if isinstance(one.outcome, ImageInfo)])
    if refused and not kept:
        raise UsageError(f"{refused[0].image}: {refused[0].message}")
    failures = {failure.image: failure for failure in refused}
    return [replace(one, outcome=failures.get(one.entry.key, one.outcome)) for one in scanned]


def none_usable(place: str, failures: Sequence[Failure]) -> NothingToDoError:
    """What a run ends with of whose images none can be used."""
    first = failures[0]
    if len(failures) == 1:
        return NothingToDoError(f"{place}: its only image, {first.image}, cannot be used: {first.message}")
    return NothingToDoError(
        f"{place}: none of its {len(failures)} images can be used; the first, {first.image}: {first.message}"
    )


class _Reader:
    """Reads headers in many threads, and keeps which files belong to one image."""

    def __init__(self, found: Discovery, settings: SegmentSettings) -> None:
        self._found = found
        self._settings = settings
        self._keys = {os.path.normpath(os.path.join(found.root, entry.key)): entry.key for entry in found.entries}
        self.first_of: dict[str, str] = {}
        """Key of the first file of a set, by that of each of its files."""
        self.assumptions: dict[str, list[Assumption]] = {}
        """What was assumed of images, by their keys; only of those of which anything was."""
        self.unused_axes: set[str] = set()
        """Keys of files of which other axes are known than were given."""

    def read(self, entry: FileEntry) -> ScannedImage | None:
        """What is known of one image; None for a file of a set whose first file was read."""
        if self.first_of.get(entry.key, entry.key) != entry.key:
            return None
        header = entry.header
        try:
            matched = None
            if header is None:
                header, matched = STORAGE_RETRY.run(lambda: self._header(entry))
            named = entry.chosen and header.length("C") == 1 and "S" not in header.axes
            nuclei = entry.nuclei if entry.files or named else matched
            info = image_info(entry.key, header, self._settings, files=entry.files, nuclei=nuclei, group=entry.group)
        except ImageError as error:
            cause = type(error.__cause__ or error).__name__
            return ScannedImage(entry, header, Failure(entry.key, "plan", cause, str(error)))
        if header.unused_axes:
            self.unused_axes.add(entry.key)
        if header.assumptions:
            self.assumptions[entry.key] = [replace(one, example=entry.key) for one in header.assumptions]
        return ScannedImage(entry, header, info)

    def _header(self, entry: FileEntry) -> tuple[Header, int | None]:
        """The header, and the channel of an OME-TIFF set that names of its files choose; None where none do."""
        root = self._found.root
        with closing(open_source(root, entry.key, self._settings, entry.files, entry.group, entry.channels)) as source:
            parts = [self._keys.get(os.path.normpath(part)) for part in getattr(source, "parts", ())]
            keys = [key for key in parts if key is not None]
            self.first_of.update(dict.fromkeys(keys, min(keys, default="")))
            return source.header, self._matched_channel(source) if keys else None

    def _matched_channel(self, source: Source) -> int | None:
        """The only channel in the files of a set that match the pattern, or whose names have the token asked for."""
        wanted = self._settings.channel.lower()
        held: Mapping[Path, frozenset[int]] = getattr(source, "part_channels", {})
        if wanted == "auto":
            files = [path for path in held if os.path.normpath(path) in self._keys] if self._found.unmatched else []
        elif wanted.isdecimal() or wanted in {channel.name.lower() for channel in source.header.channels}:
            return None
        else:
            token = re.compile(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])")
            files = [path for path in held if token.search(path.name.lower())]
        chosen = frozenset[int]().union(*(held[path] for path in files))
        return next(iter(chosen)) if len(chosen) == 1 else None
