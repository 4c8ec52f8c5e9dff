"""Masks and measurements as SpatialData: for each image a store with labels, and a table that annotates the nuclei.

Labels are an element for each plane, because labels of different planes are unrelated.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas
import spatialdata
from numpy.typing import NDArray
from spatialdata.models import Labels2DModel, TableModel
from spatialdata.transformations import Identity, Scale

from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.results.export.annotated import AnnotatedNuclei, measured_columns
from nucseg_batch.results.export.folder import whole_folder
from nucseg_batch.results.export.names import plane_suffix
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask

TABLE = "table"
"""Name of the table, as SpatialData names a single one."""
REGION = "region"
"""Column of the table that names the labels."""


class _Store:
    """The planes of one image; what is large of them is read when the store is written."""

    def __init__(self, task: ExportTask) -> None:
        self._task = task
        self._count = sum(row.nuclei for row in task.good)
        self._labels: dict[str, Any] = {}
        self._regions: list[str] = []
        self._nuclei: AnnotatedNuclei | None = None

    def add(self, plane: LabelledPlane) -> None:
        """Takes a plane."""
        header = plane.run.nuclei_columns
        if self._nuclei is None:
            self._values = np.empty((self._count, len(measured_columns(header))))
            self._nuclei = AnnotatedNuclei(header, self._values, self._task.well_of)
        self._nuclei.add(plane.row, [plane.nuclei])
        suffix = plane_suffix(plane.row.t, plane.row.z)
        self._regions.append(NUCLEI_LABEL + suffix)
        for label in plane.run.labels:
            mask, place = _mask(plane.of(label)), {"global": self._scale}
            self._labels[label + suffix] = Labels2DModel.parse(mask, dims=("y", "x"), transformations=place)

    def save(self, path: str) -> None:
        """Writes the store."""
        assert self._nuclei is not None
        table = self._nuclei.table(self._values, self._task.about)
        regions = self._regions
        counts = [row.nuclei for row in self._task.good]
        table.obs[REGION] = pandas.Categorical(np.repeat(regions, counts))
        annotated = [region for region, count in zip(regions, counts, strict=True) if count]
        tables = {TABLE: TableModel.parse(table, annotated, REGION, "label")} if annotated else {}
        about = {"nucseg-batch-export": dict(self._task.about)}
        with dask.config.set(scheduler="synchronous"):  # threads would write on after a failure
            spatialdata.SpatialData(labels=self._labels, tables=tables, attrs=about).write(path)

    @property
    def _scale(self) -> Any:
        pixel = self._task.spacing.pixel
        return Identity() if pixel is None else Scale([pixel, pixel], axes=("y", "x"))


class _Lazy:
    """A large mask as dask reads it, window by window."""

    ndim, dtype = 2, np.dtype(np.uint32)

    def __init__(self, plane: LabelledPlane) -> None:
        self._plane = plane
        self.shape = plane.row.shape

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.uint32]:
        return self._plane.read(*window)


def _mask(plane: LabelledPlane) -> da.Array:
    """A plane's mask: a small one is read at once, a large one chunk by chunk."""
    if not plane.large:
        return da.from_array(plane.mask, chunks=-1)
    return da.from_array(_Lazy(plane), chunks=plane.chunk, lock=True, asarray=False)


@contextlib.contextmanager
def open_spatialdata(task: ExportTask) -> Iterator[_Store]:
    """Begins the store of an image, which gets its place when it is whole."""
    store = _Store(task)
    with whole_folder(task.path) as making, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries below spatialdata say of each other is not for our users
        yield store
        store.save(str(making))
