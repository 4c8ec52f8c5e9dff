"""The command `wells`."""

from __future__ import annotations

from typing import Annotated

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.errors import NucsegError

FEW_CONTROLS = 6
"""With fewer control wells, their spread is a rough guess."""
Controls = Annotated[
    str | None,
    typer.Option(
        metavar="WELLS",
        help="Control wells of every plate, such as A01,A02 or the rectangle A01:H01: adds robust z-scores of all "
        "wells against them.",
        rich_help_panel="What is computed",
    ),
]


def wells(store: Out, controls: Controls = None, as_json: Json = False) -> None:
    """Summarise the nuclei of each well of a plate.

    Writes out.wells.csv beside the tables: counts, and mean, median and MAD of every measurement, per well and time
    point. Wells are recognised by the metadata of an OME-Zarr plate or by the names of images.

    Examples:
    nucseg-batch wells plate.zarr
    # robust z-scores against the first column of a plate of 96 wells
    nucseg-batch wells plate.zarr --controls A01:H01
    """
    from nucseg_batch.cli.console import answer, say
    from nucseg_batch.cli.export import disk_error
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.results.run import FinishedRun
    from nucseg_batch.results.well_table import control_wells, write_wells

    with FinishedRun(store) as run:
        try:
            chosen = () if controls is None else control_wells(controls)
            table = write_wells(run, chosen, StepProgress("planes"))
        except NucsegError:
            raise
        except OSError as error:
            raise disk_error(store, error) from error
    say(f"{table.wells} wells on {table.plates} plate{'s' * (table.plates != 1)}: {table.path}")
    if chosen and len(chosen) < FEW_CONTROLS:
        say(f"{len(chosen)} control well{'s' * (len(chosen) > 1)}: z-scores are rough, and empty with a single one")
    if table.outside:
        say(f"{table.outside} planes are on no plate and were left out")
    if table.missing:
        say(f"{table.missing} planes are not done yet: run the same `segment` command again to resume, then `wells`")
    if as_json:
        counts = {name: getattr(table, name) for name in ("plates", "wells", "rows", "outside", "missing")}
        answer({"store": str(store), "files": [str(table.path)], **counts})
