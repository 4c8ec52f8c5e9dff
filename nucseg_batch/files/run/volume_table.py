"""The table of volumes: its columns, its rows, and the whole of it from the rows of all stacks."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import Column, channel_columns, names
from nucseg_batch.files.csv_rows import csv_row, csv_rows
from nucseg_batch.files.run.linked_table import write_linked_table
from nucseg_batch.files.run.stack_records import StackRecords
from nucseg_batch.files.run.tables import NucleiTable, column_cells
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import StackGroup

_whole = functools.partial(Column, type="int32", skimage=True)
_place = functools.partial(Column, unit="px", skimage=True)
_intensity = functools.partial(Column, unit="of the image", group="intensity", per_channel=True)

VOLUMES_KEY = (
    Column("image", "name of the image, as in images.csv", empty="never", type="string"),
    Column("t", "time point, as in images.csv", "from 0", "no such axis", type="int32"),
)
"""What names a stack."""
VOLUMES_MEASURED = (
    _whole(
        "label",
        "label of the nucleus in `labels/volumes`, 1 to n in each stack: ordered by the first slice, and in it by the "
        "label in `labels/nuclei`",
    ),
    Column("volume", "number of voxels, the sum of `area` of its sections", "voxels", type="int64"),
    Column(
        "volume_um3",
        "`volume` x pixel_size² x distance of slices, from `--z-step` or the file",
        "µm³",
        "pixel size or distance of slices unknown",
    ),
    Column("slices", "slices in which it has pixels", type="int32"),
    _whole("bbox-0", "first slice of the bounding box, counted in the array of masks", "slices"),
    _place("bbox-1", "first row", type="int32"),
    _place("bbox-2", "first column", type="int32"),
    _whole("bbox-3", "slice after the last one", "slices"),
    _place("bbox-4", "row after the last one", type="int32"),
    _place("bbox-5", "column after the last one", type="int32"),
    Column("centroid-0", "mean slice of its voxels, counted in the array of masks", "slices", skimage=True),
    _place("centroid-1", "mean row"),
    _place("centroid-2", "mean column"),
    _intensity("intensity_mean", "mean of its voxels in the channel with the nuclei"),
    _intensity("intensity_min", "lowest value"),
    _intensity("intensity_max", "highest value"),
    _intensity("intensity_std", "standard deviation (divided by n)"),
    Column("confidence", "mean of `confidence` of its sections, weighted by their areas", "0 to 1"),
)
"""Columns of a volume, after those of its stack."""
_SECTION = ("label", "area", "bbox-0", "bbox-1", "bbox-2", "bbox-3", "centroid-0", "centroid-1", "confidence")
"""Columns of nuclei.csv that volumes are computed from, besides those of intensities."""


@dataclass(frozen=True)
class VolumeTable:
    """The table of volumes of a run, computed from its table of nuclei."""

    nuclei: NucleiTable
    """The columns of nuclei.csv."""

    @functools.cached_property
    def columns(self) -> tuple[Column, ...]:
        """All columns."""
        return (*VOLUMES_KEY, *self._values)

    @functools.cached_property
    def intensities(self) -> tuple[str, ...]:
        """How the names of columns of each channel end: "" for that of the nuclei, and `-<channel>`."""
        return ("", *(f"-{channel}" for channel in self.nuclei.channels))

    def sections(self, text: str) -> dict[str, NDArray[np.float64]]:
        """The columns of the nuclei of a plane that volumes need, (n,) each, from its rows of nuclei.csv.

        Raises ValueError or IndexError where the text is none of such rows.
        """
        known = names(self.nuclei.columns)
        wanted = (
            *_SECTION,
            *(f"intensity_{one}{end}" for end in self.intensities for one in ("mean", "min", "max", "std")),
        )
        places = [known.index(name) for name in wanted]
        cells = [[row[place] for place in places] for row in csv_rows(io.StringIO(text, newline=""))]
        values = np.array([[float(cell or "nan") for cell in row] for row in cells], np.float64)
        return dict(zip(wanted, values.reshape(-1, len(wanted)).T, strict=True))

    def text(
        self, group: StackGroup, place: tuple[int, ...], measures: Mapping[str, NDArray[Any]], voxel: float | None
    ) -> str:
        """Rows of volumes.csv of a stack; voxel: of what volume in µm³ a voxel is, None where that is not known."""
        if voxel is not None:
            measures = {**measures, "volume_um3": measures["volume"] * voxel}
        count = int(measures["label"].size)
        cells = [column_cells(measures[one.name]) if one.name in measures else [""] * count for one in self._values]
        start = csv_row((group.image(place).key, group.time(place)))
        return "".join(f"{start},{','.join(row)}\n" for row in zip(*cells, strict=True))

    @functools.cached_property
    def _values(self) -> tuple[Column, ...]:
        return (*VOLUMES_MEASURED, *channel_columns(self.nuclei.channels, VOLUMES_MEASURED))


def write_volumes(store: Path, groups: Iterable[StackGroup], records: StackRecords, table: VolumeTable) -> int:
    """Writes volumes.csv from the rows of all stacks that are joined, by image and time; returns how many there are."""
    return write_linked_table(RunLayout(store).volumes_csv, table.columns, groups, records, StackGroup.time)
