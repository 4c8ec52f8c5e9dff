"""The tables of a run as data frames of pandas or polars, whichever is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from nucseg_batch.columns import TYPES
from nucseg_batch.errors import InputMissingError, UsageError
from nucseg_batch.files.csv_rows import table_header
from nucseg_batch.files.run.dataset import dataset_batches, dataset_columns, is_dataset, pyarrow
from nucseg_batch.files.run.track_table import TRACKS_COLUMNS
from nucseg_batch.files.run.volume_table import VOLUMES_MEASURED
from nucseg_batch.files.run.wells import WELLS, is_wells_table
from nucseg_batch.files.run_layout import RunLayout, check_is_store
from nucseg_batch.results.run import matches

Library = Literal["pandas", "polars"]
LIBRARIES: tuple[Library, ...] = ("pandas", "polars")
CHUNK = 500_000
"""Rows that are read at once."""
KINDS = {**TYPES, **{column.name: column.type for column in (*WELLS, *VOLUMES_MEASURED, *TRACKS_COLUMNS)}}
"""Type of each column by its name; those of channels and the statistics of wells are real numbers."""
PANDAS_TYPES = {"string": "string", "int32": "Int64", "int64": "Int64"}
"""What pandas is to make of columns that are no real numbers; these it recognises."""


def read_nuclei(
    store: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    pattern: str | None = None,
    library: Library | None = None,
) -> Any:
    """Reads the nuclei table of a run as a data frame with one row per nucleus; docs/output.md defines the columns.

    Args:
        store: OUT.zarr of the run.
        columns: Only these columns; None for all.
        pattern: Only images whose name matches this glob pattern, or whose path matches if it has a `/`.
        library: `pandas` or `polars`; None for the first of them that is installed.

    Returns:
        A data frame of that library.

    Raises:
        InputMissingError: The table is missing, or the library is not installed.
        DamageError: A file of a Parquet table is missing or damaged.
        UsageError: The table has no such column.
    """
    return _read(store, "nuclei", columns, pattern, library)


def read_images(
    store: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    pattern: str | None = None,
    library: Library | None = None,
) -> Any:
    """Reads the images table of a run as a data frame with one row per plane: per image, time point and z-slice.

    Args:
        store: As for `read_nuclei`.
        columns: As for `read_nuclei`.
        pattern: As for `read_nuclei`.
        library: As for `read_nuclei`.

    Returns:
        A data frame of that library.

    Raises:
        InputMissingError: As for `read_nuclei`.
        UsageError: As for `read_nuclei`.
    """
    return _read(store, "images", columns, pattern, library)


def read_wells(
    store: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    library: Library | None = None,
) -> Any:
    """Reads the wells table of a run over plates as a data frame with one row per plate, well and time point.

    Args:
        store: As for `read_nuclei`.
        columns: As for `read_nuclei`.
        library: As for `read_nuclei`.

    Returns:
        A data frame of that library. `row`, `column` and `well` are text; `t` is missing without time points.

    Raises:
        InputMissingError: As for `read_nuclei`, and where the images are on no plate.
        UsageError: As for `read_nuclei`.
    """
    check_is_store(Path(store))
    path = RunLayout(Path(store)).wells
    if not is_wells_table(path):
        raise InputMissingError(
            f"{store}: its table {path.name} is missing; `nucseg-batch wells` writes it if the images are on a plate."
        )
    return _frame(path, columns, None, library)


def read_volumes(
    store: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    pattern: str | None = None,
    library: Library | None = None,
) -> Any:
    """Reads the volumes table of a run with `--link z` as a data frame with one row per nucleus of a stack.

    Args:
        store: As for `read_nuclei`.
        columns: As for `read_nuclei`.
        pattern: As for `read_nuclei`.
        library: As for `read_nuclei`.

    Returns:
        A data frame of that library. `label` is the label in `open_masks(store, label="volumes")`.

    Raises:
        InputMissingError: As for `read_nuclei`, and of a run without `--link z`.
        UsageError: As for `read_nuclei`.
    """
    return _linked(store, RunLayout(Path(store)).volumes_csv, "z", columns, pattern, library)


def read_tracks(
    store: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    pattern: str | None = None,
    library: Library | None = None,
) -> Any:
    """Reads the tracks table of a run with `--link t` as a data frame with one row per nucleus and time point.

    Args:
        store: As for `read_nuclei`.
        columns: As for `read_nuclei`.
        pattern: As for `read_nuclei`.
        library: As for `read_nuclei`.

    Returns:
        A data frame of that library. A join by `image`, `t`, `z` and `label` adds the tracks to `read_nuclei(store)`;
        `parent_track_id` is missing for tracks that do not come from a division.

    Raises:
        InputMissingError: As for `read_nuclei`, and of a run without `--link t`.
        UsageError: As for `read_nuclei`.
    """
    return _linked(store, RunLayout(Path(store)).tracks_csv, "t", columns, pattern, library)


def _linked(
    store: str | os.PathLike[str],
    path: Path,
    link: str,
    columns: Sequence[str] | None,
    pattern: str | None,
    library: Library | None,
) -> Any:
    check_is_store(Path(store))
    if not path.is_file():
        raise InputMissingError(
            f"{store}: its table {path.name} is missing; `nucseg-batch segment --link {link}` makes it."
        )
    return _frame(path, columns, pattern, library)


def _read(
    store: str | os.PathLike[str],
    name: str,
    columns: Sequence[str] | None,
    pattern: str | None,
    library: Library | None,
) -> Any:
    check_is_store(Path(store))
    path = RunLayout.found(Path(store)).tables[name]
    if not path.exists():
        raise InputMissingError(f"{store}: its table {path.name} is missing; give the OUT.zarr of a finished run.")
    return _frame(path, columns, pattern, library)


def _frame(path: Path, columns: Sequence[str] | None, pattern: str | None, library: Library | None) -> Any:
    header = dataset_columns(path) if is_dataset(path) else table_header(path)
    unknown = [column for column in columns or () if column not in header]
    if unknown:
        raise UsageError(f"{path.name} has no column {unknown[0]}; it has {', '.join(header)}.")
    wanted = list(header if columns is None else columns)
    read = {"pandas": _pandas, "polars": _polars}[_installed(library)]
    return read(path, header, wanted, pattern)


def _installed(library: Library | None) -> Library:
    if library is not None and library not in LIBRARIES:
        raise UsageError(f"library must be one of {', '.join(LIBRARIES)}, but is {library!r}.")
    for name in LIBRARIES if library is None else (library,):
        if importlib.util.find_spec(name) is not None:
            return name
    wanted = "pandas or polars" if library is None else library
    raise InputMissingError(f"{wanted} is not installed; `pip install {library or 'pandas'}` first.")


def _pandas(path: Path, header: Sequence[str], wanted: list[str], pattern: str | None) -> Any:
    pandas = importlib.import_module("pandas")
    if is_dataset(path):
        return _pandas_of_dataset(pandas, path, wanted, pattern)
    kinds = {name: PANDAS_TYPES[KINDS[name]] for name in header if KINDS.get(name) in PANDAS_TYPES}
    read = wanted if pattern is None else list(dict.fromkeys([*wanted, "image"]))
    options = {"usecols": read, "dtype": kinds, "encoding": "utf-8", "keep_default_na": False, "na_values": [""]}
    if pattern is None:
        return pandas.read_csv(path, **options)[wanted]
    with pandas.read_csv(path, chunksize=CHUNK, **options) as parts:
        kept = [part[[matches(image, pattern) for image in part["image"]]] for part in parts]
    return pandas.concat(kept, ignore_index=True)[wanted]


def _pandas_of_dataset(pandas: Any, path: Path, wanted: list[str], pattern: str | None) -> Any:
    pa = pyarrow(str(path))
    types = {pa.string(): pandas.StringDtype(), pa.int32(): pandas.Int64Dtype(), pa.int64(): pandas.Int64Dtype()}
    parts = []
    for batch in dataset_batches(path, list(dict.fromkeys([*wanted, "image"]))):
        part = batch.to_pandas(types_mapper=types.get)
        parts.append(part if pattern is None else part[[matches(image, pattern) for image in part["image"]]])
    return pandas.concat(parts, ignore_index=True)[wanted]


def _polars(path: Path, header: Sequence[str], wanted: list[str], pattern: str | None) -> Any:
    polars = importlib.import_module("polars")
    types = {"string": polars.String, "int32": polars.Int64, "int64": polars.Int64, "float64": polars.Float64}
    kinds = {name: types[KINDS.get(name, "float64")] for name in header}
    if is_dataset(path):
        rows = polars.scan_parquet(path / "part-*.parquet").cast(kinds)
    else:
        rows = polars.scan_csv(path, schema=kinds)
    if pattern is not None:
        names = polars.col("image").map_elements(lambda image: matches(image, pattern), return_dtype=polars.Boolean)
        rows = rows.filter(names)
    return rows.select(wanted).collect()
