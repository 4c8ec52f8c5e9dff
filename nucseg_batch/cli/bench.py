"""The command `bench`."""

from __future__ import annotations

import contextlib
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from nucseg_batch.cli.console import answer, console
from nucseg_batch.cli.options import STDOUT, Model, Pattern, check_place
from nucseg_batch.cli.progress import duration
from nucseg_batch.cli.record_options import with_options
from nucseg_batch.cli.text import three_digits
from nucseg_batch.errors import StorageError
from nucseg_batch.files.names import readable
from nucseg_batch.machine.gpus import keep_visible
from nucseg_batch.settings import OUTPUT, SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.executors.bench_records import Bench

MEASURED = "What is measured"
NIGHT_HOURS = 8
"""Runs that take longer are better done in shares of about this long."""
SHORT = 5.0
"""A whole run of fewer seconds says little."""
MARGIN = 1.5
"""A scheduler is asked for so many times the time that is expected."""
WORDS = {
    "read": "read, decode and fingerprint the pixels",
    "network": "the network alone",
    "separate": "separate nuclei",
    "measure": "measure nuclei",
    "write": "compress and write masks",
}
BOUND = {
    "read": "reading",
    "size": "estimating sizes",
    "segment": "the network and separating nuclei",
    "measure": "measuring",
    "write": "writing",
}


@with_options("channel", "diameter", "device", "precision", "batch_size", "memory", "workers")
def bench(
    *,
    place: Annotated[
        str | None,
        typer.Argument(metavar="IN", help="Images to measure with, as for `segment`; default: simulated ones."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of images to estimate the time for; default: those of IN.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(
            metavar="MPX",
            min=0.1,
            help="Megapixels of the whole run, from files to masks; default: 100, on a GPU 4000.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for temporary files, preferably on the disk where results will be; default: the system's "
            "temporary folder.",
            rich_help_panel=MEASURED,
        ),
    ] = None,
    pattern: Pattern = None,
    model: Model = None,
    settings: SegmentSettings,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE|-",
            help="Write all measurements to this file; - prints them, and other text goes to stderr.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Measure the speed of this machine, and estimate time, cores and memory for your images.

    The size of batches that is found best is kept for later runs on this machine.

    Examples:
    # on simulated images
    nucseg-batch bench
    # how long 200 000 of these will take here
    nucseg-batch bench images/ --images 200000
    nucseg-batch bench images/ --json - --quiet > bench.json
    """
    from nucseg_batch.cli.progress import RunProgress

    if json_file is not None and json_file != STDOUT:
        check_place(json_file, "--json")
    with _ended_by_term(), RunProgress() as progress:
        keep_visible(0 if settings.device == "cpu" else 1)
        from nucseg_batch.executors.bench import bench as measure

        found = measure(
            place,
            model,
            settings,
            progress,
            images=images,
            megapixels=megapixels,
            scratch=scratch,
            pattern=pattern,
        )
    _print(found)
    if json_file == STDOUT:
        answer(found.as_json())
    elif json_file is not None:
        try:
            json_file.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"--json {json_file}: it cannot be written ({error.strerror}).") from error


@contextlib.contextmanager
def _ended_by_term() -> Iterator[None]:
    """Has TERM end the block as an exception, so that what it wrote is deleted.

    However the block ends after that, the process exits with 143: a library that is interrupted while it is imported
    raises an ImportError of its own.
    """
    received: list[int] = []

    def end(number: int, _: object) -> None:
        received.append(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if received:
            raise SystemExit(128 + received[0]) from None


def _print(found: Bench) -> None:
    out = console()
    versions = ", ".join(f"{name} {found.versions[name]}" for name in ("keras", found.versions["backend"]))
    height, width = found.batch_shape
    driver = f", driver {found.driver}" if found.driver else ""
    out.print(readable(f"{found.hardware}{driver}; {versions}; model {found.model}"), markup=False)
    out.print(readable(f"precision {found.precision}: {found.precision_reason}"), markup=False)
    out.print(f"batches of {found.batch} images of {height}x{width}: {_batch_reason(found)}")
    table = Table("stage alone", "Mpx/s", "Mpx/s a core", "nuclei/s", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in found.stages:
        nuclei = "" if stage.nuclei_per_s is None else f"{stage.nuclei_per_s:,.0f}"
        table.add_row(WORDS[stage.name], f"{stage.mpx_per_s:.1f}", f"{stage.mpx_per_core_s:.1f}", nuclei)
    out.print(table)
    whole = found.whole
    network = next(stage.mpx_per_s for stage in found.stages if stage.name == "network")
    many = f"{whole.planes} image{'s' * (whole.planes != 1)} or regions"
    of_network = f": {whole.mpx_per_s / network:.2f} of the network alone" if whole.scale is not None else ""
    out.print(
        f"from files to masks and tables: {three_digits(whole.mpx_per_s)} Mpx/s, {whole.nuclei_per_s:,.0f} nuclei/s, "
        f"on {three_digits(whole.megapixels)} Mpx in {many}{of_network}"
    )
    if whole.scale is None:
        out.print("each image had a scale of its own, so that the network saw it several times")
    elif whole.scale != 1:
        out.print(f"images were enlarged by {whole.scale:.3g}: the network saw {whole.scale**2:.3g} times their pixels")
    if whole.failed:
        out.print(f"{whole.failed} failed and are not counted; `nucseg-batch inspect` or `segment` says why")
    busy = ", ".join(f"{BOUND[name]} {share:.0%}" for name, share in whole.busy.items())
    out.print(f"at work in that time: {busy}; {BOUND[whole.bound]} bounds the speed")
    if found.device_busy is not None:
        out.print(f"the GPU was at work {found.device_busy:.0%} of that time, as its driver says")
    if found.programs:
        out.print(f"{found.programs} programs compiled, in {found.compile_s:.1f} s")
    out.print(f"start-up {whole.startup_s:.1f} s; memory {whole.peak_mb:.0f} MB at most")
    if whole.stream_s < SHORT:
        out.print(
            f"the run took only {whole.stream_s:.1f} s, which is too short: give more images, or more --megapixels"
        )
    for line in advice(found):
        out.print(line)


def _batch_reason(found: Bench) -> str:
    """Why batches are as large as they are."""
    if found.batch_tried:
        tried = ", ".join(
            f"{(one['pixels'] or 0) / 2**20:g} Mi {three_digits(one['mpx_per_s'])}" if one["mpx_per_s"] else "no room"
            for one in found.batch_tried
        )
        return f"the fastest of those tried, by pixels, in Mpx/s: {tried}"
    return "asked for"


def advice(found: Bench) -> list[str]:
    """How long all images take, and what to ask Slurm for."""
    estimate = found.estimate
    hours = estimate.seconds / 3600
    lines = [f"{estimate.images:,} images, {estimate.megapixels:,.0f} Mpx: about {duration(estimate.seconds)} here"]
    shares = math.ceil(hours / NIGHT_HOURS)
    each = estimate.seconds if shares == 1 else estimate.seconds / shares
    asked = f"--cpus-per-task={estimate.cpus} --mem={estimate.memory_gb}G --time={_clock(MARGIN * each)}"
    plan = "" if shares == 1 else f"nucseg-batch plan IN OUT.zarr --shares {shares}, and then "
    gpu = "" if found.device == "cpu" else " --gres=gpu:1"
    array = "" if shares == 1 else f" --array=0-{shares - 1}"
    parts = "" if shares == 1 else f"; in {shares} shares {duration(each)} each, if they run at once"
    lines.append(f"{plan}ask Slurm for:{array} {asked}{gpu}{parts}")
    return lines


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds as Slurm takes them, in whole minutes and at least five."""
    minutes = max(5, math.ceil(seconds / 60))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
