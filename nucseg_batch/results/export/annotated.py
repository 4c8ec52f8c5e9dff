"""Nuclei as AnnData: measurements in X, their units and definitions in var, what names a nucleus in obs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import anndata
import numpy as np
import pandas
from numpy.typing import NDArray

from nucseg_batch.columns import Column, column_named, is_measurement, names
from nucseg_batch.errors import DamageError
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow


def measured_columns(header: Sequence[str]) -> list[Column]:
    """Columns of nuclei.csv that are measurements: all but keys, coordinates, `confidence` and text."""
    return [column_named(name) for name in header if is_measurement(name) and name != "confidence"]


class AnnotatedNuclei:
    """The nuclei of planes, taken plane by plane.

    Args:
        header: Columns of nuclei.csv.
        values: Array to be filled, float64 of shape (nuclei, `measured_columns(header)`): it becomes X.
        well_of: Says plate and well of a plane; empty texts where not known.
    """

    def __init__(
        self,
        header: Sequence[str],
        values: NDArray[np.float64],
        well_of: Callable[[PlaneRow], tuple[str, str]] = lambda row: ("", ""),
    ) -> None:
        self._columns = measured_columns(header)
        self._values = values
        self._well_of = well_of
        self._spatial = np.empty((len(values), 2))
        self._labels = np.empty(len(values), np.int32)
        self._confidence = np.empty(len(values))
        self._planes: list[tuple[Any, ...]] = []
        self._counts: list[int] = []
        self._done = 0

    def add(self, row: PlaneRow, pieces: Iterable[PlaneNuclei]) -> None:
        """Takes the nuclei of a plane. Raises DamageError where there are others than images.csv says."""
        before = self._done
        for nuclei in pieces:
            self._check(row, self._done + len(nuclei) - before <= row.nuclei)
            here = slice(self._done, self._done + len(nuclei))
            for place, column in enumerate(self._columns):
                self._values[here, place] = nuclei[column.name]
            self._spatial[here, 0], self._spatial[here, 1] = nuclei["centroid-1"], nuclei["centroid-0"]
            self._labels[here], self._confidence[here] = nuclei.labels, nuclei["confidence"]
            self._done += len(nuclei)
        self._check(row, self._done - before == row.nuclei)
        if row.nuclei:  # squidpy fails for an image that is a category of obs and has no rows
            self._planes.append((row.key[0], row.t, row.z, *self._well_of(row), row.values.get("pixel_size")))
            self._counts.append(row.nuclei)

    def table(self, values: Any, about: Mapping[str, str]) -> anndata.AnnData:
        """All nuclei that were taken, with X as given: the array that was filled, or one that shows it."""
        planes = pandas.DataFrame(self._planes, columns=["image", "t", "z", "plate", "well", "pixel_size"])
        for name in ("t", "z"):
            planes[name] = planes[name].astype("Int32" if planes[name].hasnans else "int32")
        for name in ("image", "plate", "well"):
            planes[name] = pandas.Categorical(planes[name].replace("", None) if name != "image" else planes[name])
        planes["pixel_size"] = planes["pixel_size"].astype("float64")
        kept = planes.columns[planes.notna().any() | (planes.columns == "image")]
        obs = planes[kept].iloc[np.repeat(np.arange(len(planes)), self._counts)]
        obs = obs.assign(label=self._labels, confidence=self._confidence)
        obs.index = pandas.RangeIndex(self._done).astype(str)
        var = pandas.DataFrame(
            {
                "unit": [column.unit for column in self._columns],
                "definition": [column.definition for column in self._columns],
            },
            index=list(names(self._columns)),
        )
        uns = {"nucseg-batch": dict(about), "spatial_unit": "pixel"}
        return anndata.AnnData(values, obs, var, uns=uns, obsm={"spatial": self._spatial})

    @staticmethod
    def _check(row: PlaneRow, right: bool) -> None:
        if not right:
            raise DamageError(
                f"{row.name}: nuclei.csv has other nuclei than the {row.nuclei} of images.csv; "
                "`nucseg-batch finish` rewrites both."
            )
