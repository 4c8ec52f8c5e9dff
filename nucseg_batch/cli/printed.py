"""What `segment` prints at its end: plans and summaries; scores are in `evaluation_report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from nucseg_batch.cli.console import console
from nucseg_batch.cli.progress import duration
from nucseg_batch.cli.text import counted, three_digits
from nucseg_batch.executors.finishing import RunOutcome
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.run_job import RunSummary
from nucseg_batch.files.names import readable
from nucseg_batch.plan import Failure

SHOWN_FAILURES = 5
"""Failures that are named in the summary; the table has all."""
SHOWN_CHANNELS = 8
"""Channels that are named in a dry run."""
SHOWN_ARRAYS = 20
"""Arrays of masks that are named in a dry run."""


def print_job(job: Job, *, dry: bool = True) -> None:
    """Prints what a run would do; `dry` also says that nothing was written."""
    plan = job.plan
    table = Table("masks", "axes", "images", "units", "shape of a unit", box=box.SIMPLE)
    for label_array in plan.label_arrays[:SHOWN_ARRAYS]:
        table.add_row(
            readable(label_array.name or "."),
            label_array.axes,
            str(len(label_array.images)),
            str(label_array.grid.count),
            "x".join(map(str, label_array.grid.shard)),
        )
    if len(plan.label_arrays) > SHOWN_ARRAYS:
        table.add_row(f"{len(plan.label_arrays) - SHOWN_ARRAYS} more", "", "", "", "")
    out = console()
    out.print(table)
    units, bad = sum(1 for _ in plan.units()), len(plan.failures)
    done = job.journal.marker_count() if job.resumed else 0
    images, planes = counted(plan.image_count, "image"), counted(plan.plane_count, "plane")
    out.print(
        f"{images}, {planes}, {plan.pixel_count / 1e6:.1f} Mpx, in {counted(units, 'unit')}, {done} of them done; "
        f"masks of {plan.mask_bytes / 1e6:.0f} MB before compression; {counted(bad, 'image')} refused"
    )
    out.print(readable(f"nuclei in {_nuclei(job)}"), markup=False)
    if job.begun.shares > 1:
        sizes = [0.0] * job.begun.shares
        for number, unit in plan.shared_out(job.begun.shares):
            sizes[number] += unit.pixels / 1e6
        out.print(f"{job.begun.shares} shares of {min(sizes):.1f} to {max(sizes):.1f} Mpx")
    for failure in plan.failures:
        out.print(readable(f"  {failure.image}: {failure.message}"), markup=False)
    if dry:
        out.print(readable(f"dry run: nothing was written to {job.store}"), markup=False)


def _nuclei(job: Job) -> str:
    """Which channels show the nuclei, and in how many images."""
    channels: Counter[str] = Counter()
    for image in (image for label_array in job.plan.label_arrays for image in label_array.images):
        colour = job.begun.settings.channel if job.begun.settings.channel != "auto" else "all three colours"
        only = colour if image.channels == 3 else "the only channel"
        channels[f"channel {image.names[image.nuclei]}" if image.names else only] += 1
    shown = [f"{name} ({count} image{'s' * (count > 1)})" for name, count in channels.most_common(SHOWN_CHANNELS)]
    return ", ".join([*shown, "..."] if len(channels) > len(shown) else shown)


def print_planned(job: Job) -> None:
    """Prints what was planned, and how to go on."""
    print_job(job, dry=False)
    out = console()
    if job.begun.shares == 1:
        out.print(readable(f"planned. Run it with: nucseg-batch segment --run {job.store}"), markup=False)
        return
    out.print(
        readable(f"planned. For each K, 0 to {job.begun.shares - 1}: nucseg-batch segment --run {job.store} --share K"),
        markup=False,
    )


def print_run(job: Job, summary: RunSummary) -> None:
    """Prints what a call of `segment` came to."""
    out, outcome = console(), summary.outcome
    speed = ""
    if summary.new_planes:
        rate = three_digits(summary.new_pixels / max(summary.stream_seconds, 1e-9) / 1e6)
        speed = f" ({rate} Mpx/s after start-up)"
    elif not summary.failures and not outcome.missing:
        out.print("everything was done already")
    share = f"share {job.options.share} of {job.begun.shares}: " if job.options.share is not None else ""
    of_share = "" if outcome.whole else share
    out.print(
        f"{of_share}{_counts(outcome)}; {summary.new_planes} newly segmented in {duration(summary.seconds)}{speed}"
    )
    _print_failures(summary.failures)
    if outcome.whole and outcome.images and not outcome.nuclei:
        out.print("no image has nuclei: see with `nucseg-batch inspect` which channel is segmented, or give --diameter")
    if outcome.whole:
        out.print(readable("files: " + "  ".join(str(path) for path in summary.files)), markup=False)
    elif job.leaves_tables:
        out.print(readable(f"when all shares are done: nucseg-batch finish {job.store}"), markup=False)
    else:
        out.print(
            readable(f"the tables are written when all shares are done; see nucseg-batch status {job.store}"),
            markup=False,
        )


def print_finish(outcome: RunOutcome, files: Sequence[Path]) -> None:
    """Prints what `finish` found."""
    out = console()
    out.print(_counts(outcome))
    _print_failures(outcome.failures)
    if outcome.missing:
        names = sorted({entry.image for entry in outcome.missing})
        out.print(readable(f"  not done yet: {names[0]}{', ...' * (len(names) > 1)}"), markup=False)
    out.print(readable("files: " + "  ".join(str(path) for path in files)), markup=False)


def _counts(outcome: RunOutcome) -> str:
    planes = f" of {outcome.planes} planes" if outcome.planes != outcome.images else ""
    missing = f", {len(outcome.missing)} not done yet" if outcome.missing else ""
    volumes = "" if outcome.volumes is None else f" in {counted(outcome.volumes, 'volume')}"
    volumes += "" if outcome.tracks is None else f" in {counted(outcome.tracks, 'track')}"
    return (
        f"{counted(outcome.images, 'image')}{planes}, {outcome.nuclei} nuclei{volumes}, {len(outcome.failures)} failed"
        f"{missing}"
    )


def _print_failures(failures: Sequence[Failure]) -> None:
    out = console()
    for failure in failures[:SHOWN_FAILURES]:
        out.print(readable(f"  failed: {failure.image}: {failure.message}"), markup=False)
    if len(failures) > SHOWN_FAILURES:
        out.print(f"  ... and {len(failures) - SHOWN_FAILURES} more, all in the failures table")


def print_training(validation: dict[str, Any]) -> None:
    """Prints what a new model scored on its validation images."""
    table = Table("validation images", "AP .5:.95", "AP@.5", box=box.SIMPLE)
    for name, values in validation.items():
        if isinstance(values, dict) and name != "unknown":
            table.add_row(name, f"{values['AP']:.3f}", f"{values['AP50']:.3f}")
    console().print(table)
    console().print(
        f"threshold {validation['threshold']:g} and smallest area {validation['min_area']}, tuned on "
        f"{validation['images']} validation images"
    )
