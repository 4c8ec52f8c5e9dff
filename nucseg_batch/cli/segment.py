"""The command `segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import (
    Axes,
    Channel,
    Depths,
    Device,
    DeviceChoice,
    MaxPixels,
    Pattern,
    Place,
    Precision,
    PrecisionChoice,
    TimePoints,
)
from nucseg_batch.errors import EXIT_SOME_FAILED, UsageError
from nucseg_batch.settings import SegmentSettings


def segment(
    place: Place,
    store: Annotated[
        Path | None,
        typer.Argument(metavar="OUT.zarr", help="Store for the masks; the tables go beside it. Not with --in-place."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model file made by `train`; without it, the one that ships with the package.")
    ] = None,
    diameter: Annotated[
        float | None,
        typer.Option(
            help="Width of the nuclei in pixels; default: measured on a sample of the images, and on outliers."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(
            help="Width of a pixel in micrometres, where measuring the nuclei begins; default: the files' own."
        ),
    ] = None,
    channel: Channel = SegmentSettings.channel,
    pattern: Pattern = None,
    t: TimePoints = None,
    z: Depths = None,
    axes: Axes = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Foreground probability of a nucleus' pixels, 0 to 1; default: the model's own."),
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(help="Smallest nucleus to keep, in pixels; default: the model's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in one call of the network; default: by image size. Changes speed only.")
    ] = None,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that read images; default: half the processor's cores. Changes speed only."),
    ] = None,
    max_pixels: MaxPixels = SegmentSettings.max_pixels,
    region: Annotated[
        int, typer.Option(help="Side in pixels of the regions in which larger planes are done.")
    ] = SegmentSettings.region,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Pass over regions of large planes in which nothing is bright.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write the masks as labels into the OME-Zarr store that IN is.")
    ] = False,
    with_images: Annotated[
        bool,
        typer.Option("--with-images", help="Store the pixels beside the masks, to view and correct them together."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Start over: first delete an earlier output at OUT.zarr, or with --in-place labels called nuclei.",
        ),
    ] = False,
) -> None:
    """Segment every image of a folder, plate or store; the same command again does what is missing.

    Example: nucseg-batch segment images/ out.zarr
    """
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.cli.report import print_job, print_run
    from nucseg_batch.executors import local

    settings = SegmentSettings(
        threshold=threshold,
        min_area=min_area,
        diameter=diameter,
        pixel_size=pixel_size,
        channel=channel,
        t=t,
        z=z,
        axes=axes,
        region=region,
        skip_empty=skip_empty,
        precision=precision.value,
        device=device.value,
        max_pixels=max_pixels,
        with_images=with_images,
        batch_size=batch_size,
        workers=workers,
    )
    with RunProgress() as progress:
        job = local.prepare(
            place,
            _output(place, store, in_place),
            model,
            settings,
            progress,
            overwrite=overwrite,
            pattern=pattern,
            in_place=in_place,
        )
        if dry_run:
            print_job(job)
            return
        summary = local.run(job, progress)
    print_run(summary)
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def _output(place: str, store: Path | None, in_place: bool) -> Path:
    """Where masks are written: OUT, or IN itself."""
    if in_place:
        if store is not None:
            raise UsageError("--in-place writes into IN; leave OUT away.")
        return Path(place)
    if store is None:
        raise UsageError("OUT is missing: give a name that ends in .zarr, such as out.zarr.")
    if store.suffix != ".zarr":
        raise UsageError(f"OUT must be a name that ends in .zarr, such as out.zarr, but is {store}.")
    return store
