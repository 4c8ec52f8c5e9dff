"""Options that several commands share, and the check of places that are written to after long work."""

from __future__ import annotations

import dataclasses
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.models import model_file
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


INPUT = "Input"
NUCLEI = "Nuclei"
OUTPUT = "Output"
COMPUTING = "Computing"
"""Panels of the help, in the order in which commands should have their options."""

STDOUT = Path("-")
"""The name of standard output where a file is asked for."""
PLACE_HELP = "Folder, file, @list.txt, 'glob*', or OME-Zarr store or plate (path or URL) of images."
Place = Annotated[str, typer.Argument(metavar="IN", help=PLACE_HELP)]
Out = Annotated[Path, typer.Argument(metavar="OUT.zarr", help="Store of an earlier `segment` or `plan`.")]
NewOut = Annotated[
    Path | None,
    typer.Argument(metavar="OUT.zarr", help="Store for the masks; the tables go beside it. Not with --in-place."),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object, for scripts; other text goes to stderr.", rich_help_panel=OUTPUT
    ),
]

Channel = Annotated[
    str,
    typer.Option(
        metavar="NAME|NUMBER|NM",
        help="Channel that shows the nuclei: name, number from 0, or wavelength in nm; red, green, blue, grey or rgb "
        "for colour images; auto: the only channel, or the DNA stain; each: every file is an image of its own.",
        rich_help_panel=INPUT,
    ),
]
Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="GLOB",
        help="Segment only files whose name matches, such as '*w1*.TIF'; other channels are still measured.",
        rich_help_panel=INPUT,
    ),
]
TimePoints = Annotated[
    str | None,
    typer.Option(
        "--t",
        metavar="RANGE",
        help="Time points, numbers from 0: 3, or 0:10, or 0:10:2; default: all.",
        rich_help_panel=INPUT,
    ),
]
Depths = Annotated[
    str | None,
    typer.Option(
        "--z",
        metavar="RANGE|max",
        help="Z-slices, numbers from 0: 3, or 0:10, or max for the maximum projection; default: all.",
        rich_help_panel=INPUT,
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="AXES",
        help="Axes of TIFFs and zarr arrays that do not name them, such as yxc or tczyx; s: colour samples.",
        rich_help_panel=INPUT,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse input that can be read in several ways instead of assuming one of them.",
        rich_help_panel=INPUT,
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        metavar="UM",
        help="Micrometres per pixel, for the columns in micrometres; default: from the metadata of the files.",
        rich_help_panel=INPUT,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="PX",
        help="Refuse planes with more pixels than this if they must be decoded whole.",
        rich_help_panel=INPUT,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        callback=model_file,
        help="Model file made by `train`; default: the model of the package.",
        rich_help_panel=NUCLEI,
    ),
]
Diameter = Annotated[
    float | None,
    typer.Option(
        metavar="PX",
        help="Width of the nuclei in pixels, for all images; default: estimated for each image.",
        rich_help_panel=NUCLEI,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        help="Foreground probability above which a pixel is nucleus, 0 to 1; default: from the model.",
        rich_help_panel=NUCLEI,
    ),
]
MinArea = Annotated[
    int | None,
    typer.Option(
        metavar="PX", help="Smallest nucleus to keep, in pixels; default: from the model.", rich_help_panel=NUCLEI
    ),
]
Augment = Annotated[
    bool,
    typer.Option(
        "--augment",
        help="Average the network's output over mirror images: about four times slower, slightly better outlines.",
        rich_help_panel=NUCLEI,
    ),
]
InPlace = Annotated[
    bool,
    typer.Option("--in-place", help="Write the masks as labels into the OME-Zarr store IN.", rich_help_panel=OUTPUT),
]
WithImages = Annotated[
    bool,
    typer.Option(
        "--with-images",
        help="Store the pixels beside the masks, to view and correct them together.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Start over: delete earlier output at OUT.zarr, or with --in-place the labels called nuclei.",
        rich_help_panel=OUTPUT,
    ),
]
Device = Annotated[
    DeviceChoice,
    typer.Option(help="Device to compute on; auto uses a GPU if there is one.", rich_help_panel=COMPUTING),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        metavar="KIND",
        help="Precision of the network: auto, float32, mixed_bfloat16 or mixed_float16; auto is bfloat16 if the "
        "processor supports it, else float32.",
        rich_help_panel=COMPUTING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Images per batch, 1 or more; default: depends on their size. Changes only speed.",
        rich_help_panel=COMPUTING,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory that each process may use, such as 4GB; default: 2GB, or less if the job has less. Changes only "
        "speed.",
        rich_help_panel=COMPUTING,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Threads that read images, 1 or more; default: half the cores. Changes only speed.",
        rich_help_panel=COMPUTING,
    ),
]
RegionSide = Annotated[
    int,
    typer.Option(
        metavar="PX",
        help="Side in pixels of the regions into which larger planes are divided: 64 to 16384, in steps of 4.",
        rich_help_panel=COMPUTING,
    ),
]
SkipEmpty = Annotated[
    bool,
    typer.Option(
        "--skip-empty",
        help="Skip regions of large planes without anything bright.",
        rich_help_panel=COMPUTING,
    ),
]


def segment_settings(context: typer.Context) -> SegmentSettings:
    """The settings that a command's options say; raises UsageError for values that cannot be meant."""
    names = (field.name for field in dataclasses.fields(SegmentSettings))
    given = {name: context.params[name] for name in names if name in context.params}
    return SegmentSettings(**{name: getattr(value, "value", value) for name, value in given.items()})


def places(
    context: typer.Context, place: str | None, store: Path | None, *, in_place: bool
) -> tuple[str | None, Path | None]:
    """IN and OUT; where a file of --config says IN, a single argument on the command line is OUT.

    That is how a run is done again from the configuration that it left, which has no OUT.
    """
    said = (context.default_map or {}).get("place")
    sources = [context.get_parameter_source(name) for name in ("place", "store")]
    given = [source is not None and source.name == "COMMANDLINE" for source in sources]
    if said is not None and given == [True, False] and not in_place:
        return str(said), Path(str(place))
    return place, store


def output_place(place: str, store: Path | None, in_place: bool) -> Path:
    """Where masks are written: OUT, or IN itself."""
    if in_place:
        if store is not None:
            raise UsageError("--in-place writes into IN; leave OUT away.")
        return Path(place)
    if store is None:
        raise UsageError("OUT is missing: give a name that ends in .zarr, such as out.zarr.")
    if store.suffix != ".zarr":
        raise UsageError(f"OUT must be a name that ends in .zarr, such as {store.name or 'out'}.zarr, but is {store}.")
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
