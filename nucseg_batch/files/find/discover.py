"""Finds the images that IN means: a folder, one file, a list, a glob, a zarr store, or a URL of one.

What is found has a key, the image's name everywhere: its path below a root, with `/` and suffix. A folder is its own
root, and a store too; that of a file is the folder it lies in, that of a list the deepest folder that all its lines
share, and that of a glob the part of it before the first wildcard, which does not depend on what matches.

Folders are walked by the rules of walk.py. What the user names himself, as one file or as a line of a list, is taken
whatever it is called; but a device or a pipe is never opened.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.files.find.entries import Discovery, FileEntry
from nucseg_batch.files.find.leftovers import (
    OUTPUT_FOLDERS,
    SYSTEM,
    SYSTEM_FOLDERS,
    guessed,
    is_output_folder,
    stem_of,
)
from nucseg_batch.files.find.skipped import OURS, SkipCounter
from nucseg_batch.files.find.walk import (
    ANNOTATION_FOLDERS,
    BESIDE_IMAGES,
    NO_METADATA,
    Finder,
    is_image_name,
    listed,
    take_files,
    walk,
)
from nucseg_batch.files.names import name_beside
from nucseg_batch.files.zarr.folders import is_store
from nucseg_batch.files.zarr.store import is_url
from nucseg_batch.files.zarr.zipped import is_archive
from nucseg_batch.plan import Assumption, Failure

WILDCARDS = frozenset("*?[")
UNMATCHED = "image that does not match --pattern"
"""Why images are passed over that `pattern` leaves out."""
FLAT_FIELD = "file of --flatfield"
"""Reason given for skipping the flat field."""
NAME_THEM = "give them as IN: a file, a quoted glob of these files only, or @list.txt"
"""How files that a search skips are segmented all the same."""
LEAVE_OUT = "move them away, or choose the others with --pattern"
"""How files that a search takes are left out."""
LIST_MARK = "@"
"""First character of IN where it names a list."""
MAX_LIST_BYTES = 2**30
"""Longer lists are refused."""


def discover(
    place: str, *, pattern: str | None = None, axes: str | None = None, flat_field: Path | None = None
) -> Discovery:
    """Lists the images that `place` means.

    pattern: of these, only files whose name, or whose key where the pattern has a `/`, matches it as a shell's would
    (case counts, `*` matches `/` too). The others are in `Discovery.unmatched`. axes: those of zarr arrays that do not
    say them. flat_field: a file that is no image even if it lies there. Raises InputMissingError where there is no such
    place and NothingToDoError where it holds no image that matches.
    """
    found = Finder(axes)
    root = _find(place.removeprefix("file://"), found)
    unique = {entry.key: entry for entry in found.entries}  # a glob may match a folder and what is in it
    for key in _keys(flat_field, root) & unique.keys():
        del unique[key]
        found.passed.add(FLAT_FIELD, key)
    entries = [unique[key] for key in sorted(unique)]
    matching = [entry for entry in entries if pattern is None or _matches(entry, pattern)]
    if not matching and not found.failures:
        raise NothingToDoError(f"{place}: {_nothing(place, len(entries), found.passed, pattern)}")
    kept = {entry.key for entry in matching}
    unmatched = tuple(entry for entry in entries if entry.key not in kept)
    for entry in unmatched:
        found.passed.add(UNMATCHED, entry.key)
    failures = tuple(sorted(found.failures, key=lambda failure: failure.image))
    skipped = {reason: count for reason, count in sorted(found.passed.counts.items()) if count}
    notes = []
    if found.unused_axes:
        images = f"{found.unused_axes} image{'s' * (found.unused_axes > 1)}"
        notes.append(f"--axes {axes} is not used for {images}, whose axes are known, and others")
    return Discovery(
        root,
        tuple(matching),
        skipped,
        failures,
        unmatched,
        notes=tuple(notes),
        passed=found.passed.by_reason(),
        metadata=found.metadata,
        assumptions=_assumptions(found),
    )


def _keys(path: Path | None, root: str) -> set[str]:
    """The keys that a file has below a root, with links followed or not."""
    if path is None or is_url(root):
        return set()
    return {os.path.relpath(path, os.path.abspath(root)), os.path.relpath(path.resolve(), os.path.realpath(root))}


def _assumptions(found: Finder) -> tuple[Assumption, ...]:
    """What was assumed of files that other programs may have left."""
    skipped = [
        Assumption("skipped", f"skipped {count} x {reason}", rule.evidence, NAME_THEM, rule.doubtful, count)
        for reason, count, rule in guessed(found.passed.counts)
    ]
    first = {reason: told.names[0] for reason, told in found.doubted.by_reason().items()}
    taken = [
        Assumption("skipped", f"segmented, {reason}", rule.evidence, LEAVE_OUT, rule.doubtful, count, first[reason])
        for reason, count, rule in guessed(found.doubted.counts)
    ]
    return (*skipped, *taken)


def _find(place: str, found: Finder) -> str:
    """Searches a place; its root."""
    if is_url(place) or is_archive(place, named=True) or (os.path.isdir(place) and is_store(place)):
        _find_store(place, found)
        return place
    if place.startswith(LIST_MARK):
        return _find_list(Path(place[len(LIST_MARK) :]), found)
    if os.path.isdir(place):
        walk(place, place, found)
        if place.rstrip("/").lower().endswith(".zarr") and not found.entries and not found.failures:
            raise NothingToDoError(f"{place}: {NO_METADATA}")
        return place
    if os.path.lexists(place):
        return _find_file(place, found)
    if WILDCARDS & set(place):
        return _find_glob(place, found)
    raise InputMissingError(f"{place}: there is no such file or folder{name_beside(place) or '; check the path.'}")


def _find_store(place: str, found: Finder) -> None:
    try:
        found.add_store(place, "")
    except ImageError as error:
        raise NothingToDoError(f"{place}: {error}") from error
    if found.passed.counts[OURS] and not found.entries:
        raise NothingToDoError(f"{place}: this is an {OURS}; give the images that it was made from.")


def _find_file(place: str, found: Finder) -> str:
    entry = _named(place, os.path.basename(place))
    if isinstance(entry, str):
        raise InputMissingError(f"{place}: {entry}")
    found.entries.append(entry)
    return os.path.dirname(place) or "."


def _find_list(path: Path, found: Finder) -> str:
    """Takes the lines of a list; what is not there becomes a failure of stage `plan`."""
    places = dict.fromkeys(os.path.normpath(os.path.join(path.parent, line)) for line in _lines(path, found.passed))
    if not places:
        raise NothingToDoError(f"@{path}: the list names no file.")
    root = os.path.commonpath([os.path.dirname(os.path.abspath(place)) for place in places])
    for place in places:
        key = os.path.relpath(os.path.abspath(place), root)
        if is_archive(place) or (os.path.isdir(place) and is_store(place)):
            found.try_store(root, key)
            continue
        entry = _named(place, key)
        if isinstance(entry, str):
            found.failures.append(Failure(key, "plan", "FileNotFoundError", f"listed in {path.name}, but {entry}"))
        else:
            found.entries.append(entry)
    return root


def _lines(path: Path, passed: SkipCounter) -> Iterator[str]:
    """The paths of a list, in any encoding that file names have; each once."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise InputMissingError(f"@{path}: this is too long for a list of files.")
        content = path.read_bytes()
    except OSError as error:
        raise InputMissingError(f"@{path}: the list cannot be read ({error.strerror}).") from error
    seen: set[str] = set()
    for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        name = os.fsdecode(line.rstrip(b"\r"))
        if not name.strip() or name.lstrip().startswith("#"):
            continue
        if "\0" in name:
            raise InputMissingError(f"@{path}: this is no list of files, one path a line.")
        if not os.path.lexists(os.path.join(path.parent, name)):
            name = name.strip()
        place = os.path.normpath(os.path.join(path.parent, name))
        if place in seen:
            passed.add("path that is listed twice", name)
            continue
        seen.add(place)
        yield name


def _named(place: str, key: str) -> FileEntry | str:
    """A file that the user named, or why it cannot be used."""
    try:
        status = os.stat(place)
    except OSError as error:
        return f"it is not there ({error.strerror})."
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder that is no zarr store."
    if not stat.S_ISREG(status.st_mode):
        return "it is a device, pipe or socket, not a file."
    return FileEntry(key, status.st_size, status.st_mtime_ns)


def _find_glob(place: str, found: Finder) -> str:
    parts = place.split("/")
    first = next(i for i, part in enumerate(parts) if WILDCARDS & set(part))
    root = "/".join(parts[:first]) or ("/" if place.startswith("/") else ".")
    if not os.path.isdir(root):
        raise InputMissingError(f"{place}: there is no folder {root}.")
    files: dict[str, list[str]] = defaultdict(list)
    folders: list[str] = []
    system: dict[str, None] = {}
    for path in dict.fromkeys(_expanded(root, tuple(part for part in parts[first:] if part), system)):
        if os.path.isdir(path):
            folders.append(path)
        else:
            files[os.path.dirname(path)].append(os.path.basename(path))
    for path in system:
        found.passed.add(SYSTEM, os.path.relpath(path, root))
    stems = {folder: {stem_of(name) for name in names if is_image_name(name)} for folder, names in files.items()}
    if any(OUTPUT_FOLDERS.fullmatch(os.path.basename(path)) for path in folders):
        stems |= {path: _image_stems(path) for path in folders if path not in stems}
    skipped = {path: None for path in dict.fromkeys([*folders, *files]) if _outputs(path, stems, found, root)}
    for path in folders:
        if path not in skipped and not found.add_whole(path, root):
            walk(path, root, found)
    for folder, names in files.items():
        if folder not in skipped:
            take_files(folder, names, root, found)
    return root


def _outputs(folder: str, stems: Mapping[str, set[str]], found: Finder, root: str) -> bool:
    """Whether a folder holds outputs of the images that a glob matches, by their stems; it is then passed over."""
    above, name = os.path.split(folder)
    if not OUTPUT_FOLDERS.fullmatch(name):
        return False
    beside = set().union(*(own for other, own in stems.items() if _is_beside(other, above)))
    reason = is_output_folder(name, [item.name for item in listed(folder) if is_image_name(item.name)], beside)
    if name.lower() in ANNOTATION_FOLDERS and any(other.lower() == f"{above}/images".lower() for other in stems):
        reason = BESIDE_IMAGES
    if reason:
        found.passed.add(reason, os.path.relpath(folder, root))
    return reason is not None


def _image_stems(folder: str) -> set[str]:
    return {stem_of(item.name) for item in listed(folder) if is_image_name(item.name)}


def _is_beside(folder: str, above: str) -> bool:
    """Whether a folder is one itself, or lies in it and is not of outputs."""
    parent, name = os.path.split(folder)
    return folder == above or (parent == above and not OUTPUT_FOLDERS.fullmatch(name))


def _expanded(folder: str, parts: tuple[str, ...], system: dict[str, None]) -> Iterator[str]:
    """Paths below a folder that match the parts of a glob; wildcards match no hidden name and no link to a folder.

    They match no folder of the file system either; `system` takes those that they would.
    """
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if not WILDCARDS & set(first):
        place = os.path.join(folder, first)
        if os.path.lexists(place):
            yield from _expanded(place, rest, system)
        return
    if first == "**":
        yield from _expanded(folder, rest, system)
        if not rest:
            return
    for item in listed(folder):
        hidden, deeper = item.name.startswith("."), item.is_dir(follow_symlinks=False)
        if hidden and not first.startswith("."):
            continue
        if deeper and SYSTEM_FOLDERS.fullmatch(item.name):
            system[item.path] = None
        elif first == "**":
            if deeper and not is_store(item.path):
                yield from _expanded(item.path, parts, system)
        elif fnmatchcase(item.name, first) and (not rest or deeper):
            yield from _expanded(item.path, rest, system)


def _fits(key: str, pattern: str | None) -> bool:
    return pattern is not None and fnmatchcase(key if "/" in pattern else key.rpartition("/")[2], pattern)


def _matches(entry: FileEntry, pattern: str) -> bool:
    name = entry.key if "/" in pattern else entry.name
    return fnmatchcase(name, pattern)


def _nothing(place: str, images: int, passed: SkipCounter, pattern: str | None) -> str:
    """Why nothing is left to do."""
    if images:
        which = "its only image does not match" if images == 1 else f"none of its {images} images matches"
        skipped = {reason: told.names for reason, told in passed.by_reason().items() if guessed({reason: 1})}
        matching = {reason: sum(_fits(key, pattern) for key in keys) for reason, keys in skipped.items()}
        what = ", ".join(f"{count} x {reason}" for reason, count in matching.items() if count)
        told = f"; skipped: {what}; to segment these, {NAME_THEM}" if what else ""
        return f"{which} --pattern {pattern!r}{told}."
    what = ", ".join(f"{count} x {reason}" for reason, count in sorted(passed.counts.items()))
    else_said = (
        f"skipped: {what}" if what else "** in the pattern also matches folders" if "*" in place else "check the path"
    )
    return f"no image was found; {else_said}."
