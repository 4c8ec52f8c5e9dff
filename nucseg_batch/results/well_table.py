"""The table of wells: how the nuclei of each well of a plate are distributed, and how far wells are from controls.

images.csv is read once to recognise the plates, and both tables once for their values. Values are kept until their well
is complete; since names sort by well, that is one well at a time in most runs.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import is_measurement, names
from nucseg_batch.errors import NothingToDoError, OutputError, SettingError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.run.wells import WELLS, is_wells_table, well_columns
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.plates import WELL_NAME, Place, Plate, Plates, row_name, row_number
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


def control_wells(text: str) -> tuple[str, ...]:
    """Names of control wells, as wells.csv has them, from `A01,A2` and rectangles of wells such as `A01:H02`.

    Raises SettingError where the text names none.
    """
    found = dict[str, None]()
    for part in filter(None, map(str.strip, text.split(","))):
        ends = [WELL_NAME.fullmatch(end.strip().upper()) for end in part.split(":", 1)]
        known = [end for end in ends if end is not None]
        if len(known) < len(ends):  # of a store whose rows and columns have other names
            found[part] = None
            continue
        rows, columns = sorted(row_number(end["row"]) for end in known), sorted(int(end["column"]) for end in known)
        for row in range(rows[0], rows[-1] + 1):
            found |= {f"{row_name(row)}{column:02d}": None for column in range(columns[0], columns[-1] + 1)}
    if not found:
        raise SettingError("controls", "names no well; give wells such as A01,A02, or a rectangle such as A01:H01.")
    return tuple(found)


def write_wells(
    run: FinishedRun,
    controls: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WellTable:
    """Writes out.wells.csv of a run: one row per plate, well and time point.

    controls: names of wells of every plate with which the others are compared, see `well_values.robust_scores`.

    Raises NothingToDoError where the images are on no plate, SettingError where a plate lacks a control well, and
    OutputError where a file of this name is no table of wells.
    """
    path = RunLayout(run.store).wells
    if path.exists() and not is_wells_table(path):
        raise OutputError(f"{path}: this is not a table that `nucseg-batch wells` wrote; move it.")
    plates, planes = Plates(run.store), 0
    for row in run.planes():
        plates.add(row)
        planes += 1
    found = plates.found()
    if not found:
        raise NothingToDoError(
            f"{run.store}: its images are on no plate: neither the store nor the names of the images say wells."
        )
    compared = {plate: _places(plate, controls) for plate in found}
    measured = [name for name in run.nuclei_columns if is_measurement(name)]
    table = WellTable(path, len(found))
    with whole_file(path) as file, tempfile.TemporaryFile(dir=path.parent) as waiting:
        file.write(csv_text([names((*WELLS, *well_columns(measured, scores=bool(controls))))]).encode())
        values = WaitingValues(waiting, len(measured))
        for plate, rows in _complete_plates(run, plates, measured, values, table, lambda n: progress(n, planes)):
            file.write(csv_text(_cells(plate, rows, compared[plate])).encode())
            table.wells += len(rows)
            table.rows += sum(map(len, rows.values()))
    return table


def _places(plate: Plate, controls: Collection[str]) -> set[Place]:
    """The control wells of a plate."""
    wells = {plate.well_name(place): place for place, well in plate.wells.items() if well.planes + well.failed}
    for name in controls:
        if name not in wells:
            raise SettingError("controls", f"names {name}, but {plate.called} has no image of this well.")
    return {wells[name] for name in controls}


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
