"""The nuclei table as a folder of Parquet files, `part-00000.parquet` and so on: the rows of nuclei.csv, with types.

The rows are those that units left, read as CSV and joined in the order of nuclei.csv. How they are cut into files and
row groups depends only on their number and on the number of columns, so that the same version of pyarrow gives the same
bytes. pyarrow is an extra and is imported when it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from nucseg_batch import __version__
from nucseg_batch.columns import Column, names
from nucseg_batch.errors import DamageError, UsageError

SUFFIX = ".parquet"
"""Ending of the folder and of its files."""
GROUP_BYTES = 2**26
"""Bytes of a row group before compression, about."""
MOST_ROWS = 2**18
"""Rows that a row group has at most."""
GROUPS = 8
"""Row groups of a file."""
BLOCK = 2**24
"""Bytes of rows that are parsed at once."""
BATCH_ROWS = 2**15
"""Rows that are read at once."""


def pyarrow(what: str) -> Any:
    """The library, with its modules for CSV and Parquet; raises UsageError where it is not installed.

    what: named in the message as what needs the library.
    """
    try:
        library = importlib.import_module("pyarrow")
        for module in ("compute", "csv", "parquet"):
            importlib.import_module(f"pyarrow.{module}")
    except ImportError as error:
        raise UsageError(f"{what} needs pyarrow, which is not installed: pip install 'nucseg-batch[export]'") from error
    return library


class DatasetWriter:
    """Files of a dataset, which is written from its rows as CSV; a context manager, which ends the last file.

    folder: exists, and gets the files. columns: of the rows, in their order.
    """

    def __init__(self, folder: Path, columns: Sequence[Column]) -> None:
        self._pa = pyarrow("the Parquet table of nuclei")
        self._folder, self._names = folder, names(columns)
        fields = [(column.name, self._pa.type_for_alias(column.type)) for column in columns]
        self._schema = self._pa.schema(fields, {"software": f"nucseg-batch {__version__}"})
        self._group = max(1, min(MOST_ROWS, GROUP_BYTES // (8 * len(columns))))
        self._text = bytearray()
        self._waiting: list[Any] = []
        self._rows = self._groups = self._files = 0
        self._file: IO[bytes] | None = None
        self._writer: Any = None

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._parse(len(self._text))
                if self._rows or not self._files:  # without any nucleus there is a file all the same, with the columns
                    self._write_group(self._rows)
                self._end_file()
        finally:
            with contextlib.suppress(Exception):  # what went wrong before is raised
                self._end_file()

    def write(self, rows: bytes) -> None:
        """Takes more of the rows, which may end within one."""
        self._text += rows
        if len(self._text) >= BLOCK:
            self._parse(_end_of_rows(self._text))

    def _parse(self, size: int) -> None:
        """Takes whole rows from the text."""
        if not size:
            return
        pa, text = self._pa, io.BytesIO(bytes(self._text[:size]))
        del self._text[:size]
        reading = pa.csv.ReadOptions(column_names=list(self._names), use_threads=False, block_size=2 * BLOCK)
        converting = pa.csv.ConvertOptions(
            column_types=self._schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        try:
            table = pa.csv.read_csv(text, reading, pa.csv.ParseOptions(newlines_in_values=True), converting)
        except pa.ArrowInvalid as error:
            raise DamageError(
                f"{self._folder}: the rows of a unit are not as they were written ({error}); `nucseg-batch verify` "
                "says which."
            ) from error
        self._waiting.append(table)
        self._rows += len(table)
        while self._rows >= self._group:
            self._write_group(self._group)

    def _write_group(self, rows: int) -> None:
        """Writes a row group of the first rows that wait."""
        pa = self._pa
        waiting = pa.concat_tables([self._schema.empty_table(), *self._waiting]).replace_schema_metadata(
            self._schema.metadata
        )
        group, rest = waiting.slice(0, rows).combine_chunks(), waiting.slice(rows)
        self._waiting, self._rows = [rest], len(rest)
        if self._writer is None:
            self._file = open(self._folder / f"part-{self._files:05d}{SUFFIX}", "wb")  # noqa: SIM115 - by _end_file
            self._writer = pa.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
            self._files += 1
        self._writer.write_table(group, row_group_size=max(1, rows))
        self._groups += 1
        if self._groups == GROUPS:
            self._end_file()

    def _end_file(self) -> None:
        with contextlib.ExitStack() as closing:
            if self._file is not None:
                closing.enter_context(self._file)
            if self._writer is not None:
                self._writer.close()
        self._writer = self._file = None
        self._groups = 0


def _end_of_rows(text: bytearray) -> int:
    """Where the last whole row ends: at a newline that no quotation marks are around."""
    end = text.rfind(b"\n")
    while end >= 0 and text.count(b'"', 0, end) % 2:
        end = text.rfind(b"\n", 0, end)
    return end + 1


def is_dataset(table: Path) -> bool:
    """Whether a table is a dataset and not a CSV file, by its name."""
    return table.suffix == SUFFIX


def is_own_dataset(folder: Path) -> bool:
    """Whether a folder has no other files than those of a dataset."""
    return folder.is_dir() and all(re.fullmatch(rf"part-\d+\{SUFFIX}", file.name) for file in folder.iterdir())


def dataset_columns(folder: Path) -> tuple[str, ...]:
    """Names of the columns of a dataset."""
    with _reading(folder) as pa:
        return tuple(pa.parquet.read_schema(_parts(folder)[0]).names)


def dataset_batches(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The rows of a dataset in order, as pyarrow.RecordBatch of at most BATCH_ROWS rows; columns: only these.

    Raises DamageError where a file is missing or damaged, and UsageError without pyarrow.
    """
    with _reading(folder) as pa:
        wanted = list(columns or pa.parquet.read_schema(_parts(folder)[0]).names)
        for part in _parts(folder):
            with pa.parquet.ParquetFile(part) as file:
                if not file.metadata.num_rows:  # without any nucleus: a batch that has the columns
                    yield pa.RecordBatch.from_pylist([], pa.schema([file.schema_arrow.field(name) for name in wanted]))
                yield from file.iter_batches(BATCH_ROWS, columns=wanted)


def dataset_rows(folder: Path) -> Iterator[list[str]]:
    """The names of the columns, and then each row as text, as a reader of nuclei.csv gives it.

    Numbers have up to 17 significant digits; empty text is what is not known.
    """
    yield list(dataset_columns(folder))
    text = pyarrow(str(folder)).string()
    for batch in dataset_batches(folder):
        columns = (column.cast(text).fill_null("").to_pylist() for column in batch.columns)
        yield from map(list, zip(*columns, strict=True))


def _parts(folder: Path) -> list[Path]:
    parts = sorted(folder.glob(f"part-*{SUFFIX}"))
    if not parts or parts[-1].name != f"part-{len(parts) - 1:05d}{SUFFIX}":
        raise DamageError(f"{folder}: files are missing in it; `nucseg-batch finish` rewrites it.")
    return parts


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[Any]:
    pa = pyarrow(str(folder))
    try:
        yield pa
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, DamageError):
            raise
        raise DamageError(
            f"{folder}: it is damaged ({type(error).__name__}); delete it, and `nucseg-batch finish` rewrites it."
        ) from error
