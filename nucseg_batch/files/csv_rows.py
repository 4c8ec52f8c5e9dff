"""The one form of CSV that all tables have, written and read by one rule: that of RFC 4180, with bare newlines.

A cell is quoted where it holds a comma, a quotation mark, a newline or a carriage return, and nowhere else; a quotation
mark in a quoted cell is doubled. The csv module does not write tables, because which cells it quotes depends on the
version of Python: a carriage return was left bare until 3.11.9, 3.12.3 and 3.13, and splits the row for every reader.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nucseg_batch.errors import DamageError
from nucseg_batch.files.names import printable

_QUOTED = re.compile(r'[,"\r\n]')


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV text, each with a newline at its end.

    Floats have up to seven significant digits, None is an empty cell, and text is written as `names.printable` gives
    it, so that it is valid UTF-8.
    """
    return "".join(f"{csv_row(row)}\n" for row in rows)


def csv_row(row: Sequence[Any]) -> str:
    """One row as CSV text, without the newline at its end."""
    cells = [_cell(value) for value in row]
    return '""' if cells == [""] else ",".join(cells)  # an empty line would be no row at all


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.7g}"
    if not isinstance(value, str):
        return str(value)
    text = printable(value)
    return '"{}"'.format(text.replace('"', '""')) if _QUOTED.search(text) else text


@contextlib.contextmanager
def open_table(table: Path) -> Iterator[IO[str]]:
    """A table opened for `csv_rows` or `csv_records`.

    Raises DamageError if the table is not as it was written, for example because it was cut or edited.
    """
    try:
        with open(table, newline="", encoding="utf-8") as file:
            yield file
    except (csv.Error, IndexError, UnicodeDecodeError) as error:
        raise DamageError(
            f"{table}: it is damaged ({type(error).__name__}); delete it, and `nucseg-batch finish` rewrites it."
        ) from error


def csv_rows(file: IO[str]) -> Iterator[list[str]]:
    """The rows of a table that `open_table` opened, the header among them.

    Raises csv.Error for a quotation mark where none can stand, as in a table that was cut or edited.
    """
    return csv.reader(file, strict=True)


def table_header(table: Path) -> tuple[str, ...]:
    """Names of the columns of a table; raises DamageError as `open_table`."""
    with open_table(table) as file:
        return tuple(next(csv_rows(file), []))


def csv_records(file: IO[str]) -> Iterator[dict[str, str]]:
    """The rows by the names of the header; raises csv.Error for a row of another length, and as `csv_rows`."""
    rows = csv_rows(file)
    header = next(rows, [])
    for row in rows:
        if len(row) != len(header):
            raise csv.Error(f"a row has {len(row)} cells, the header {len(header)}")
        yield dict(zip(header, row, strict=True))
