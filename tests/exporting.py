"""What tests of exports share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from small_runs import SmallRun

from nucseg_batch.results.export.formats import FORMATS
from nucseg_batch.results.export.writing import ExportOutcome, export
from nucseg_batch.results.run import FinishedRun

ANY_RUN = tuple(name for name in FORMATS if name not in ("ctc", "trackmate"))
"""Formats that any run can have; the others need one with tracks."""
INSTALLED = tuple(name for name in ANY_RUN if all(map(importlib.util.find_spec, FORMATS[name].needs)))
"""Those of them whose libraries are there; spatialdata is too large for the extra `test`."""


def nobody(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def exported(
    run: SmallRun, folder: Path, *formats: str, pattern: str | None = None, overwrite: bool = False
) -> ExportOutcome:
    """What the command `export` does."""
    with FinishedRun(run.store) as finished:
        names = formats or INSTALLED
        return export(finished, folder, names, pattern=pattern, overwrite=overwrite, progress=nobody)
