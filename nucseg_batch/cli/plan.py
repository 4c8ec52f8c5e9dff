"""The command `plan`."""

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
    Diameter,
    InPlace,
    MaxPixels,
    MinArea,
    Model,
    Overwrite,
    Pattern,
    PixelSize,
    Place,
    Precision,
    PrecisionChoice,
    RegionSide,
    SkipEmpty,
    Threshold,
    TimePoints,
    WithImages,
    output_place,
    segment_settings,
)
from nucseg_batch.settings import SegmentSettings


def plan(
    context: typer.Context,
    place: Place,
    store: Annotated[
        Path | None,
        typer.Argument(metavar="OUT.zarr", help="Store for the masks; the tables go beside it. Not with --in-place."),
    ] = None,
    shares: Annotated[int, typer.Option(min=1, max=100_000, help="Into how many shares the run is divided.")] = 1,
    model: Model = None,
    diameter: Diameter = None,
    pixel_size: PixelSize = None,
    channel: Channel = SegmentSettings.channel,
    pattern: Pattern = None,
    t: TimePoints = None,
    z: Depths = None,
    axes: Axes = None,
    threshold: Threshold = None,
    min_area: MinArea = None,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    max_pixels: MaxPixels = SegmentSettings.max_pixels,
    region: RegionSide = SegmentSettings.region,
    skip_empty: SkipEmpty = False,
    in_place: InPlace = False,
    with_images: WithImages = False,
    overwrite: Overwrite = False,
) -> None:
    """Fix once what a run will do and how it is divided, for `segment --run OUT.zarr --share K` in many processes.

    Example: nucseg-batch plan images/ out.zarr --shares 64
    """
    from nucseg_batch.cli.printed import print_planned
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors import job as jobs
    from nucseg_batch.executors.planning import write_plan
    from nucseg_batch.executors.stop import Stop

    settings = segment_settings(context)
    with RunProgress() as progress, Stop(tell=progress.note):
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
        )
        write_plan(job, progress)
    print_planned(job)
