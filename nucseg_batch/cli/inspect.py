"""The command `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from nucseg_batch.cli.console import answer, console
from nucseg_batch.cli.options import Json, Pattern, Place
from nucseg_batch.cli.record_options import with_options
from nucseg_batch.errors import EXIT_OK, EXIT_SOME_FAILED
from nucseg_batch.files.names import readable
from nucseg_batch.machine.memory import available_memory
from nucseg_batch.settings import COMPUTING, SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.executors.inspection import ImageKind, Inspection
    from nucseg_batch.files.find.entries import Discovery
    from nucseg_batch.plan import Assumption

SHOWN_KINDS = 30
"""Kinds of images in the table; --json has all."""
SHOWN_REASONS = 20
"""Reasons that are printed; --json has all."""
LOG_WIDTH = 200
"""Width of the table where no terminal says how wide it is."""
SHOWN_KEY = 40
"""Characters of an example's key, its last ones."""
SHOWN_NAMES = 3
"""Names of things that were passed over, for each reason; --json has the first thousand."""
SHOWN_SUFFIXES = 6
"""Suffixes of files that are no images; --json has all."""
SHOWN_CHANNELS = 6
"""Channels that are named in a row."""


@with_options(
    *(
        "channel",
        "t",
        "z",
        "axes",
        "pixel_size",
        "flatfield",
        "max_pixels",
        "strict",
        "measure",
        "ring",
        "expand",
        "link",
        "with_images",
    ),
    *("memory", "region"),
    measure="Count the memory that these further columns of nuclei.csv take: groups or names, with commas, or all.",
    ring="Count memory and files of a run with rings: GAP,WIDTH.",
    expand="Count memory and files of a run with cells: DISTANCE.",
    link="Count the files of a run that joins the nuclei of neighbouring z-slices into volumes: z.",
    with_images="Count the files of a run that also stores the pixels.",
)
def inspect(
    place: Place,
    *,
    pattern: Pattern = None,
    settings: SegmentSettings,
    as_json: Json = False,
    mpx_per_s: Annotated[
        float | None,
        typer.Option(
            metavar="MPX/S",
            help="Speed in megapixels per second, as printed by `segment`, to estimate the time.",
            min=0,
            rich_help_panel=COMPUTING,
        ),
    ] = None,
) -> None:
    """List the images and channels of a folder, plate or store, and what `segment` would do.

    Nothing is written, and no pixels are read but those of a few colour pictures. Exit codes are those that `segment`
    would end with: 3 where single images would be refused.

    Examples:
    nucseg-batch inspect images/
    nucseg-batch inspect plate.zarr --channel DAPI
    # how long it will take, from the speed that `segment` printed
    nucseg-batch inspect images/ --mpx-per-s 7
    """
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors import inspection

    with RunProgress() as progress:
        found = inspection.inspect(place, settings, pattern=pattern, progress=progress.headers)
    error = found.error()
    code = error.exit_code if error is not None else EXIT_SOME_FAILED if found.plan.failures else EXIT_OK
    if as_json:
        told = None if error is None else str(error)
        answer(inspection.as_json(found, mpx_per_s or None), code, error=told)
    else:
        _print(found, mpx_per_s or None)
    if error is not None:
        raise error
    raise typer.Exit(code)


def _print(found: Inspection, mpx_per_s: float | None) -> None:
    plan, out = found.plan, console()
    if not out.is_terminal:
        out.width = LOG_WIDTH
    kinds = found.kinds
    table = Table(box=box.SIMPLE)
    for title in ("images", "axes", "shape", "type", "channels", "um/px", "chunks", "planes", "e.g."):
        table.add_column(title, no_wrap=title != "channels")
    for kind in kinds[:SHOWN_KINDS]:
        table.add_row(*(readable(cell) for cell in _row(kind)))
    if kinds:
        out.print(table, markup=False)
    if len(kinds) > SHOWN_KINDS:
        out.print(f"... and {len(kinds) - SHOWN_KINDS} more kinds of images; --json lists all")
    lines = _plan_lines(found, mpx_per_s) if plan.label_arrays else ["nothing would be segmented"]
    lines += [f"note: {note}" for note in found.scan.found.notes]
    lines += [_assumed(one) for one in found.scan.found.assumptions]
    lines += _passed_over(found.scan.found)
    refused = found.refused
    for reason, keys in list(refused.items())[:SHOWN_REASONS]:
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        lines.append(f"refused: {keys[0]}{others}: {reason}")
    if len(refused) > SHOWN_REASONS:
        lines.append(f"... and {len(refused) - SHOWN_REASONS} more reasons; --json lists all")
    for line in lines:
        out.print(readable(line), markup=False)


def _assumed(one: Assumption) -> str:
    return f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}"


def _passed_over(found: Discovery) -> list[str]:
    """What was passed over, with some of its names."""
    lines = []
    for reason, count in found.skipped.items():
        told = found.passed.get(reason)
        names = list(told.names[:SHOWN_NAMES]) if told else []
        suffixes = [f"{number} {suffix}" for suffix, number in told.suffixes[:SHOWN_SUFFIXES]] if told else []
        if told and len(told.suffixes) > SHOWN_SUFFIXES:
            suffixes.append("...")
        if names and count > len(names):
            names.append("...")
        kinds = f" ({', '.join(suffixes)})" if suffixes else ""
        lines.append(f"skipped: {count} x {reason}{kinds}{': ' if names else ''}{', '.join(names)}")
    return lines


def _plan_lines(found: Inspection, mpx_per_s: float | None) -> list[str]:
    """What a run would come to."""
    plan, files = found.plan, found.output_files
    counts = {
        "image": plan.image_count,
        "plane": plan.plane_count,
        "unit": found.units,
        "array": len(plan.label_arrays),
    }
    images, planes, units, arrays = (f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items())
    stacks = f"{found.stacks} stack{'s' * (found.stacks != 1)}"
    joined = [f"volumes: nuclei are joined over the z-slices of {stacks}"] if found.stacks else []
    return [
        f"{images}, {planes}, {plan.pixel_count / 1e6:.1f} Mpx, in {units}",
        f"in: {_on_disk(found.input_bytes)}, {_bytes(found.decoded_bytes)} decoded",
        *joined,
        f"out: masks of {_bytes(plan.mask_bytes)} before compression in {arrays}; at most {files['store']} files in "
        f"the store, {files['tables']} tables, about {files['run folder']} in the run folder",
        f"memory: about {_bytes(found.memory)} on a CPU, with a budget of {_bytes(found.budget.total)} (--memory)"
        + ("; more than the machine or the job has, so request more" if found.memory > available_memory() else ""),
        _time(found, mpx_per_s),
    ]


def _row(kind: ImageKind) -> list[str]:
    header = kind.header
    names = [name + "*" * (name == kind.nuclei) for name in (channel.name for channel in header.channels)]
    if len(names) > SHOWN_CHANNELS:
        names = [*names[:SHOWN_CHANNELS], f"... {len(names)} in all"]
    size = f"{header.pixel_size:.4g}" if header.pixel_size is not None else ""
    chunk = "plane" if header.chunk is None else f"{header.chunk[0]}x{header.chunk[1]}"
    shape = "x".join(map(str, header.shape))
    planes = str(kind.planes) if kind.planes else "refused"
    example = kind.example if len(kind.example) <= SHOWN_KEY else "..." + kind.example[3 - SHOWN_KEY :]
    return [str(kind.count), header.axes, shape, header.dtype, ", ".join(names), size, chunk, planes, example]


def _time(found: Inspection, mpx_per_s: float | None) -> str:
    from nucseg_batch.cli.progress import duration

    if mpx_per_s is None:
        return "time: unknown; segment a few images, and pass the speed that `segment` prints with --mpx-per-s"
    return f"time: {duration(found.seconds(mpx_per_s))} at {mpx_per_s:g} Mpx/s"


def _on_disk(count: int | None) -> str:
    return "size on disk not counted" if count is None else f"{_bytes(count)} on disk"


def _bytes(count: int) -> str:
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
