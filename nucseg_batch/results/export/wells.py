"""Plate and well of each image, where they are known, by the rules of the report."""

from __future__ import annotations

from nucseg_batch.results.plates import Plates
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow


class WellNames:
    """Which plate and well the images of a run are of; reads images.csv once."""

    def __init__(self, run: FinishedRun) -> None:
        self._plates = Plates(run.store, run.root)
        for row in run.planes():
            self._plates.add(row)

    def of(self, row: PlaneRow) -> tuple[str, str]:
        """Names of plate and well, such as `plate1` and `A01`; empty where not known."""
        located = self._plates.locate(row)
        return (located[0].name, located[0].well_name(located[1])) if located else ("", "")
