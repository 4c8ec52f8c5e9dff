"""The table of wells: how the nuclei of each well of a plate are distributed, and how far wells are from controls.

images.csv is read once to recognise the plates, and both tables once for their values. Values are kept until their well
is complete; since names sort by well, that is one well at a time in most runs.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import is_measurement, names
from nucseg_batch.errors import NothingToDoError, OutputError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.run.wells import WELLS, is_wells_table, note_controls, remove_wells, well_columns
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.controls import control_wells, controls_of, places_of_controls
from nucseg_batch.results.plates import NO_PLATE, Place, Plate, Plates
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow
from nucseg_batch.results.well_values import WaitingValues, robust_scores


@dataclass
class WellTable:
    """What was written."""

    path: Path
    """The table."""
    plates: int
    """Plates in it."""
    wells: int = 0
    """Wells in it."""
    rows: int = 0
    """Its rows: of each well, one per time point."""
    outside: int = 0
    """Planes with a mask that are on no plate and therefore not in it."""
    missing: int = 0
    """Planes that were not done yet."""
    controls: tuple[str, ...] = ()
    """Control wells of its z-scores."""


@dataclass
class _WellRow:
    """A well at a time point."""

    images: int = 0
    failed: int = 0
    nuclei: int = 0
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Mean, median and MAD of each column, (3, columns), once the well is complete."""
    _last: tuple[str, str] = ("", "")

    def count(self, row: PlaneRow) -> None:
        """Counts a plane; those of an image come one after the other."""
        with_mask, failed = self._last
        if row.segmented:
            self.images += row.image != with_mask
            self.nuclei += row.nuclei
            self._last = row.image, failed
        else:
            self.failed += row.image != failed
            self._last = with_mask, row.image


WellRows = dict[Place, dict[int | None, _WellRow]]
"""The rows of a plate by well and time point."""
Progress = Callable[[int, int], None]
"""Is told how many planes of all are done."""


def _silent(done: int, total: int) -> None: ...


def update_wells(run: FinishedRun, controls: str | None = None, progress: Progress = _silent) -> WellTable | None:
    """Writes out.wells.csv where a run is over plates and the table is not there, or has other controls.

    controls: as for `write_wells`. None where there is nothing to write: the table is there, the images are on no
    plate, or a user's file has its name. Raises as `write_wells` does otherwise.
    """
    path = RunLayout(run.store).wells
    wanted = controls_of(run) if controls is None else controls
    if path.exists() and (not is_wells_table(path) or control_wells(wanted) == control_wells(controls_of(run))):
        return None
    try:
        return write_wells(run, wanted, progress)
    except NothingToDoError:
        return None


def write_wells(run: FinishedRun, controls: str | None = None, progress: Progress = _silent) -> WellTable:
    """Writes out.wells.csv of a run: one row per plate, well and time point.

    controls: wells of every plate with which the others are compared, as `controls.control_wells` reads them; see
    `well_values.robust_scores`. They are noted in the run folder; None for those that were noted last.

    Raises NothingToDoError where the images are on no plate, SettingError where a plate lacks a control well,
    InputMissingError where it is no longer known which controls the table had, and OutputError where a file of this
    name is no table of wells.
    """
    path = RunLayout(run.store).wells
    if path.exists() and not is_wells_table(path):
        raise OutputError(f"{path}: this is not a table that `nucseg-batch wells` wrote; move it.")
    wanted = controls_of(run) if controls is None else controls
    chosen = control_wells(wanted)
    plates, planes = Plates(run.store, run.root), 0
    for row in run.planes():
        plates.add(row)
        planes += 1
    found = plates.found()
    if not found:
        raise NothingToDoError(f"{run.store}: {NO_PLATE}")
    compared = {plate: places_of_controls(plate, chosen) for plate in found}
    measured = [name for name in run.nuclei_columns if is_measurement(name)]
    table = WellTable(path, len(found), controls=chosen)
    if controls is not None and run.journal.exists() and control_wells(controls_of(run)) != chosen:
        remove_wells(run.store)  # first, so that a table that is there always has the controls that are noted
        note_controls(run.store, controls)
    with whole_file(path) as file, tempfile.TemporaryFile(dir=path.parent) as waiting:
        file.write(csv_text([names((*WELLS, *well_columns(measured, scores=bool(chosen))))]).encode())
        values = WaitingValues(waiting, len(measured))
        for plate, rows in _complete_plates(run, plates, measured, values, table, lambda n: progress(n, planes)):
            file.write(csv_text(_cells(plate, rows, compared[plate])).encode())
            table.wells += len(rows)
            table.rows += sum(map(len, rows.values()))
    return table


def _complete_plates(
    run: FinishedRun,
    plates: Plates,
    measured: Sequence[str],
    values: WaitingValues,
    table: WellTable,
    progress: Callable[[int], None],
) -> Iterator[tuple[Plate, WellRows]]:
    """The plates in the order in which they are complete; planes that are on none are counted in the table."""
    rows: dict[Plate, WellRows] = {}
    planes: dict[Plate, dict[Place, int]] = defaultdict(lambda: defaultdict(int))
    waiting = {plate: sum(well.planes + well.failed > 0 for well in plate.wells.values()) for plate in plates.found()}
    for number, (row, nuclei) in enumerate(run.with_nuclei_in_pieces(run.planes())):
        progress(number)
        located = plates.locate(row)
        if located is None or not (row.segmented or row.status is PlaneStatus.FAILED):
            table.outside += row.segmented
            table.missing += row.status is PlaneStatus.MISSING
            continue
        plate, place = located
        well = rows.setdefault(plate, {}).setdefault(place, {})
        well.setdefault(row.t, _WellRow()).count(row)
        for piece in nuclei:
            values.add((plate, place, row.t), np.stack([piece[name] for name in measured]))
        planes[plate][place] += 1
        if planes[plate][place] < plate.wells[place].planes + plate.wells[place].failed:
            continue
        for t, one in well.items():
            one.values = values.take((plate, place, t))
        waiting[plate] -= 1
        if not waiting[plate]:
            del planes[plate]
            yield plate, rows.pop(plate)


def _cells(plate: Plate, rows: WellRows, controls: set[Place]) -> Iterator[list[Any]]:
    """The rows of a plate by well and time point, as cells."""
    scores = _scores(rows, controls) if controls else {}
    for place in sorted(rows):
        for t in sorted(rows[place], key=lambda t: -1 if t is None else t):
            row = rows[place][t]
            cells = np.stack([*row.values, *([scores[place, t]] if controls else [])], axis=1).ravel().tolist()
            known = (None if cell != cell else cell for cell in cells)
            where = plate.rows[place[0]], plate.columns[place[1]], plate.well_name(place)
            yield [plate.name, *where, t, row.images, row.failed, row.nuclei, *known]


def _scores(rows: WellRows, controls: set[Place]) -> dict[tuple[Place, int | None], NDArray[np.float64]]:
    """The robust z-scores of the medians of all wells, (columns,) each, time point by time point."""
    found = dict[tuple[Place, int | None], NDArray[np.float64]]()
    for moment in {t for well in rows.values() for t in well}:
        places = [place for place, well in rows.items() if moment in well]
        medians = np.stack([rows[place][moment].values[1] for place in places])
        scores = robust_scores(medians, np.array([place in controls for place in places]))
        found |= {(place, moment): score for place, score in zip(places, scores, strict=True)}
    return found
