"""The table of tracks read back, image by image."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import names
from nucseg_batch.errors import DamageError
from nucseg_batch.files.csv_rows import csv_rows
from nucseg_batch.files.run.track_table import TRACKS_COLUMNS
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.tables import PlaneKey, PlaneRow


@dataclass(frozen=True)
class ImageTracks:
    """The tracks of one image."""

    ids: dict[PlaneKey, NDArray[np.int64]]
    """For each plane with nuclei (n,): the track of each of its labels 1..n."""
    parents: dict[tuple[str, int], int]
    """For the cell z of a plane and each track of it that comes from a division: the track of the mother."""


class RunTracks:
    """The tracks of a run, of which those of one image are read at a time.

    store: OUT.zarr, beside which the table is.
    """

    def __init__(self, store: Path) -> None:
        self._path = RunLayout(store).tracks_csv

    def of(self, row: PlaneRow) -> ImageTracks | None:
        """The tracks of the image of a plane; None where its nuclei are not linked over time points.

        Raises DamageError where the table is damaged.
        """
        if row.t is None or not self._path.exists():
            return None
        begin, end = self._places.get(row.key[0], (0, 0))
        with open(self._path, "rb") as file:
            file.seek(begin)
            text = file.read(end - begin).decode()
        found: dict[PlaneKey, list[int]] = {}
        parents: dict[tuple[str, int], int] = {}
        try:
            for image, t, z, label, track, parent, *_ in csv_rows(io.StringIO(text, newline="")):
                own = found.setdefault((image, t, z), [])
                own.append(int(track))
                if int(label) != len(own):
                    raise ValueError(label)
                if parent:
                    parents[z, int(track)] = int(parent)
        except ValueError as error:
            raise DamageError(f"{self._path}: the rows of {row.image} are damaged; {_MEND}") from error
        return ImageTracks({key: np.array(ids, np.int64) for key, ids in found.items()}, parents)

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Where the rows of each image begin and end in the table, in bytes, by its cell."""
        found: dict[str, tuple[int, int]] = {}
        with open(self._path, "rb") as file:
            if next(csv_rows(io.StringIO(file.readline().decode(), newline="")), []) != list(names(TRACKS_COLUMNS)):
                raise DamageError(f"{self._path}: this is not a table of tracks that nucseg-batch wrote; {_MEND}")
            begin = file.tell()
            for line in file:
                image = next(csv_rows(io.StringIO(line.decode(), newline="")))[0]
                found[image] = found.get(image, (begin, 0))[0], begin + len(line)
                begin += len(line)
        return found


_MEND = "`nucseg-batch finish` rewrites it."
