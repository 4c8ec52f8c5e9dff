"""Options that several commands share, and the check of places that are written to after long work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.models import model_file
from nucseg_batch.errors import OutputError, UsageError
from nucseg_batch.settings import INPUT, NUCLEI, OUTPUT

STDOUT = Path("-")
"""The name of standard output where a file is asked for."""
PLACE_HELP = "Folder, file, @list.txt, 'glob*', or OME-Zarr store or plate (path or URL) of images."
Place = Annotated[str, typer.Argument(metavar="IN", help=PLACE_HELP)]


def _named(store: Path | None) -> Path | None:
    """A store that is the current folder gets its name, by which its tables and its run folder are found."""
    return store if store is None or store.name else store.resolve()  # None while a shell completes words


Out = Annotated[
    Path, typer.Argument(metavar="OUT.zarr", help="Store of an earlier `segment` or `plan`.", callback=_named)
]
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

Pattern = Annotated[
    str | None,
    typer.Option(
        metavar="GLOB",
        help="Segment only files whose name matches, such as '*w1*.TIF'; other channels are still measured.",
        rich_help_panel=INPUT,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|NAME",
        callback=model_file,
        help="Model file made by `train`, or name of a model kept by `models add`; default: the model of the package.",
        rich_help_panel=NUCLEI,
    ),
]
InPlace = Annotated[
    bool,
    typer.Option("--in-place", help="Write the masks as labels into the OME-Zarr store IN.", rich_help_panel=OUTPUT),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Start over: delete earlier output at OUT.zarr, or with --in-place the label images that the run writes.",
        rich_help_panel=OUTPUT,
    ),
]


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


def check_place(path: Path, option: str = "") -> None:
    """Makes the folder of a file that will be written after long work; OutputError where it cannot be written.

    option: the one that names the file; none for an argument.
    """
    what = f"{option} {path}".lstrip()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(f"{what}: no permission to write there; give another place.")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{what}: it cannot be written ({error.strerror}); give another place.") from error
