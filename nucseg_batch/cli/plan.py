"""The command `plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from nucseg_batch.cli.options import PLACE_HELP, InPlace, Json, Model, NewOut, Overwrite, Pattern, output_place, places
from nucseg_batch.cli.record_options import with_options
from nucseg_batch.errors import UsageError
from nucseg_batch.options import option_names
from nucseg_batch.settings import SPEED_OPTIONS, RunSettings, SegmentSettings


@with_options(*option_names(SegmentSettings, but=SPEED_OPTIONS), "new")
def plan(
    context: typer.Context,
    *,
    place: Annotated[str | None, typer.Argument(metavar="IN", help=PLACE_HELP)] = None,
    store: NewOut = None,
    shares: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=100_000,
            help="Number of shares into which the run is divided; default: 1, or those that the run has.",
            rich_help_panel="Shares",
        ),
    ] = None,
    pattern: Pattern = None,
    model: Model = None,
    settings: SegmentSettings,
    in_place: InPlace = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    options: RunSettings,
) -> None:
    """Plan a run and divide it into shares, for many processes.

    Each of them then does its share with `segment --run OUT.zarr --share K`. Plan again to add images that came to IN
    since; then run all shares again.

    Examples:
    nucseg-batch plan images/ out.zarr --shares 64
    # then, in each task of a job array:
    nucseg-batch segment --run out.zarr --share 7
    # and last, in case a share was killed:
    nucseg-batch finish out.zarr
    """
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors.stop import Stop

    place, store = places(context, place, store, in_place=in_place)
    if not place:
        raise UsageError("IN is missing: give a folder, file or store, as in `nucseg-batch plan images/ out.zarr`.")
    with RunProgress() as progress, Stop(tell=progress.note, ended=answer_error):
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import answer
        from nucseg_batch.cli.printed import print_planned
        from nucseg_batch.cli.records import planned_record
        from nucseg_batch.executors import job as jobs
        from nucseg_batch.executors.planning import write_plan
        from nucseg_batch.results.controls import check_controls

        job = jobs.prepare(
            place,
            output_place(place, store, in_place),
            model,
            settings,
            progress,
            overwrite=overwrite,
            pattern=pattern,
            in_place=in_place,
            shares=shares,
            options=options,
        )
        if settings.controls is not None:
            check_controls(settings.controls, job.plan, job.mirror, job.store, job.begun.root)
        write_plan(job, progress)
    print_planned(job)
    if as_json:
        answer(planned_record(job))
