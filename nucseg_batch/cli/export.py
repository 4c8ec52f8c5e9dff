"""The command `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.errors import EXIT_OK, EXIT_SOME_FAILED, NucsegError, UsageError
from nucseg_batch.settings import INPUT, OUTPUT


class FormatChoice(StrEnum):
    """Values of --format."""

    tiff = "tiff"
    png = "png"
    geojson = "geojson"
    roi = "roi"
    ctc = "ctc"
    trackmate = "trackmate"
    coco = "coco"
    parquet = "parquet"
    ngio = "ngio"
    anndata = "anndata"
    spatialdata = "spatialdata"
    cellprofiler = "cellprofiler"
    omero = "omero"


Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder to write to: a new one, or the one of an earlier call.")
]
Formats = Annotated[
    list[FormatChoice] | None,
    typer.Option(
        "--format",
        metavar="KIND",
        rich_help_panel=OUTPUT,
        help="tiff and png: label images; geojson: outlines for QuPath; roi: for ImageJ; ctc: masks by track; "
        "trackmate: tracks and outlines for TrackMate; coco: one JSON; parquet: the tables; ngio: OME-Zarr with "
        "feature tables; anndata: for scanpy and squidpy; spatialdata: labels and their table; cellprofiler: CSV with "
        "CellProfiler's names; omero: CSV for OMERO.tables. May be given several times.",
    ),
]
Matching = Annotated[
    str | None,
    typer.Option(
        metavar="GLOB",
        help="Only images whose name matches, or whose path matches if the pattern has a '/', such as '*w1*.TIF'.",
        rich_help_panel=INPUT,
    ),
]
Again = Annotated[
    bool,
    typer.Option("--overwrite", help="Write all files, also those that are up to date.", rich_help_panel=OUTPUT),
]


def export(
    store: Out,
    folder: Folder,
    formats: Formats = None,
    pattern: Matching = None,
    overwrite: Again = False,
    as_json: Json = False,
) -> None:
    """Export masks, outlines and tables of a run to other tools.

    Fiji, QuPath, COCO, pandas, R, ngio, squidpy and pycytominer read them.

    The same call again writes only what is missing, or older than the run. Images without a mask are left out. Exit
    code 3 where a format cannot hold an image.

    Examples:
    nucseg-batch export out.zarr exported/ --format tiff --format geojson
    nucseg-batch export out.zarr tables/ --format parquet
    # only wells of row A
    nucseg-batch export out.zarr row_a/ --format roi --pattern 'A*'
    """
    from nucseg_batch.cli.console import answer, answer_error
    from nucseg_batch.cli.progress import RunProgress, StepProgress
    from nucseg_batch.cli.records import exported_record
    from nucseg_batch.executors.stop import Stop

    steps: dict[str, StepProgress] = {}

    def progress(what: str, done: int, total: int) -> None:
        steps.setdefault(what, StepProgress(f"export {what}"))(done, total)

    if not formats:
        known = ", ".join(choice.value for choice in FormatChoice)
        raise UsageError(f"--format is missing: give one or several of {known}.")
    with RunProgress() as notes, Stop(tell=notes.note, ended=answer_error):
        # since libraries of formats may keep an interrupt to themselves
        from nucseg_batch.results.export.writing import export as write
        from nucseg_batch.results.run import FinishedRun

        with FinishedRun(store) as run:
            try:
                names = [choice.value for choice in formats]
                exported = write(run, folder, names, pattern=pattern, overwrite=overwrite, progress=progress)
            except NucsegError:
                raise
            except OSError as error:
                raise disk_error(folder, error) from error
    _print(exported, folder)
    code = EXIT_SOME_FAILED if any(outcome.refused for outcome in exported.formats.values()) else EXIT_OK
    if as_json:
        answer({"store": str(store), "folder": str(folder), **exported_record(exported)}, code)
    raise typer.Exit(code)


def disk_error(folder: Path, error: OSError) -> NucsegError:
    """The error to raise for one of the operating system while files were written into DIR."""
    import os

    from nucseg_batch.errors import StorageError

    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError(
        f"{folder}: {error.filename or 'a file'} cannot be written ({reason}). Files that are there are whole; "
        "free some space, or fix the file system, and run the same command again."
    )


def _print(exported: object, folder: Path) -> None:
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.text import counted
    from nucseg_batch.results.export.formats import IMAGE_FORMATS
    from nucseg_batch.results.export.writing import ExportOutcome

    assert isinstance(exported, ExportOutcome)
    for name, outcome in exported.formats.items():
        what = IMAGE_FORMATS[name].what if name in IMAGE_FORMATS else "file"
        kept = f", {outcome.kept} up to date" if outcome.kept else ""
        kept += f", {outcome.removed} of before the run removed" if outcome.removed else ""
        refused = f", {outcome.refused} left out" if outcome.refused else ""
        say(f"{name}: {counted(outcome.written, what)} written{kept}{refused}")
        for reason in outcome.reasons:
            say(f"  {reason}")
    if exported.without_mask:
        some = exported.without_mask
        say(f"{some} plane{'s have' if some > 1 else ' has'} no mask and {'were' if some > 1 else 'was'} left out")
    if any(outcome.written or outcome.kept for outcome in exported.formats.values()):
        say(f"{exported.images} image{'s' * (exported.images != 1)} in {folder}")
    else:
        say("nothing was written")
