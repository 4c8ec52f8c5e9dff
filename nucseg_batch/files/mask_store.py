"""The masks: a valid OME-Zarr 0.5 store of label images, written shard by shard.

A stack of images of one shape is the label image `<height>x<width>/labels/nuclei`: one uint32 array (i, y, x) with one
chunk for each image and one shard for each unit, so that 100 000 images are some hundred files. Axis i is of a custom
type, which NGFF allows. An image without nuclei has no chunk: that a unit was done is said by its marker, never by the
store. Where the pixels are asked for, too, they lie beside the masks (see `pixel_store`).
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from ome_zarr_models.common.coordinate_transformations import VectorScale
from ome_zarr_models.common.image_label_types import Color
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.image_label_types import Label
from ome_zarr_models.v05.labels import LabelsAttrs
from ome_zarr_models.v05.multiscales import Dataset, Multiscale
from zarr.codecs import ZstdCodec

from nucseg_batch.errors import InputMissingError
from nucseg_batch.files.names import file_name
from nucseg_batch.files.pixel_store import create_pixels, pixel_shard
from nucseg_batch.plan import Plan, Stack, Unit

LABEL_NAME = "nuclei"
OWNER = "nucseg-batch"
"""Attribute of the root group that marks a store as ours."""
ZSTD_LEVEL = 1
"""Masks are runs of equal numbers: higher levels cost time and save little."""


def label_path(stack: Stack) -> str:
    """Path of a stack's label group in the store."""
    return f"{stack.name}/labels/{LABEL_NAME}"


def create_store(path: Path, plan: Plan, *, with_images: bool = False) -> None:
    """Makes the store with all groups, metadata and (still empty) arrays of a plan, but for those already there.

    `with_images` makes arrays for the pixels, too.
    """
    root = zarr.open_group(path, mode="a", zarr_format=3, attributes={OWNER: {"layout": 1}})
    for stack in plan.stacks:
        if f"{label_path(stack)}/0" not in root:
            _create_stack(root, stack)
        if with_images:
            create_pixels(root, stack)


def _create_stack(root: zarr.Group, stack: Stack) -> None:
    labels = LabelsAttrs(version="0.5", labels=[LABEL_NAME])
    labels_group = root.require_group(f"{stack.name}/labels")
    labels_group.update_attributes({"ome": labels.model_dump(exclude_none=True)})
    scale = VectorScale(type="scale", scale=[1.0, 1.0, 1.0])
    multiscale = Multiscale(
        name=LABEL_NAME,
        axes=[Axis(name="i", type="image"), Axis(name="y", type="space"), Axis(name="x", type="space")],
        datasets=(Dataset(path="0", coordinateTransformations=(scale,)),),
    )
    background = Color.model_validate({"label-value": 0, "rgba": (0, 0, 0, 0)})
    image_label = ImageLabelAttrs.model_validate(
        {"version": "0.5", "multiscales": [multiscale], "image-label": Label(colors=(background,))}
    )
    attributes = {"ome": image_label.model_dump(exclude_none=True, by_alias=True, mode="json")}
    group = root.require_group(label_path(stack))
    group.update_attributes(attributes)
    count, height, width = len(stack.images), stack.height, stack.width
    group.create_array(
        "0",
        shape=(count, height, width),
        chunks=(1, height, width),
        shards=(stack.shard_length, height, width),
        dtype="uint32",
        fill_value=0,
        compressors=[ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
        dimension_names=["i", "y", "x"],
    )


class MaskWriter:
    """Writes the shards of one store; the only code that writes masks and pixels."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = zarr.open_group(path, mode="r+", zarr_format=3)

    def write(self, unit: Unit, masks: NDArray[np.uint32], pixels: NDArray[Any] | None = None) -> int:
        """Writes a unit's masks, (images, height, width), as one whole shard that is on disk when this returns.

        `pixels`, as `pixel_store.empty_pixels` shapes them, become a shard of their own. Returns the size of the shards
        in bytes; masks without a nucleus need no file, and an earlier one is deleted.
        """
        if pixels is not None:
            self._put(f"{unit.stack.name}/0", pixel_shard(self._path, unit), unit, pixels)
        self._put(f"{label_path(unit.stack)}/0", _shard(self._path, unit), unit, masks)
        return shard_bytes(self._path, unit)

    def _put(self, name: str, shard: Path, unit: Unit, values: NDArray[Any]) -> None:
        array = self._root[name]
        assert isinstance(array, zarr.Array)
        array[unit.start : unit.start + len(unit.images)] = values
        if shard.exists():
            for place in (shard, *shard.parents[: array.ndim]):
                sync(place)


def shard_bytes(store: Path, unit: Unit) -> int:
    """Size of a unit's shards, of its masks and its pixels together; 0 where there is none."""
    return _size(_shard(store, unit)) + _size(pixel_shard(store, unit))


def masks_changed_ns(store: Path, unit: Unit) -> int:
    """When the file of a unit's masks was last written, in nanoseconds; 0 where there is none."""
    try:
        return _shard(store, unit).stat().st_mtime_ns
    except OSError:
        return 0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _shard(store: Path, unit: Unit) -> Path:
    return store / label_path(unit.stack) / "0" / "c" / str(unit.number) / "0" / "0"


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk and not only in the system's memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_ours(path: Path) -> bool:
    """Whether there is a store at `path` that nucseg-batch made."""
    try:
        return OWNER in zarr.open_group(path, mode="r", zarr_format=3).attrs
    except (OSError, ValueError, KeyError):
        return False


def remove_store(path: Path) -> None:
    """Deletes a store of ours."""
    shutil.rmtree(path)


class Masks(Mapping[str, NDArray[np.uint32]]):
    """The masks of a finished run by image: `open_masks("out.zarr")["plate1/A01.tif"]` is a (height, width) array.

    Iterates over the images that have a mask, in order of their names. Images are read when they are asked for.
    """

    def __init__(self, store: Path) -> None:
        self._places = mask_places(store)
        self._root = zarr.open_group(store, mode="r", zarr_format=3)

    def __getitem__(self, image: str) -> NDArray[np.uint32]:
        mask, index = self._places[image]
        array = self._root[f"{mask}/0"]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[index])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_masks(store: str | os.PathLike[str]) -> Masks:
    """Opens the masks of a finished run; raises InputMissingError where the store or its images.csv is missing."""
    return Masks(Path(store))


def mask_places(store: Path) -> dict[str, tuple[str, int]]:
    """Label group and place on axis i of each image that has a mask, by image, as the table of images has them.

    Raises InputMissingError where the store or the table is missing.
    """
    table = images_csv(store)
    if not store.is_dir() or not table.is_file():
        raise InputMissingError(f"{store}: a finished run has this store and {table.name} beside it; one is missing.")
    with open(table, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    return {file_name(row["image"]): (row["mask"], int(row["index"])) for row in rows}


def images_csv(store: Path) -> Path:
    """The table of images that belongs to a store."""
    return store.with_suffix(".images.csv")
