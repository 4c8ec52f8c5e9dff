"""Measurements as feature tables of ngio and Fractal: for each image an OME-Zarr of its masks with a table `nuclei`.

Images of plates and other OME-Zarr stores go into one store, `ngio.zarr`, and have their place there, below plate and
well. Of files each becomes a store by itself, `ngio/<path of the image>.zarr`, because ngio knows no axis along which a
stack of images could lie. Masks are copied at full resolution; pixels stay where they are.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from nucseg_batch.columns import NUCLEUS_KEY, names
from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.files.masks.ngff import (
    Calibration,
    axes_of,
    image_attributes,
    label_attributes,
    labels_attributes,
    level_name,
    scale_of,
)
from nucseg_batch.files.masks.nodes import (
    ArrayLayout,
    put_array,
    put_group,
    read_attributes,
    write_attributes,
)
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import ShardGrid
from nucseg_batch.results.export.folder import whole_folder
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.spacing import MICROMETRE

STORE = "ngio.zarr"
"""Name of the store in the folder of an export."""
TABLE = "nuclei"
"""Name of the tables."""
BACKEND = "parquet"
"""How ngio keeps the tables: one file each, where its default has some twenty."""
SHARD = 8
"""Chunks on each side of the shards of a large plane."""


class _Image:
    """The masks and the table of one image, in a folder that is not its own yet."""

    def __init__(self, folder: Path, task: ExportTask) -> None:
        self._folder = folder
        self._task = task
        self._columns: dict[str, list[np.ndarray[Any, Any]]] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def add(self, plane: LabelledPlane) -> None:
        """Writes the label images of a plane and takes its measurements."""
        self._arrays = self._arrays or self._begin(plane)
        places = {"t": plane.row.time, "z": plane.row.depth}
        before = tuple(places[axis] for axis in self._axes[:-2])
        height, width = plane.row.shape
        side = SHARD * plane.chunk or max(height, width)
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = slice(top, min(top + side, height)), slice(left, min(left + side, width))
                region: tuple[int | slice, ...] = (*before, *window)
                for label, array in self._arrays.items():
                    array[region] = plane.of(label).read(*window)
        self._take(plane)

    def finish(self) -> None:
        """Writes the table, by ngio."""
        import ngio
        import pandas

        table = pandas.DataFrame({name: np.concatenate(parts) for name, parts in self._columns.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries below ngio say of each other is not for our users
            features = ngio.tables.FeatureTable(table.set_index("label"), reference_label=NUCLEI_LABEL)
            ngio.open_ome_zarr_container(str(self._folder)).add_table(TABLE, features, backend=BACKEND)

    def _begin(self, plane: LabelledPlane) -> dict[str, zarr.Array[Any]]:
        """Makes the group of the image and the arrays of its labels, which are returned by name."""
        attributes = read_attributes(plane.run.store / plane.row.mask)
        self._axes = axes_of(attributes).replace("i", "")
        frame = _frame(attributes, self._task)
        counts = {axis: len({getattr(row, name) for row in self._task.rows}) for axis, name in _PLACES.items()}
        height, width = plane.row.shape
        before = tuple(counts[axis] for axis in self._axes[:-2])
        chunk = plane.chunk
        sides = (chunk, chunk) if chunk else (height, width)
        shards = tuple(min(SHARD, -(-side // chunk)) * chunk for side in (height, width)) if chunk else sides
        ones = (1,) * len(before)
        grid = ShardGrid(self._axes, (*before, height, width), (*ones, *sides), (*ones, *shards))
        layout = ArrayLayout(grid, "uint32")
        name, labels = self._task.path.name, plane.run.labels_of(self._task.rows)
        own = image_attributes(name, self._axes, frame, "labels")
        put_group(self._folder, {**own, "nucseg-batch-export": dict(self._task.about)})
        put_group(self._folder / "labels", labels_attributes(labels))
        arrays = {}
        for name in labels:
            label = self._folder / "labels" / name
            put_group(label, label_attributes(self._axes, frame, (), source=True))
            put_array(label / level_name(0), layout)
            arrays[name] = open_array(label / level_name(0), mode="r+")
        return arrays

    def _take(self, plane: LabelledPlane) -> None:
        nuclei = plane.nuclei
        columns: dict[str, Any] = {"label": nuclei.labels}
        for name, place in (("t", plane.row.t), ("z", plane.row.z)):
            if place is not None:
                columns[name] = np.full(len(nuclei), place)
        for name in nuclei.columns:
            if name not in names(NUCLEUS_KEY):
                with contextlib.suppress(ValueError):
                    columns[name] = nuclei[name]
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)


_PLACES = {"t": "time", "z": "depth"}


@contextlib.contextmanager
def open_ngio(task: ExportTask) -> Iterator[_Image]:
    """Begins the image group of an image, which gets its place when it is whole."""
    with whole_folder(task.path) as making:
        image = _Image(making, task)
        yield image
        image.finish()


def list_images(run: FinishedRun, folder: Path, groups: Iterable[str]) -> None:
    """Makes the groups above the images: plates and wells list those of their images that were exported."""
    for name in sorted(groups):
        group = folder / STORE / name
        attributes = _listed(read_attributes(run.store / name), group)
        if (group / "zarr.json").exists():
            write_attributes(group, attributes)
        else:
            put_group(group, attributes)


def _listed(attributes: dict[str, Any], group: Path) -> dict[str, Any]:
    """The attributes of a plate, well or collection, in version 0.5, less what was not exported."""
    given = ome_of(attributes)
    ome: dict[str, Any] = {}
    for kind, members in (("plate", "wells"), ("well", "images")):
        if isinstance(given.get(kind), dict):
            value = {name: item for name, item in given[kind].items() if name != "version"}
            value[members] = [item for item in value.get(members, ()) if (group / str(item["path"])).is_dir()]
            ome[kind] = value
    return {"ome": {"version": "0.5", **ome}} if ome else {}


def _frame(attributes: dict[str, Any], task: ExportTask) -> Calibration:
    scale, units = scale_of(attributes)
    scale.pop("i", None)
    units.pop("i", None)
    if task.spacing.pixel is not None and "x" not in units:
        scale |= dict.fromkeys("yx", task.spacing.pixel)
        units |= dict.fromkeys("yx", MICROMETRE)
    return Calibration(scale, {}, units)
