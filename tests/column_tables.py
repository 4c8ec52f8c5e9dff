"""The tables of columns in docs/output.md, from their records: `python tests/column_tables.py` rewrites them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pages import DOCS

from nucseg_batch.columns import FAILURES, IMAGES, OPTIONAL, Column, compartment_columns
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.files.run.track_table import TRACKS_COLUMNS
from nucseg_batch.files.run.volume_table import VolumeTable
from nucseg_batch.files.run.wells import WELLS, well_columns

TABLES = {
    "images.csv": IMAGES,
    "nuclei.csv": NucleiTable(channels=("<channel>",), micrometres=True).columns,
    "--measure": OPTIONAL,
    "--ring and --expand": compartment_columns(ring=True, cell=True, background=True),
    "volumes.csv": VolumeTable(NucleiTable(channels=("<channel>",))).columns,
    "tracks.csv": TRACKS_COLUMNS,
    "wells.csv": (*WELLS, *well_columns(["<column>"], scores=True)),
    "failures.csv": FAILURES,
}


def with_column_tables(text: str) -> str:
    """The page with what is between its markers written again."""
    for name, columns in TABLES.items():
        start, end = f"<!-- columns of {name} -->\n\n", "\n\n<!-- end -->"
        before, after = text.split(start)
        text = before + start + "\n".join(_lines(columns, grouped=columns is OPTIONAL)) + after[after.index(end) :]
    return text


def _lines(columns: Sequence[Column], *, grouped: bool) -> list[str]:
    """Rows of Markdown, with the group or without; what no column of the table has is left out."""
    heads = [
        "column",
        *["group"] * grouped,
        *(head for head in ("unit", "definition", "empty") if any(getattr(c, head) for c in columns)),
    ]
    rows = [[f"`{c.name}`{' *' if c.skimage else ''}", *(getattr(c, head) for head in heads[1:])] for c in columns]
    lines = [re.sub(r" +", " ", f"| {' | '.join(row)} |") for row in (heads, *rows)]
    return [lines[0], "|---" * len(heads) + "|", *lines[1:]]


if __name__ == "__main__":
    page = DOCS / "output.md"
    page.write_text(with_column_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
