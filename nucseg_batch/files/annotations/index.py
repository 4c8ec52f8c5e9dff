"""What an `index.csv` says of annotated images: columns `id`, and where there are `split`, `modality` and groups.

`id` is the name of an image or of its label image, with or without folders and suffix. The index of a folder is the
nearest one in it or up to LEVELS folders above.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.annotations.names import is_image_name, read_name, stem
from nucseg_batch.files.annotations.pairs import DataSet, Pair

USED_SPLITS = ("train", "val")
"""Images of any other split are never trained on."""
LEVELS = 2
"""Folders above the one given in which an index is looked for."""
NAME = "index.csv"

Row = dict[str, str | None]
"""Values by column; None where a row is too short."""


@dataclass(frozen=True)
class AnnotationIndex:
    """The rows of one index."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, Row]
    """Rows by `id`, as it stands there and without the suffix of an image; empty where there is no column `id`."""

    def row(self, key: str) -> Row:
        """The row of an image by its path, with or without suffix; empty where there is none.

        The whole path goes before the last part of it, and the name as it is before the name of the image of a label
        image.
        """
        return next((self.rows[name] for name in _candidates(key) if name in self.rows), {})


def find_index(place: Path, above: Path | None = None) -> Path | None:
    """The nearest index in a folder or those above it, up to LEVELS folders above `above`, which is `place` if None."""
    place = place.resolve()
    top = place if above is None else above.resolve()
    last = [top, *top.parents][: LEVELS + 1][-1]
    for folder in (place, *place.parents):
        if (folder / NAME).is_file():
            return folder / NAME
        if folder == last:
            break
    return None


def read_index(path: Path) -> AnnotationIndex:
    """Reads an index; raises InputMissingError where there is no such file."""
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise InputMissingError(f"{path}: this index cannot be read ({error.strerror}).") from error
    with io.StringIO(text, newline="") as lines:
        reader = csv.DictReader(lines)
        columns = tuple(reader.fieldnames or ())
        rows: dict[str, Row] = {}
        for row in reader if "id" in columns else ():
            rows[(row["id"] or "").replace("\\", "/")] = row
    for name in list(rows):
        if is_image_name(name):
            rows.setdefault(stem(name), rows[name])
    return AnnotationIndex(path, columns, rows)


def _candidates(key: str) -> Iterator[str]:
    path = PurePosixPath(key)
    yield from (key, stem(key), path.name, path.stem)
    for name in (stem(key), path.stem, key, path.name):
        yield from (read_name(name).stem, read_name(name).core)


class AnnotationIndexes:
    """The index files of one data set, each read once."""

    def __init__(self, top: Path, group: str | None) -> None:
        self._top = top
        self._group = group
        self._read: dict[Path, AnnotationIndex] = {}

    def apply(self, place: Path, found: DataSet) -> DataSet:
        """Pairs found at a place with what the index says of them, without those it leaves out.

        Pairs of a split that is neither `train` nor `val` are dropped without a message; pairs without a row are
        reported. An index that names none of the pairs is another data set's.
        """
        path = find_index(place, self._top) if found.pairs else None
        if path is None:
            return _collected(found, self._top.resolve().name)
        if path not in self._read:
            self._read[path] = read_index(path)
        index = self._read[path]
        top = self._top.resolve()
        name = path.relative_to(top).as_posix() if path.is_relative_to(top) else path.name
        inside = path.parent.is_relative_to(top) and path.parent != top
        collection = path.parent.relative_to(top).as_posix() if inside else path.parent.name
        if "id" not in index.columns:
            return _collected(_noted(found, f"{name}: it has no column id and is not used"), top.name)
        known = {pair.key: index.row(pair.key) for pair in found.pairs}
        if not any(known.values()):
            unnamed = f"{name}: it names none of the images of {_shown(place, self._top)} and is not used for them"
            return _collected(_noted(found, unnamed), top.name)
        pairs = [self._with_row(pair, known[pair.key]) for pair in found.pairs if known[pair.key]]
        unknown = [f"{key}: {name} has no row for it" for key, row in known.items() if not row]
        used = tuple(pair for pair in pairs if pair.split is None or pair.split in USED_SPLITS)
        kept = dataclasses.replace(found, pairs=used, problems=(*found.problems, *unknown))
        return _collected(kept, collection)

    def _with_row(self, pair: Pair, row: Row) -> Pair:
        group = row.get(self._group) or None if self._group else None
        return dataclasses.replace(
            pair, split=row.get("split"), modality=row.get("modality") or pair.modality, group=group
        )


def _collected(found: DataSet, collection: str) -> DataSet:
    pairs = tuple(dataclasses.replace(pair, collection=collection) for pair in found.pairs)
    return dataclasses.replace(found, pairs=pairs)


def _noted(found: DataSet, problem: str) -> DataSet:
    return dataclasses.replace(found, problems=(*found.problems, problem))


def _shown(place: Path, top: Path) -> str:
    return top.name if place == top or not place.is_relative_to(top) else place.relative_to(top).as_posix()
