"""Options that several commands share, and the check of places that are written to after long work."""

from __future__ import annotations

import dataclasses
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.errors import OutputError, UsageError
from nucseg_batch.settings import SegmentSettings


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


PLACE_HELP = "Folder, file, @list.txt, 'glob*', or OME-Zarr store or plate (path or URL) of images."
Place = Annotated[str, typer.Argument(metavar="IN", help=PLACE_HELP)]
Out = Annotated[Path, typer.Argument(metavar="OUT.zarr", help="Store of an earlier `segment` or `plan`.")]
Model = Annotated[
    Path | None, typer.Option(help="Model file made by `train`; without it, the one that ships with the package.")
]
Diameter = Annotated[
    float | None,
    typer.Option(help="Width of the nuclei in pixels; default: measured on a sample of the images, and on outliers."),
]
PixelSize = Annotated[
    float | None,
    typer.Option(help="Width of a pixel in micrometres, where measuring the nuclei begins; default: the files' own."),
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
Threshold = Annotated[
    float | None, typer.Option(help="Foreground probability of a nucleus' pixels, 0 to 1; default: the model's own.")
]
MinArea = Annotated[int | None, typer.Option(help="Smallest nucleus to keep, in pixels; default: the model's own.")]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in one call of the network; default: by image size. Changes speed only.")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Threads that read images; default: half the processor's cores. Changes speed only."),
]
MaxPixels = Annotated[int, typer.Option(help="Refuse planes with more pixels than this if they must be decoded whole.")]
RegionSide = Annotated[int, typer.Option(help="Side in pixels of the regions in which larger planes are done.")]
SkipEmpty = Annotated[
    bool, typer.Option("--skip-empty", help="Pass over regions of large planes in which nothing is bright.")
]
InPlace = Annotated[
    bool, typer.Option("--in-place", help="Write the masks as labels into the OME-Zarr store that IN is.")
]
WithImages = Annotated[
    bool,
    typer.Option("--with-images", help="Store the pixels beside the masks, to view and correct them together."),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Start over: first delete an earlier output at OUT.zarr, or with --in-place labels called nuclei.",
    ),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="Arithmetic of the network; auto is bfloat16 where the processor computes in it, else float32."),
]
Device = Annotated[DeviceChoice, typer.Option(help="Where to compute; auto takes a GPU when there is one.")]


def segment_settings(context: typer.Context) -> SegmentSettings:
    """The settings that a command's options say; raises UsageError for values that cannot be meant."""
    names = (field.name for field in dataclasses.fields(SegmentSettings))
    given = {name: context.params[name] for name in names if name in context.params}
    return SegmentSettings(**{name: getattr(value, "value", value) for name, value in given.items()})


def output_place(place: str, store: Path | None, in_place: bool) -> Path:
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
