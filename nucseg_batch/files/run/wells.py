"""The table of wells of a run: whether it is ours, and its end when the tables that it is computed from change."""

from __future__ import annotations

from pathlib import Path

from nucseg_batch.columns import WELLS, names
from nucseg_batch.errors import DamageError
from nucseg_batch.files.csv_rows import table_header
from nucseg_batch.files.run_layout import RunLayout


def is_wells_table(path: Path) -> bool:
    """Whether a file is a table that `nucseg-batch wells` wrote, and not, for example, a user's map of a plate."""
    try:
        return path.is_file() and table_header(path)[: len(WELLS)] == names(WELLS)
    except DamageError:
        return False


def remove_wells(store: Path) -> None:
    """Deletes the table of wells of a run, if it has one: it was computed from tables that are about to change."""
    if is_wells_table(path := RunLayout(store).wells):
        path.unlink(missing_ok=True)
