"""What `segment` prints at its end: plans and summaries; scores are in `evaluation_report`."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from nucseg_batch.cli.console import console
from nucseg_batch.cli.progress import duration
from nucseg_batch.cli.text import readable
from nucseg_batch.executors.local import Job, RunSummary

SHOWN_FAILURES = 5
"""Failures that are named in the summary; the table has all."""


def print_job(job: Job) -> None:
    """Prints what a run would do."""
    plan = job.plan
    table = Table("shape", "images", "units", "images a unit", box=box.SIMPLE)
    for stack in plan.stacks:
        units = -(-len(stack.images) // stack.shard_length)
        table.add_row(stack.name, str(len(stack.images)), str(units), str(stack.shard_length))
    out = console()
    out.print(table)
    units = sum(1 for _ in plan.units())
    out.print(
        f"{plan.image_count} images, {plan.pixel_count / 1e6:.1f} Mpx, in {units} units, {units - len(job.missing)} of "
        f"them done; masks of {plan.mask_bytes / 1e6:.0f} MB before compression; {len(plan.failures)} cannot be used"
    )
    for failure in plan.failures:
        out.print(readable(f"  {failure.image}: {failure.message}"), markup=False)
    out.print(readable(f"to {job.store}; this was a dry run, nothing is written"), markup=False)


def print_run(summary: RunSummary) -> None:
    """Prints what a run came to."""
    out = console()
    speed = ""
    if summary.new_images:
        speed = f", {summary.new_pixels / max(summary.stream_seconds, 1e-9) / 1e6:.1f} Mpx/s"
    elif not summary.failures:
        out.print("everything was done already")
    out.print(
        f"{summary.images} images, {summary.nuclei} nuclei, {len(summary.failures)} failed; "
        f"{summary.new_images} segmented now in {duration(summary.seconds)}{speed}"
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
