"""What the commands print at their end: plans, summaries and score tables."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from nucseg_batch.arrays.metrics import mean_average_precision
from nucseg_batch.cli.console import PatientConsole, console
from nucseg_batch.cli.progress import duration
from nucseg_batch.cli.text import readable
from nucseg_batch.executors.local import Job, RunSummary
from nucseg_batch.pipeline.evaluate import Evaluation

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


def print_evaluation(result: Evaluation, index: Path | None, group: str) -> None:
    """Prints AP and F1 by group and threshold."""
    out = PatientConsole(highlight=False)
    table = Table("group", "images", "over", "AP .5:.95", "AP@.5", "AP@.75", "F1@.5", "F1@.75", box=box.SIMPLE)
    for name, scores in result.groups.items():
        at = {score.threshold: score for score in scores}
        for kind, pooled, name_of_mean in (("image_mean", False, "images"), ("pooled", True, "pooled")):
            averages = [mean_average_precision(scores, pooled=pooled)]
            averages += [getattr(at[t], f"{metric}_{kind}") for metric in ("ap", "f1") for t in (0.5, 0.75)]
            first = ("", "") if pooled else (name, str(result.counts[name]))
            table.add_row(*first, name_of_mean, *[f"{value:.3f}" for value in averages])
    out.print(table)
    detail = Table("IoU", "AP mean", "AP pooled", "F1 mean", "F1 pooled", "TP", "FP", "FN", box=box.SIMPLE, title="all")
    for score in result.groups["all"]:
        values = (score.ap_image_mean, score.ap_pooled, score.f1_image_mean, score.f1_pooled)
        counts = (score.tp, score.fp, score.fn)
        detail.add_row(f"{score.threshold:.2f}", *[f"{v:.3f}" for v in values], *[str(c) for c in counts])
    out.print(detail)
    if index is not None:
        out.print(readable(f"groups: column {group} of {index}"), markup=False, soft_wrap=True)
    if result.missing:
        out.print(f"{len(result.missing)} annotated images have no prediction and count as all missed", markup=False)
