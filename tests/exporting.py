"""What tests of exports share."""

from __future__ import annotations

from pathlib import Path

from small_runs import SmallRun

from nucseg_batch.results.export.formats import FORMATS
from nucseg_batch.results.export.writing import ExportOutcome, export
from nucseg_batch.results.run import FinishedRun


def nobody(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def exported(
    run: SmallRun, folder: Path, *formats: str, pattern: str | None = None, overwrite: bool = False
) -> ExportOutcome:
    """What the command `export` does."""
    with FinishedRun(run.store) as finished:
        names = formats or tuple(FORMATS)
        return export(finished, folder, names, pattern=pattern, overwrite=overwrite, progress=nobody)
