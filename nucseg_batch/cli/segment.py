"""The command `segment`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nucseg_batch.cli.options import (
    PLACE_HELP,
    InPlace,
    Json,
    Model,
    NewOut,
    Overwrite,
    Pattern,
    output_place,
    places,
)
from nucseg_batch.cli.record_options import CLUSTER, with_options
from nucseg_batch.cli.wells import updated_wells
from nucseg_batch.errors import EXIT_OK, EXIT_SOME_FAILED, MismatchError, UsageError
from nucseg_batch.machine.gpus import keep_visible
from nucseg_batch.settings import OUTPUT, RESUMING, SPEED_OPTIONS, RunSettings, SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.executors.job import Job


class ClusterChoice(StrEnum):
    """Values of --cluster."""

    local = "local"
    slurm = "slurm"
    pbs = "pbs"
    sge = "sge"
    lsf = "lsf"
    oar = "oar"


@with_options()
def segment(
    context: typer.Context,
    *,
    place: Annotated[str | None, typer.Argument(metavar="IN", help=PLACE_HELP + " Not with --run.")] = None,
    store: NewOut = None,
    pattern: Pattern = None,
    model: Model = None,
    settings: SegmentSettings,
    in_place: InPlace = False,
    overwrite: Overwrite = False,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write an HTML report when everything is done.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and exit.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Json = False,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="OUT.zarr",
            help="Resume the run planned at OUT.zarr, with its images and settings; replaces IN and OUT.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Segment share K of N, counted from 0; with --run only K, by default the number of the task in "
            "a job array.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    no_finish: Annotated[
        bool,
        typer.Option(
            "--no-finish",
            help="Leave the tables to `finish`, also if this share is the last; with --share.",
            rich_help_panel=RESUMING,
        ),
    ] = False,
    options: RunSettings,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="Segment a folder while it is filled, until TERM or Ctrl-C: look for new files once in SECONDS, and "
            "take those whose size and time have not changed since.",
            rich_help_panel=RESUMING,
        ),
    ] = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first image that fails.", rich_help_panel=RESUMING)
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Use the workers of this dask scheduler, such as tcp://host:8786.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    cluster: Annotated[
        ClusterChoice | None,
        typer.Option(
            metavar="KIND",
            help="Start worker processes: local ones, or jobs of slurm, pbs, sge, lsf or oar (extra hpc).",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Processes on this machine; default: one, or with a GPU as many as cores, memory and images allow.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Jobs with --cluster slurm and others; default: 1.", rich_help_panel=CLUSTER
        ),
    ] = None,
    job_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="Option of these jobs, such as --job-option=--gres=gpu:1; can be repeated. Default: dask's "
            "jobqueue.yaml, or 4 cores and 16 GiB.",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
) -> None:
    """Segment every image of a folder, plate or store; run it again to resume.

    Examples:
    nucseg-batch segment images/ out.zarr
    # one microscope, nuclei 26 pixels wide in all images: fastest
    nucseg-batch segment images/ out.zarr --diameter 26
    # a plate with one file per channel; the nuclei are in w1
    nucseg-batch segment plate/ out.zarr --channel w1
    # options from a file; options on the command line take precedence
    nucseg-batch segment images/ out.zarr --config run.toml --dry-run
    """
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors.stop import Stop

    if fail_fast:
        if options.max_failures is not None:
            raise UsageError("--fail-fast and --max-failures exclude each other; give one.")
        options = dataclasses.replace(options, max_failures="0")
    many = any(value is not None for value in (scheduler, cluster, jobs, job_option))
    if many and share is not None:
        raise UsageError("--share is a part of a run; --scheduler and --cluster do all of it.")
    if processes is not None and watch is not None:
        raise UsageError("--watch works in one process; leave --processes out.")
    place, store = places(context, place, store, in_place=in_place)
    with RunProgress() as progress, Stop(grace=options.grace, tell=progress.note, ended=answer_error) as stop:
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import answer
        from nucseg_batch.cli.printed import print_job, print_run
        from nucseg_batch.cli.records import planned_record, run_record
        from nucseg_batch.cli.shares import array_number, share_of
        from nucseg_batch.executors import chosen
        from nucseg_batch.executors import job as planning
        from nucseg_batch.results.controls import check_controls

        if watch is not None:
            from nucseg_batch.cli.watch import check_watch
            from nucseg_batch.cli.watch import watch as watch_folder

            given = {"--run": run is not None, "--share": share is not None, "--cluster or --scheduler": many}
            given |= {"--in-place": in_place, "--dry-run": dry_run, "--report": report, "--json": as_json}
            check_watch(place or "", given, options.new)
            keep_visible(0 if settings.device == "cpu" else 1)
            watch_folder(
                watch,
                stop,
                lambda select, progress, first: planning.prepare(
                    place or "",
                    output_place(place or "", store, in_place=False),
                    model,
                    settings,
                    progress,
                    overwrite=overwrite and first,
                    pattern=pattern,
                    options=options,
                    select=select,
                ),
                settings.controls,
            )
        if run is not None:
            _check_alone(context)
            number, shares = share_of(share, count_needed=False)
            speed: dict[str, Any] = {name: getattr(settings, name) for name in SPEED_OPTIONS}
            options = dataclasses.replace(options, share=number)
            job = planning.planned(run, options, speed, shares=shares, otherwise=_whole if many else array_number)
            _check_config(context, job, settings)
        else:
            if not place:
                raise UsageError(
                    "IN is missing: give a folder, file, list or store of images, as in `nucseg-batch segment images/ "
                    "out.zarr`, or --run OUT.zarr."
                )
            number, shares = share_of(share, count_needed=True)
            if number is not None and overwrite:
                raise UsageError("--overwrite with --share would delete what other shares did; use `plan --overwrite`.")
            job = planning.prepare(
                place,
                output_place(place, store, in_place),
                model,
                settings,
                progress,
                overwrite=overwrite,
                pattern=pattern,
                in_place=in_place,
                shares=shares,
                options=dataclasses.replace(options, share=number),
                dry=dry_run,
            )
        if no_finish and job.options.share is None:
            raise UsageError("--no-finish: only a share leaves the tables to `finish`; add --share, or leave it out.")
        job = dataclasses.replace(job, leaves_tables=no_finish)
        if settings.controls is not None:
            check_controls(settings.controls, job.plan, job.mirror, job.store, job.begun.root)
        if dry_run:
            print_job(job)
            code = EXIT_SOME_FAILED if job.plan.failures else EXIT_OK
            if as_json:
                answer(planned_record(job), code)
            raise typer.Exit(code)
        if many:
            from nucseg_batch.executors import cluster as others
            from nucseg_batch.executors.dask_pool import ClusterSettings

            kind = None if cluster is None else cluster.value
            team = ClusterSettings(scheduler, kind, processes, jobs, tuple(job_option or ()))
            summary = others.run(job, progress, team, stop)
        else:
            summary = chosen.run(job, progress, stop, processes)
    print_run(job, summary)
    tables = updated_wells(job.store, settings.controls) if summary.outcome.whole else []
    if report and summary.outcome.whole and not summary.outcome.missing:
        from nucseg_batch.cli.report import write

        root = job.begun.root  # a folder that was moved since it was planned, or is mounted elsewhere here
        write(job.store, None if "://" in root else Path(root))
    code = EXIT_SOME_FAILED if summary.failures else EXIT_OK
    if as_json:
        answer(run_record(job, summary, tables), code)
    raise typer.Exit(code)


def _whole(shares: int) -> None:
    """No share: a cluster does all of them, also where it is started in a job array."""


_WITH_RUN = {"context", "run", "share", "batch_size", "memory", "workers", "dry_run", "grace", "as_json", "report"} | {
    "verify_inputs",
    "retry_failed",
    "no_finish",
    "max_failures",
    "fail_fast",
    "controls",
    "scheduler",
    "cluster",
    "processes",
    "jobs",
    "job_option",
}
"""What can be said beside --run: all else was settled when the run was planned."""


def _check_alone(context: typer.Context) -> None:
    """Raises UsageError where --run is given together with what the plan has settled."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _WITH_RUN and source is not None and source.name == "COMMANDLINE":
            option = {"place": "IN", "store": "OUT"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"--run resumes the run as it was planned, so {option} cannot be given with it; leave it out, or give "
                "IN and OUT instead of --run."
            )


def _check_config(context: typer.Context, job: Job, settings: SegmentSettings) -> None:
    """Raises MismatchError where a file of --config says other settings than the run was planned with."""
    begun = job.begun
    for name, value in (context.default_map or {}).items():
        now = context.params.get(name)
        if name == "model":
            planned, now = begun.model, str(now.absolute()) if now is not None else ""
        elif name in ("pattern", "in_place"):
            planned = getattr(begun, name)
        elif name in begun.settings.result_options():
            planned, now = (one.result_options()[name] for one in (begun.settings, settings))
        else:
            continue
        if now != planned:
            raise MismatchError(
                f"--{name.replace('_', '-')} is {value!r} in the file of --config, but the run was planned with "
                f"{planned!r}; leave --config out, or plan another OUT."
            )
