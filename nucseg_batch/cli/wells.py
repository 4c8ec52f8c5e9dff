"""The command `wells`, and the same table at the end of other commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.errors import NucsegError

if TYPE_CHECKING:
    from nucseg_batch.results.run import FinishedRun
    from nucseg_batch.results.well_table import WellTable

FEW_CONTROLS = 6
"""With fewer control wells, their spread is a rough guess."""
Controls = Annotated[
    str | None,
    typer.Option(
        metavar="WELLS",
        help="Control wells of every plate, such as A01,A02 or the rectangle A01:H01: adds robust z-scores of all "
        "wells against them; default: those of the last call; none: no z-scores.",
        rich_help_panel="What is computed",
    ),
]


def wells(store: Out, controls: Controls = None, as_json: Json = False) -> None:
    """Summarise the nuclei of each well of a plate.

    Writes out.wells.csv beside the tables: counts, and mean, median and MAD of every measurement, per well and time
    point. Wells are recognised by the metadata of an OME-Zarr plate or by the names of images. `segment` writes the
    same table at the end of a run; call `wells` for other controls.

    Examples:
    nucseg-batch wells plate.zarr
    # robust z-scores against the first column of a plate of 96 wells
    nucseg-batch wells plate.zarr --controls A01:H01
    """
    from nucseg_batch.cli.console import answer, say
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.results.well_table import write_wells

    table = _written(store, lambda run: write_wells(run, controls, StepProgress("planes")))
    assert table is not None
    _print(table)
    if table.missing:
        say(f"{table.missing} planes are not done yet: run the same `segment` command again to resume, then `wells`")
    if as_json:
        counts = {name: getattr(table, name) for name in ("plates", "wells", "rows", "outside", "missing")}
        answer({"store": str(store), "files": [str(table.path)], **counts})


def updated_wells(store: Path, controls: str | None) -> list[Path]:
    """Writes the table of wells of a run that is done, where it is over plates; returns it where there is one.

    controls: control wells; None for those that the run had before.
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.files.run.wells import is_wells_table
    from nucseg_batch.files.run_layout import RunLayout
    from nucseg_batch.results.well_table import update_wells

    table = _written(store, lambda run: update_wells(run, controls, StepProgress("wells")))
    if table is not None:
        _print(table)
    path = RunLayout(store).wells
    if is_wells_table(path):
        return [path]
    if path.exists():
        say(f"{path}: this is not a table of nucseg-batch, so no table of wells was written; move it and call `wells`")
    return []


def _written(store: Path, write: Callable[[FinishedRun], WellTable | None]) -> WellTable | None:
    from nucseg_batch.cli.export import disk_error
    from nucseg_batch.results.run import FinishedRun

    with FinishedRun(store) as run:
        try:
            return write(run)
        except NucsegError:
            raise
        except OSError as error:
            raise disk_error(store, error) from error


def _print(table: WellTable) -> None:
    from nucseg_batch.cli.console import say

    say(f"{table.wells} wells on {table.plates} plate{'s' * (table.plates != 1)}: {table.path}")
    if len(table.controls) == 1:
        say("1 control well: z-scores are empty; give at least 2")
    elif 0 < (few := len(table.controls)) < FEW_CONTROLS:
        say(f"{few} control wells: z-scores are rough")
    if table.outside:
        say(f"{table.outside} planes are on no plate and were left out")
