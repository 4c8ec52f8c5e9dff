"""The command `bench`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from nucseg_batch.cli.console import console
from nucseg_batch.cli.options import (
    BatchSize,
    Channel,
    Device,
    DeviceChoice,
    Diameter,
    Model,
    Pattern,
    Precision,
    PrecisionChoice,
    Workers,
    check_place,
    segment_settings,
)
from nucseg_batch.cli.text import readable
from nucseg_batch.settings import SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.executors.bench import Bench

NIGHT_HOURS = 8
"""Runs that take longer are better done in shares of about this long."""
MARGIN = 1.5
"""A scheduler is asked for so many times the time that is expected."""
WORDS = {
    "read": "read, decode and fingerprint the pixels",
    "network": "the network alone",
    "separate": "separate nuclei",
    "measure": "measure nuclei",
    "write": "compress and write masks",
}
BOUND = {"read": "reading", "segment": "the network and separating nuclei", "measure": "measuring", "write": "writing"}


def bench(
    context: typer.Context,
    place: Annotated[
        str | None,
        typer.Argument(metavar="IN", help="Images to measure on, as `segment` takes them; default: simulated ones."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="For how many images to estimate the time; default: those of IN.")
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(min=0.1, help="Megapixels of the run from files to masks; default: 100, on a GPU 4000."),
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what is written meanwhile, best on the disk where results will be; default: the system's "
            "temporary folder. It is left as it was."
        ),
    ] = None,
    model: Model = None,
    diameter: Diameter = None,
    channel: Channel = SegmentSettings.channel,
    pattern: Pattern = None,
    batch_size: BatchSize = None,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    workers: Workers = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all that was measured to this file.")] = None,
) -> None:
    """Measure how fast this machine is: each stage, a whole run, and what to ask a scheduler for.

    The size of batches that is found best is kept for later runs on this machine.

    Example: nucseg-batch bench images/ --images 200000
    """
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors.bench import bench as measure

    if json_file is not None:
        check_place("--json", json_file)
    with RunProgress() as progress:
        found = measure(
            place,
            model,
            segment_settings(context),
            progress,
            images=images,
            megapixels=megapixels,
            scratch=scratch,
            pattern=pattern,
        )
    if json_file is not None:
        json_file.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    _print(found)


def _print(found: Bench) -> None:
    out = console()
    versions = ", ".join(f"{name} {found.versions[name]}" for name in ("keras", found.versions["backend"]))
    height, width = found.batch_shape
    out.print(readable(f"{found.hardware}; {versions}; model {found.model}"), markup=False)
    out.print(readable(f"precision {found.precision}: {found.precision_reason}"), markup=False)
    tried = ", ".join(
        f"{one['pixels'] / 2**20:g} Mi: {one['mpx_per_s']:.1f}" if one["mpx_per_s"] else "no room"
        for one in found.batch_tried
        if one["pixels"]
    )
    reason = f"fastest of batches by pixels, Mpx/s: {tried}" if tried else "asked for"
    out.print(f"batches of {found.batch} images of {height}x{width}: {reason}")
    table = Table("stage alone", "Mpx/s", "Mpx/s a core", "nuclei/s", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for stage in found.stages:
        nuclei = "" if stage.nuclei_per_s is None else f"{stage.nuclei_per_s:,.0f}"
        table.add_row(WORDS[stage.name], f"{stage.mpx_per_s:.1f}", f"{stage.mpx_per_core_s:.1f}", nuclei)
    out.print(table)
    whole = found.whole
    network = next(stage.mpx_per_s for stage in found.stages if stage.name == "network")
    out.print(
        f"from files to masks and tables: {whole.mpx_per_s:.1f} Mpx/s, {whole.nuclei_per_s:,.0f} nuclei/s, on "
        f"{whole.megapixels:.0f} Mpx in {whole.planes} pieces: {whole.mpx_per_s / network:.2f} of the network alone"
    )
    busy = ", ".join(f"{BOUND[name]} {share:.0%}" for name, share in whole.busy.items())
    out.print(f"at work in that time: {busy}; {BOUND[whole.bound]} bounds the speed")
    out.print(f"start-up {whole.startup_s:.1f} s; memory {whole.peak_mb:.0f} MB at most")
    for line in advice(found):
        out.print(line)


def advice(found: Bench) -> list[str]:
    """How long all images take, and what to ask Slurm for."""
    estimate = found.estimate
    hours = estimate.seconds / 3600
    lines = [f"{estimate.images:,} images, {estimate.megapixels:,.0f} Mpx: about {_duration(estimate.seconds)} here"]
    shares = math.ceil(hours / NIGHT_HOURS)
    each = estimate.seconds if shares == 1 else estimate.seconds / shares
    asked = f"--cpus-per-task={estimate.cpus} --mem={estimate.memory_gb}G --time={_clock(MARGIN * each)}"
    gpu = "" if found.device == "cpu" else " --gres=gpu:1"
    array = "" if shares == 1 else f" --array=0-{shares - 1}"
    parts = "" if shares == 1 else f"; in {shares} shares {_duration(each)} each, if they run at once"
    lines.append(f"ask Slurm for:{array} {asked}{gpu}{parts}")
    return lines


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds as Slurm takes them, in whole minutes and at least five."""
    minutes = max(5, math.ceil(seconds / 60))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"
