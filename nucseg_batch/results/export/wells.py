"""Plate and well of each image, where they are known, by the rules of the report."""

from __future__ import annotations

from nucseg_batch.results.plates import Plates
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow


class WellNames:
    """Which plate and well the images of a run are of; reads images.csv once."""

    def __init__(self, run: FinishedRun) -> None:
        self._plates = Plates(run.store)
        for row in run.planes():
            self._plates.add(row)
        self._whole = run.store.stem

    def of(self, row: PlaneRow) -> tuple[str, str]:
        """Names of plate and well, such as `plate1` and `A01`; empty where not known.

        A plate without a name, as where all of IN is one, has that of the store.
        """
        located = self._plates.locate(row)
        return (located[0].name or self._whole, located[0].well_name(located[1])) if located else ("", "")
