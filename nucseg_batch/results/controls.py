"""Control wells: how they are named, which ones a run has, and whether its plates have them."""

from __future__ import annotations

from pathlib import Path

from nucseg_batch.errors import InputMissingError, SettingError
from nucseg_batch.files.masks.store import Metadata
from nucseg_batch.files.run.wells import has_scores, noted_controls
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import Plan, PlaneStatus
from nucseg_batch.results.plates import WELL_NAME, Place, Plate, Plates, row_name, row_number
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

NONE = "none"
"""Asks for no controls, also in a run that had some."""


def control_wells(text: str) -> tuple[str, ...]:
    """Names of control wells, as wells.csv has them, from `A01,A2` and rectangles of wells such as `A01:H02`.

    None for `none`. Raises SettingError where the text names none.
    """
    if text.strip().lower() == NONE:
        return ()
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


def places_of_controls(plate: Plate, controls: tuple[str, ...]) -> set[Place]:
    """The places of control wells on a plate; raises SettingError where it has no images of one."""
    wells = {plate.well_name(place): place for place, well in plate.wells.items() if well.planes + well.failed}
    for name in controls:
        if name not in wells:
            raise SettingError("controls", f"names {name}, but plate {plate.name} has no image of this well.")
    return {wells[name] for name in controls}


def check_controls(text: str, plan: Plan, attributes: Metadata, store: Path, root: str) -> None:
    """Raises SettingError where the plates that are planned lack a control well, or there are none.

    attributes: OME-Zarr attributes of the input store, by path of group; store: OUT; root: IN.
    """
    controls = control_wells(text)
    if not controls:
        return
    plates = Plates(store, lambda: root, lambda group: dict(attributes.get(group, {})))
    images = [(image.key, PlaneStatus.OK) for label_array in plan.label_arrays for image in label_array.images]
    for name, status in [*images, *((failure.image, PlaneStatus.FAILED) for failure in plan.failures)]:
        plates.add(PlaneRow((name, "", ""), name, status, "", None, None, None, 0, 0, {}))
    found = plates.found()
    if not found:
        raise SettingError(
            "controls", "names wells, but neither the store nor the names of the images say wells; leave it out."
        )
    for plate in found:
        places_of_controls(plate, controls)


def controls_of(run: FinishedRun) -> str:
    """The control wells of a run as they were given last, to `wells` or `segment`; `none` for none.

    Raises InputMissingError where there were some, and the run folder that says which is gone.
    """
    if run.journal.exists():
        planned = run.begun.settings.controls if run.begun is not None else None
        return noted_controls(run.store) or planned or NONE
    if has_scores(table := RunLayout(run.store).wells):
        raise InputMissingError(
            f"{table}: it has z-scores, and the run folder that says against which wells is gone; give --controls, or "
            f"--controls {NONE} to leave z-scores out."
        )
    return NONE
