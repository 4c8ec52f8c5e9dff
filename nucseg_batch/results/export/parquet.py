"""The tables as Parquet: the columns and rows of the tables of nuclei and images, with types, compressed.

pyarrow reads and writes blocks of rows, so that memory does not grow with the tables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from nucseg_batch.columns import TYPES
from nucseg_batch.errors import DamageError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_rows, open_table
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run.dataset import dataset_batches, is_dataset
from nucseg_batch.results.export.task import RunExport
from nucseg_batch.results.run import matches

GROUP_ROWS = 2**18
"""Rows of a row group."""
BLOCK = 2**24
"""Bytes of CSV that are read at once."""


def write_parquet(whole: RunExport) -> list[str]:
    """Writes `images.parquet` and `nuclei.parquet`."""
    for name in ("images", "nuclei"):
        _convert(whole.run.tables[name], whole.folder / f"{name}.parquet", whole, whole.progress)
    return []


def _convert(table: Path, to: Path, whole: RunExport, progress: Callable[[int, int], None]) -> None:
    """One table, of the images that match."""
    schema = _schema(table).with_metadata(dict(whole.about))
    size = sum(file.stat().st_size for file in (table.iterdir() if is_dataset(table) else [table]))
    try:
        with whole_file(to) as file, _reader(table, schema) as reader:
            writer = pa.parquet.ParquetWriter(file, schema, compression="zstd")
            waiting: list[Any] = []
            done = 0
            for batch in reader:
                done += batch.nbytes
                progress(min(done, size), size)
                batch = batch.replace_schema_metadata(schema.metadata)
                waiting.append(batch if whole.pattern is None else batch.filter(_matching(batch, whole.pattern)))
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    _write(writer, waiting, schema)
            _write(writer, waiting, schema)
            writer.close()
    except pa.ArrowInvalid as error:
        raise DamageError(
            f"{table}: it cannot be read as nucseg-batch wrote it ({error}); `nucseg-batch finish` rewrites it."
        ) from error


def _write(writer: Any, waiting: list[Any], schema: Any) -> None:
    writer.write_table(pa.Table.from_batches(waiting, schema))
    waiting.clear()


def _reader(table: Path, schema: Any) -> Any:
    """A context of batches of rows."""
    if is_dataset(table):
        return contextlib.nullcontext(dataset_batches(table))
    options = pa.csv.ConvertOptions(column_types=schema, null_values=[""], strings_can_be_null=True)
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    return pa.csv.open_csv(table, pa.csv.ReadOptions(block_size=BLOCK), parsing, options)


def _schema(table: Path) -> Any:
    """Types by name, and by the first row for columns that are not known; of a dataset those that it has."""
    if is_dataset(table):
        return next(dataset_batches(table)).schema
    with open_table(table) as file:
        rows = csv_rows(file)
        header = next(rows, [])
        first = next(rows, [""] * len(header))
    return pa.schema([(name, _type(name, cell)) for name, cell in zip(header, first, strict=True)])


def _type(name: str, cell: str) -> Any:
    if name in TYPES:
        return pa.type_for_alias(TYPES[name])
    try:
        float(cell or 0)
    except ValueError:
        return pa.string()
    return pa.float64()


def _matching(batch: Any, pattern: str) -> Any:
    """Which rows are of images that match; each name is looked at once."""
    names = batch.column("image").dictionary_encode()
    fits = pa.array([matches(file_name(name), pattern) for name in names.dictionary.to_pylist()], pa.bool_())
    return fits.take(names.indices)
