"""The table of wells: its columns and controls, whether a file is one, and its end when what it summarises changes."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nucseg_batch.columns import Column, names
from nucseg_batch.errors import DamageError
from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.csv_rows import table_header
from nucseg_batch.files.run_layout import RunLayout

_text = functools.partial(Column, type="string")
_whole = functools.partial(Column, type="int32")

WELLS = (
    _text(
        "plate",
        "path of the plate, or of its folder and the common beginning of file names; of a plate that is all of IN, "
        "the name that its store gives it, or else that of IN",
        empty="never",
    ),
    _text("row", "name of the row", empty="never"),
    _text("column", "name of the column", empty="never"),
    _text("well", "`A01`; `row/column` if row and column are not letters and a number", empty="never"),
    _whole("t", "time point", "from 0", "no such axis; images that were refused while planning"),
    _whole("images", "images with a mask, at this time point", empty="never"),
    _whole("images_failed", "images that failed, or of which a z-slice did", empty="never"),
    _whole("nuclei", "nuclei in these masks, over all z-slices", empty="never"),
)
"""Columns of wells.csv before those that `well_columns` gives."""

_OF_WELL = (
    Column("mean", "mean of `{}` over the nuclei of the well, for each column of nuclei.csv that is a measurement"),
    Column("median", "median of these values"),
    Column("mad", "median absolute deviation of these values from their median, not scaled"),
    Column("z", "only with `--controls`: robust z-score of the median, see below", empty="or the controls are equal"),
)


def well_columns(measured: Iterable[str], *, scores: bool) -> tuple[Column, ...]:
    """Columns of wells.csv of some columns of nuclei.csv, such as `area_median`; scores: whether with z-scores."""
    return tuple(
        replace(
            column,
            name=f"{name}_{column.name}",
            definition=column.definition.format(name),
            empty=", ".join(filter(None, ("no nucleus has a value", column.empty))),
        )
        for name in measured
        for column in _OF_WELL[: 4 if scores else 3]
    )


def is_wells_table(path: Path) -> bool:
    """Whether a file is a table that `nucseg-batch wells` wrote, and not, for example, a user's map of a plate."""
    try:
        return path.is_file() and table_header(path)[: len(WELLS)] == names(WELLS)
    except DamageError:
        return False


def has_scores(path: Path) -> bool:
    """Whether a file is a table of wells with z-scores."""
    return is_wells_table(path) and any(name.endswith(f"_{_OF_WELL[3].name}") for name in table_header(path))


def note_controls(store: Path, controls: str) -> None:
    """Notes in the run folder which control wells the table has, as they were given."""
    write_whole(RunLayout(store).controls, json.dumps(controls))


def noted_controls(store: Path) -> str | None:
    """What `note_controls` noted last; None before that."""
    try:
        return str(json.loads(RunLayout(store).controls.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def remove_wells(store: Path) -> None:
    """Deletes the table of wells of a run, if it has one: it was computed from tables that are about to change."""
    if is_wells_table(path := RunLayout(store).wells):
        path.unlink(missing_ok=True)
