"""What an `index.csv` says of the images of a data set: columns `id`, and if there `split`, `modality` and groups."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path, PurePosixPath

from nucseg_batch.training.pairs import DataSet, Pair

USED_SPLITS = ("train", "val")
"""Images of any other split are never touched."""

Rows = dict[str, dict[str, str]]


class Indexes:
    """The index files of one data set: the one that counts is beside the images, or up to one level above the set."""

    def __init__(self, top: Path, group: str | None) -> None:
        self._top = top
        self._group = group
        self._read: dict[Path, Rows | None] = {}

    def apply(self, place: Path, found: DataSet) -> DataSet:
        """Pairs found at a place with what the index says of them, without those it leaves out.

        Pairs of a split that is neither `train` nor `val` are dropped in silence, pairs without a row are told. An
        index that names none of the pairs is another data set's.
        """
        path = self._path(place)
        rows = self._rows(path) if path is not None else None
        if path is None or not found.pairs:
            return found
        name = path.relative_to(self._top).as_posix() if path.is_relative_to(self._top) else path.name
        if rows is None:
            return dataclasses.replace(
                found, problems=(*found.problems, f"{name}: it has no column id and is not used")
            )
        known = {pair.key: _row(rows, pair.key) for pair in found.pairs}
        if not any(known.values()):
            note = f"{name}: it names none of the images of {_shown(place, self._top)} and is not used for them"
            return dataclasses.replace(found, problems=(*found.problems, note))
        pairs = [self._with_row(pair, known[pair.key]) for pair in found.pairs if known[pair.key]]
        unknown = [f"{key}: {name} has no row for it" for key, row in known.items() if not row]
        used = tuple(pair for pair in pairs if pair.split is None or pair.split in USED_SPLITS)
        return DataSet(used, (*found.problems, *unknown))

    def _with_row(self, pair: Pair, row: dict[str, str]) -> Pair:
        group = row.get(self._group) or None if self._group else None
        return dataclasses.replace(
            pair, split=row.get("split"), modality=row.get("modality") or pair.modality, group=group
        )

    def _path(self, place: Path) -> Path | None:
        for folder in (place, *place.parents):
            if (folder / "index.csv").is_file():
                return folder / "index.csv"
            if folder == self._top.parent:
                break
        return None

    def _rows(self, path: Path) -> Rows | None:
        if path not in self._read:
            with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
                reader = csv.DictReader(file)
                has_ids = "id" in (reader.fieldnames or ())
                self._read[path] = {row["id"]: row for row in reader} if has_ids else None
        return self._read[path]


def _row(rows: Rows, key: str) -> dict[str, str]:
    """The row of an image, by its name with or without folders and suffix; empty where there is none."""
    path = PurePosixPath(key)
    return next((rows[name] for name in (key, path.name, path.stem) if name in rows), {})


def _shown(place: Path, top: Path) -> str:
    return top.name if place == top or not place.is_relative_to(top) else place.relative_to(top).as_posix()
