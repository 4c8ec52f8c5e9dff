"""A table beside the store, of which the rows of one image are read at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from nucseg_batch.errors import DamageError
from nucseg_batch.files.csv_rows import csv_rows

MEND = "`nucseg-batch finish` rewrites it."
"""What to do about a damaged table."""


class ImageRows:
    """A table whose first column is the image, and in which the rows of an image follow each other.

    path: the table. known: names of its first columns. what: what it is a table of.
    """

    def __init__(self, path: Path, known: Sequence[str], what: str) -> None:
        self.path = path
        self._known, self._what = tuple(known), what

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns; DamageError where it is another table."""
        return self._index[0]

    def of(self, image: str) -> list[list[str]]:
        """The rows of an image, given by its cell; none of one that is not in the table."""
        begin, end = self._index[1].get(image, (0, 0))
        with open(self.path, "rb") as file:
            file.seek(begin)
            return list(csv_rows(io.StringIO(file.read(end - begin).decode(), newline="")))

    @cached_property
    def _index(self) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
        """The columns, and where the rows of each image begin and end, in bytes."""
        found: dict[str, tuple[int, int]] = {}
        with open(self.path, "rb") as file:
            columns = tuple(next(csv_rows(io.StringIO(file.readline().decode(), newline="")), []))
            if columns[: len(self._known)] != self._known:
                raise DamageError(f"{self.path}: this is not a table of {self._what} that nucseg-batch wrote; {MEND}")
            begin = file.tell()
            for line in file:
                image = next(csv_rows(io.StringIO(line.decode(), newline="")))[0]
                found[image] = found.get(image, (begin, 0))[0], begin + len(line)
                begin += len(line)
        return columns, found
