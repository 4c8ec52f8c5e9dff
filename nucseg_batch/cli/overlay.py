"""The command `overlay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.export import Folder, Matching, disk_error
from nucseg_batch.cli.options import Out
from nucseg_batch.errors import EXIT_SOME_FAILED, NucsegError
from nucseg_batch.settings import INPUT

LOOKS = "How it looks"
ImagesPlace = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="IN",
        help="Where the images are now, if they have moved.",
        rich_help_panel=INPUT,
    ),
]
First = Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N planes.", rich_help_panel=INPUT)]
Lowest = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Only the N planes with the lowest `confidence` in images.csv.",
        rich_help_panel=INPUT,
    ),
]
Numbers = Annotated[bool, typer.Option("--labels", help="Write its label on each nucleus.", rich_help_panel=LOOKS)]
LineWidth = Annotated[
    int,
    typer.Option(
        "--width", metavar="PX", min=1, max=20, help="Width of the outlines in pixels.", rich_help_panel=LOOKS
    ),
]
Longest = Annotated[
    int,
    typer.Option(
        metavar="PX",
        min=64,
        max=30000,
        help="Longest side of a picture in pixels; larger images are reduced in size.",
        rich_help_panel=LOOKS,
    ),
]


def overlay(
    store: Out,
    folder: Folder,
    pattern: Matching = None,
    images: ImagesPlace = None,
    first: First = None,
    lowest: Lowest = None,
    labels: Numbers = False,
    width: LineWidth = 1,
    max_side: Longest = 4096,
) -> None:
    """Draw the outlines of nuclei on their images, as PNG.

    Contrast is stretched as the network saw it. Each time point and depth is a picture of its own. Exit code 3 where
    the pixels of some images cannot be read.

    Examples:
    nucseg-batch overlay out.zarr overlays/ --first 20
    # the images to distrust most
    nucseg-batch overlay out.zarr doubtful/ --lowest 50
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.results.overlays import Style, draw_overlays
    from nucseg_batch.results.run import FinishedRun

    with FinishedRun(store, images) as run:
        try:
            drawn = draw_overlays(
                run,
                folder,
                Style(width, labels, max_side),
                pattern=pattern,
                first=first,
                lowest=lowest,
                progress=StepProgress("overlays"),
            )
        except NucsegError:
            raise
        except OSError as error:
            raise disk_error(folder, error) from error
    say(f"{drawn.pictures} picture{'s' * (drawn.pictures != 1)} in {folder}")
    if drawn.without_mask:
        say(f"{drawn.without_mask} planes have no mask and were left out.")
    if drawn.without_pixels:
        say(f"{drawn.without_pixels} planes were left out because their pixels cannot be read:")
        for reason in drawn.reasons:
            say(f"  {reason}")
        raise typer.Exit(EXIT_SOME_FAILED)
