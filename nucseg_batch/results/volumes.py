"""The table of volumes read back, image by image."""

from __future__ import annotations

from pathlib import Path

from nucseg_batch.columns import names
from nucseg_batch.files.run.volume_table import VOLUMES_KEY, VOLUMES_MEASURED
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.image_rows import ImageRows
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow


class RunVolumes:
    """The volumes of a run, of which those of one image are read at a time.

    store: OUT.zarr, beside which the table is.
    """

    def __init__(self, store: Path) -> None:
        self._path = RunLayout(store).volumes_csv
        self._rows = ImageRows(self._path, names((*VOLUMES_KEY, *VOLUMES_MEASURED)), "volumes")

    def of(self, row: PlaneRow) -> dict[str, PlaneNuclei] | None:
        """The volumes of the image of a plane, by the cell t; None where its nuclei are not joined over z-slices.

        Raises DamageError where the table is damaged.
        """
        if row.z is None or not self._path.exists():
            return None
        found: dict[str, list[list[str]]] = {}
        for cells in self._rows.of(row.key[0]):
            found.setdefault(cells[1], []).append(cells)
        return {time: PlaneNuclei(self._rows.columns, rows) for time, rows in found.items()}
