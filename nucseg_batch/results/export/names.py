"""Names of exported files: the image's path with another ending, and never one name for two images.

Where two images differ in their suffix only, as `a.png` and `a.tif`, the files keep the suffix: `a.png.tif` and
`a.tif.tif`. What is kept of an image to find that out is a few numbers, so that there may be millions.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.csv_rows import csv_rows, open_table
from nucseg_batch.files.names import file_name
from nucseg_batch.results.tables import PlaneRow

ENDINGS = (".tif", ".png", ".geojson", ".xml", ".zip", ".json", ".zarr")
"""Endings of files that are made; a folder that ends so could be in the place of one."""
LONGEST = 150
"""Bytes of one part of a path; longer ones are cut and told apart by a hash."""


def plane_suffix(t: int | None, z: int | None) -> str:
    """`_t003_z001` for a plane of an image that has these axes; nothing without."""
    return "".join(f"_{axis}{place:03d}" for axis, place in (("t", t), ("z", z)) if place is not None)


class Names:
    """Which path, without ending and relative to the folder of a format, each image of a run has."""

    def __init__(self, table: Path) -> None:
        """table: images.csv, which is read once."""
        self.images = 0
        """How many images the run has."""
        self.planes = 0
        """How many planes."""
        owner, stems, fulls = array("q"), array("Q"), array("Q")
        for key, suffixes in _images(table):
            for suffix in suffixes:
                owner.append(self.images)
                stems.append(_number(_stem(key) + suffix))
                fulls.append(_number(key + suffix))
            self.images += 1
            self.planes += max(1, len(suffixes) - 1)
        self._shared = _shared(*(np.frombuffer(values, np.uint64) for values in (owner, stems, fulls)))

    def of(self, rows: Sequence[PlaneRow]) -> Path:
        """The path of an image, all of whose planes are given."""
        key = rows[0].image
        stem = _stem(key)
        names = [stem, *(stem + plane_suffix(row.t, row.z) for row in rows)]
        whole = bool(self._shared) and any(_number(name) in self._shared for name in names)
        return Path(*_parts(key if whole else stem))


def _images(table: Path) -> Iterable[tuple[str, list[str]]]:
    """Each image of the table, and what names of its planes end with."""
    with open_table(table) as file:
        rows = csv_rows(file)
        header = next(rows, [])
        image, t, z = (header.index(name) for name in ("image", "t", "z"))
        last, suffixes = None, [""]
        for row in rows:
            if row[image] != last:
                if last is not None:
                    yield file_name(last), suffixes
                last, suffixes = row[image], [""]
            if row[t] or row[z]:
                suffixes.append(plane_suffix(*(int(cell) if cell else None for cell in (row[t], row[z]))))
        if last is not None:
            yield file_name(last), suffixes


def _shared(owner: NDArray[np.uint64], stems: NDArray[np.uint64], fulls: NDArray[np.uint64]) -> frozenset[int]:
    """The numbers of names that images must not have, because another has them."""
    values, counts = np.unique(stems, return_counts=True)
    shared = values[counts > 1]
    while shared.size:
        moved = np.isin(owner, np.unique(owner[np.isin(stems, shared)]))
        taken = np.setdiff1d(np.intersect1d(stems[~moved], fulls[moved]), shared)
        if not taken.size:
            break
        shared = np.union1d(shared, taken)
    return frozenset(shared.tolist())


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(os.fsencode(name), digest_size=8).digest(), "little")


def _stem(key: str) -> str:
    """The key without suffix; that of a hidden file is no suffix."""
    return os.path.splitext(key)[0]


def _parts(name: str) -> list[str]:
    """The parts of a path that stays where it is put."""
    given = [part for part in name.split("/") if part not in ("", ".")] or ["image"]
    parts = ["__" if part == ".." else part.replace("\0", "_") for part in given]
    folders = [f"{part}_" if part.lower().endswith(ENDINGS) else part for part in parts[:-1]]
    return [_cut(part) for part in (*folders, parts[-1])]


def _cut(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= LONGEST:
        return part
    return f"{data[: LONGEST - 17].decode(errors='ignore')}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"
