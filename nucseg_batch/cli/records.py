"""What `--json` prints of a plan, a run and its finish; docs/command-line.md says what each value means."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucseg_batch.executors.finishing import RunOutcome
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.run_job import RunSummary
from nucseg_batch.plan import Failure

if TYPE_CHECKING:
    from nucseg_batch.results.export.writing import ExportOutcome

LISTED_FAILURES = 1000
"""Failures that are listed; `failed` counts all, and failures.csv has them."""


def planned_record(job: Job) -> dict[str, Any]:
    """What a run is to do, before it does it."""
    plan = job.plan
    return {
        "store": str(job.store),
        "input": job.begun.root,
        "resumed": job.resumed,
        "images": plan.image_count,
        "planes": plan.plane_count,
        "pixels": plan.pixel_count,
        "units": sum(1 for _ in plan.units()),
        "units_done": job.journal.marker_count() if job.resumed else 0,
        "shares": job.begun.shares,
        "mask_bytes": plan.mask_bytes,
        "assumptions": [dataclasses.asdict(one) for one in job.begun.assumptions],
        **_failures(plan.failures),
    }


def run_record(job: Job, summary: RunSummary, tables: Sequence[Path] = ()) -> dict[str, Any]:
    """What a call of `segment` came to; tables: what was written besides the files of the summary."""
    return {
        "store": str(job.store),
        "input": job.begun.root,
        "share": job.options.share,
        "shares": job.begun.shares,
        **_outcome(summary.outcome),
        **_failures(summary.failures),
        "assumptions": [dataclasses.asdict(one) for one in job.begun.assumptions],
        "new_planes": summary.new_planes,
        "new_pixels": summary.new_pixels,
        "new_nuclei": summary.new_nuclei,
        "seconds": round(summary.seconds, 3),
        "stream_seconds": round(summary.stream_seconds, 3),
        "files": [str(path) for path in (*summary.files, *tables)],
    }


def finish_record(store: Path, outcome: RunOutcome, files: Sequence[Path], seconds: float) -> dict[str, Any]:
    """What `finish` found and wrote."""
    return {
        "store": str(store),
        **_outcome(outcome),
        **_failures(outcome.failures),
        "seconds": round(seconds, 3),
        "files": [str(path) for path in files],
    }


def exported_record(exported: ExportOutcome) -> dict[str, Any]:
    """What `export` wrote."""
    formats = {
        name: {
            "written": one.written,
            "kept": one.kept,
            "removed": one.removed,
            "refused": one.refused,
            "reasons": list(one.reasons),
        }
        for name, one in exported.formats.items()
    }
    return {"images": exported.images, "without_mask": exported.without_mask, "formats": formats}


def _outcome(outcome: RunOutcome) -> dict[str, Any]:
    return {
        "tables_written": outcome.whole,
        "images": outcome.images,
        "planes": outcome.planes,
        "nuclei": outcome.nuclei,
        **({} if outcome.volumes is None else {"volumes": outcome.volumes}),
        **({} if outcome.tracks is None else {"tracks": outcome.tracks}),
        "missing": len(outcome.missing),
    }


def _failures(failures: Sequence[Failure]) -> dict[str, Any]:
    listed = [
        {"image": one.image, "stage": one.stage, "error": one.error, "message": one.message}
        for one in failures[:LISTED_FAILURES]
    ]
    return {"failed": len(failures), "failures": listed}
