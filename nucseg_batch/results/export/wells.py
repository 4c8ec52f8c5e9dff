"""Plate and well of each image, where they are known, by the rules of the report."""

from __future__ import annotations

from collections.abc import Iterator

from nucseg_batch.results.report.wells import Plate, Plates, named_well
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow


class WellNames:
    """Which plate and well the images of a run are of; reads images.csv once."""

    def __init__(self, run: FinishedRun) -> None:
        plates = Plates(run.store)
        for row in run.planes():
            plates.add(row)
        self._plates = {plate.name: plate for plate in plates.found()}
        self._whole = run.store.stem

    def of(self, row: PlaneRow) -> tuple[str, str]:
        """Names of plate and well, such as `plate1` and `A01`; empty where not known.

        A plate without a name, as where all of IN is one, has that of the store.
        """
        for plate, place in self._candidates(row):
            if place in plate.wells:
                column = plate.columns[place[1]]
                return plate.name or self._whole, f"{plate.rows[place[0]]}{column.zfill(2)}"
        return "", ""

    def _candidates(self, row: PlaneRow) -> Iterator[tuple[Plate, tuple[int, int]]]:
        parts = row.mask.removesuffix("/labels/nuclei").split("/")
        stored = self._plates.get("/".join(parts[:-3])) if len(parts) > 2 else None
        if stored and parts[-3] in stored.rows and parts[-2] in stored.columns:
            yield stored, (stored.rows.index(parts[-3]), stored.columns.index(parts[-2]))
        folder, prefix, well = named_well(row.image)
        for name in ("/".join(filter(None, (folder, prefix.rstrip("_-. ")))), folder):
            if well and name in self._plates:
                yield self._plates[name], well
