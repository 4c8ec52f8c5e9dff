"""The nuclei of a run as one AnnData file, `nuclei.h5ad`, for scanpy and squidpy.

Measurements pass through a file that has no name, so that memory holds only what AnnData's readers hold, too: obs.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator

import dask.array as da
import numpy as np

from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.results.export.annotated import AnnotatedNuclei, measured_columns
from nucseg_batch.results.export.task import FormatRefusal, RunExport
from nucseg_batch.results.export.wells import WellNames
from nucseg_batch.results.tables import PlaneRow

FILE = "nuclei.h5ad"
"""Name of the file."""
MOST_NUCLEI = 10_000_000
"""Nuclei that a file may have."""
OBS_BYTES = 300
"""What obs takes of each nucleus: memory while it is written, and at most that on disk."""
ROWS = 2**17
"""Rows of X that are written at once."""


def write_h5ad(whole: RunExport) -> list[str]:
    """Writes `nuclei.h5ad`; refuses more than MOST_NUCLEI."""
    count = sum(row.nuclei for row in _rows(whole))
    if count > MOST_NUCLEI:
        raise FormatRefusal(
            f"{count} nuclei: AnnData keeps a table of all in memory. Export at most {MOST_NUCLEI} at once "
            "(--pattern), or parquet."
        )
    header = whole.run.nuclei_columns
    shape = count, len(measured_columns(header))
    size = 8 * math.prod(shape)
    with whole_file(whole.folder / FILE) as file, tempfile.TemporaryFile(dir=whole.folder) as space:
        os.posix_fallocate(file.fileno(), 0, size + OBS_BYTES * count + 2**20)  # HDF5 crashes on a full disk
        values = np.empty((0, shape[1]))
        if count:
            os.posix_fallocate(space.fileno(), 0, size)  # a page that has no room on disk would be a signal
            values = np.memmap(space, np.float64, "r+", shape=shape)
        nuclei = AnnotatedNuclei(header, values, WellNames(whole.run).of)
        for done, (row, pieces) in enumerate(whole.run.with_nuclei_in_pieces(_rows(whole)), start=1):
            nuclei.add(row, pieces)
            whole.progress(done, whole.planes)
        lazy = da.from_array(values, chunks=(ROWS, -1)) if count else values
        nuclei.table(lazy, whole.about).write_h5ad(file.name, compression="gzip")
    return []


def _rows(whole: RunExport) -> Iterator[PlaneRow]:
    return (row for row in whole.run.planes(whole.pattern) if row.segmented)
