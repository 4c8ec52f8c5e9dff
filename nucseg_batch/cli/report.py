"""What `segment` prints at its end: plans and summaries; scores are in `evaluation_report`."""

from __future__ import annotations

import math
from typing import Any

from rich import box
from rich.table import Table

from nucseg_batch.cli.console import console
from nucseg_batch.cli.progress import duration
from nucseg_batch.cli.text import readable
from nucseg_batch.executors.local import Job, RunSummary

SHOWN_FAILURES = 5
"""Failures that are named in the summary; the table has all."""
SHOWN_STACKS = 20
"""Arrays of masks that are named in a dry run."""


def print_job(job: Job) -> None:
    """Prints what a run would do."""
    plan = job.plan
    table = Table("masks", "axes", "images", "units", "shape of a unit", box=box.SIMPLE)
    for stack in plan.stacks[:SHOWN_STACKS]:
        units = math.prod(stack.grid)
        table.add_row(
            readable(stack.name or "."), stack.axes, str(len(stack.images)), str(units), "x".join(map(str, stack.shard))
        )
    if len(plan.stacks) > SHOWN_STACKS:
        table.add_row(f"{len(plan.stacks) - SHOWN_STACKS} more", "", "", "", "")
    out = console()
    out.print(table)
    units, bad = sum(1 for _ in plan.units()), len(plan.failures)
    out.print(
        f"{plan.image_count} images, {plan.plane_count} planes, {plan.pixel_count / 1e6:.1f} Mpx, in {units} units, "
        f"{units - len(job.missing)} of them done; masks of {plan.mask_bytes / 1e6:.0f} MB before compression; {bad} "
        "cannot be used"
    )
    for failure in plan.failures:
        out.print(readable(f"  {failure.image}: {failure.message}"), markup=False)
    out.print(readable(f"to {job.store}; this was a dry run, nothing is written"), markup=False)


def print_run(summary: RunSummary) -> None:
    """Prints what a run came to."""
    out = console()
    speed = ""
    planes = f" of {summary.planes} planes" if summary.planes != summary.images else ""
    if summary.new_planes:
        speed = f", {summary.new_pixels / max(summary.stream_seconds, 1e-9) / 1e6:.1f} Mpx/s"
    elif not summary.failures:
        out.print("everything was done already")
    images = f"{summary.images} image{'s' * (summary.images != 1)}{planes}"
    out.print(
        f"{images}, {summary.nuclei} nuclei, {len(summary.failures)} failed; "
        f"{summary.new_planes} segmented now in {duration(summary.seconds)}{speed}"
    )
    for failure in summary.failures[:SHOWN_FAILURES]:
        out.print(readable(f"  failed: {failure.image}: {failure.message}"), markup=False)
    if len(summary.failures) > SHOWN_FAILURES:
        out.print(f"  ... and {len(summary.failures) - SHOWN_FAILURES} more, all in the failures table")
    out.print(readable("files: " + "  ".join(str(path) for path in summary.files)), markup=False)


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
