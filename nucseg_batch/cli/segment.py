"""The command `segment`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import ChannelChoice, Device, DeviceChoice, Precision, PrecisionChoice
from nucseg_batch.errors import EXIT_SOME_FAILED, UsageError
from nucseg_batch.settings import SegmentSettings


def segment(
    folder: Annotated[Path, typer.Argument(metavar="IN", help="Folder of PNG, JPEG and TIFF images, at any depth.")],
    store: Annotated[Path, typer.Argument(metavar="OUT.zarr", help="Store for the masks; the tables go beside it.")],
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
    channel: Annotated[
        ChannelChoice, typer.Option(help="Which channel of colour images shows the nuclei; auto uses all three.")
    ] = ChannelChoice.auto,
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
    max_pixels: Annotated[
        int, typer.Option(help="Refuse images with more pixels than this.")
    ] = SegmentSettings.max_pixels,
    with_images: Annotated[
        bool,
        typer.Option("--with-images", help="Store the pixels beside the masks, to view and correct them together."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier output of nucseg-batch at OUT.zarr and start over.")
    ] = False,
) -> None:
    """Segment every image of a folder; the same command again does what is missing.

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
        channel=channel.value,
        precision=precision.value,
        device=device.value,
        max_pixels=max_pixels,
        with_images=with_images,
        batch_size=batch_size,
        workers=workers,
    )
    if store.suffix != ".zarr":
        raise UsageError(f"OUT must be a name that ends in .zarr, such as out.zarr, but is {store}.")
    with RunProgress() as progress:
        job = local.prepare(folder, store, model, settings, progress, overwrite=overwrite)
        if dry_run:
            print_job(job)
            return
        summary = local.run(job, progress)
    print_run(summary)
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)
