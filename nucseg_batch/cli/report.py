"""The command `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import check_place
from nucseg_batch.errors import UsageError
from nucseg_batch.settings import INPUT, OUTPUT


def report(
    store: Annotated[Path, typer.Argument(metavar="OUT.zarr", help="Store of a finished `segment`.")],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="IN",
            help="Where the images are now, if they have moved.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    well_column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Also draw this column of out.wells.csv, which `wells` writes, as a heat map; can be repeated.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="File to write; default: out.report.html beside OUT.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Write an HTML report of a run.

    Pictures with outlines, what is suspicious and why, histograms and plates. It is one HTML file that needs no
    network, for any browser.

    Examples:
    nucseg-batch report out.zarr
    # the images are elsewhere now
    nucseg-batch report out.zarr --images /mnt/plate1 --to plate1.html
    # a heat map of a column of out.wells.csv
    nucseg-batch report out.zarr --well-column area_z
    """
    if to is not None and to.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--to must be a name that ends in .html, but is {to}.")
    write(store, images, to, well_column or ())


def write(store: Path, images: Path | None = None, to: Path | None = None, well_columns: Sequence[str] = ()) -> None:
    """Writes the report of a run that is done and says where it is."""
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.errors import NucsegError, StorageError
    from nucseg_batch.files.run_layout import RunLayout
    from nucseg_batch.results.export.folder import check_outside
    from nucseg_batch.results.report import write_report
    from nucseg_batch.results.run import FinishedRun

    steps: dict[str, StepProgress] = {}

    def told(what: str, done: int, total: int) -> None:
        steps.setdefault(what, StepProgress(what))(done, total)

    with FinishedRun(store, images) as run:
        place = to or RunLayout(store).report
        check_place(place, "--to")
        check_outside(place, "--to")
        try:
            write_report(run, place, told, well_columns=well_columns)
        except OSError as error:
            if isinstance(error, NucsegError) or (error.filename and place.name not in str(error.filename)):
                raise
            raise StorageError(f"--to {place}: it cannot be written ({error.strerror}); give another place.") from error
    say(f"report: {place}")
