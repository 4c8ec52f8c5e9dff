"""The table of tracks read back, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import names
from nucseg_batch.errors import DamageError
from nucseg_batch.files.run.track_table import TRACKS_COLUMNS
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.image_rows import MEND, ImageRows
from nucseg_batch.results.tables import PlaneKey, PlaneRow


@dataclass(frozen=True)
class ImageTracks:
    """The tracks of one image."""

    ids: dict[PlaneKey, NDArray[np.int64]]
    """For each plane with nuclei (n,): the track of each of its labels 1..n."""
    parents: dict[tuple[str, int], int]
    """For the cell z of a plane and each track of it that comes from a division: the track of the mother."""
    centres: dict[PlaneKey, NDArray[np.float64]]
    """For each plane with nuclei (n, 2): row and column of the centroid of each of its labels, in pixels."""


class RunTracks:
    """The tracks of a run, of which those of one image are read at a time.

    store: OUT.zarr, beside which the table is.
    """

    def __init__(self, store: Path) -> None:
        self._path = RunLayout(store).tracks_csv
        self._rows = ImageRows(self._path, names(TRACKS_COLUMNS), "tracks")

    def of(self, row: PlaneRow) -> ImageTracks | None:
        """The tracks of the image of a plane; None where its nuclei are not linked over time points.

        Raises DamageError where the table is damaged.
        """
        if row.t is None or not self._path.exists():
            return None
        found: dict[PlaneKey, list[int]] = {}
        centres: dict[PlaneKey, list[tuple[float, float]]] = {}
        parents: dict[tuple[str, int], int] = {}
        try:
            for image, t, z, label, track, parent, *place in self._rows.of(row.key[0]):
                own = found.setdefault((image, t, z), [])
                own.append(int(track))
                centres.setdefault((image, t, z), []).append((float(place[0]), float(place[1])))
                if int(label) != len(own):
                    raise ValueError(label)
                if parent:
                    parents[z, int(track)] = int(parent)
        except (ValueError, IndexError) as error:
            raise DamageError(f"{self._path}: the rows of {row.image} are damaged; {MEND}") from error
        return ImageTracks(
            {key: np.array(ids, np.int64) for key, ids in found.items()},
            parents,
            {key: np.array(places, np.float64) for key, places in centres.items()},
        )
