"""Options that several commands share, and the check of places that are written to after long work."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.errors import OutputError


class PrecisionChoice(StrEnum):
    """Values of --precision."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


class DeviceChoice(StrEnum):
    """Values of --device."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


Place = Annotated[
    str,
    typer.Argument(
        metavar="IN", help="Folder, file, @list.txt, 'glob*', or OME-Zarr store or plate (path or URL) of images."
    ),
]
Channel = Annotated[
    str,
    typer.Option(
        help="Which channel shows the nuclei: name, number from 0 or wavelength; red, green, blue or grey of colour "
        "images; auto takes the only one, or the DNA stain; each takes every file for itself."
    ),
]
Pattern = Annotated[
    str | None, typer.Option(help="Only files whose name matches, such as '*w1*.TIF'; others may be measured.")
]
TimePoints = Annotated[str | None, typer.Option("--t", help="Time points: 3, or 0:10, or 0:10:2; default: all.")]
Depths = Annotated[
    str | None, typer.Option("--z", help="Depths: 3, or 0:10, or max for the projection of all; default: all.")
]
Axes = Annotated[str | None, typer.Option(help="Axes of plain zarr arrays that do not say them, such as tczyx.")]
MaxPixels = Annotated[int, typer.Option(help="Refuse planes with more pixels than this if they must be decoded whole.")]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="Arithmetic of the network; auto is bfloat16 where the processor computes in it, else float32."),
]
Device = Annotated[DeviceChoice, typer.Option(help="Where to compute; auto takes a GPU when there is one.")]


def check_place(name: str, path: Path) -> None:
    """Makes the folder of a file that will be written after long work; OutputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(f"{name} {path}: it cannot be written there; give another place.")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{name} {path}: it cannot be written ({error.strerror}); give another place.") from error
