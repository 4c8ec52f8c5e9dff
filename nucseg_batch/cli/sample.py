"""The command `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the images.")],
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of the simulated fields.", rich_help_panel="Fields")
    ] = 1,
) -> None:
    """Write a small set of images to try nucseg-batch on.

    Simulated fluorescence fields, with their truth beside them in FOLDER_truth, and a real histology image.

    Examples:
    nucseg-batch sample images/
    nucseg-batch segment images/ out.zarr
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.files.sample import truth_folder, write_sample

    paths = write_sample(folder, seed=seed)
    say(f"wrote {len(paths)} images to {folder} and the truth of the simulated ones to {truth_folder(folder)}")
