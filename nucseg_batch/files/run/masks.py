"""The masks of a finished run by image: the table of images says where in the store each lies."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.errors import DamageError, InputMissingError
from nucseg_batch.files.csv_rows import csv_records, open_table
from nucseg_batch.files.masks.ngff import axes_of, level_name
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run.written import WrittenMasks, not_done
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import PlaneStatus


class Masks(Mapping[str, NDArray[np.uint32]]):
    """The masks of a finished run by image: `open_masks("out.zarr")["plate1/A01.tif"]` is a (height, width) array.

    The mask of an image with time points or z-slices is (t, z, height, width), with the axes that it has; a plane that
    failed is empty there and `failed` in the images table. Iterates over the images with a mask in the order of their
    names. Masks are read on access. An image of which a plane is not done, or is being done again, raises
    UnfinishedError, since its zeros would read as an image without nuclei; so does an empty mask, as DamageError, of an
    image in which the table has nuclei.
    """

    def __init__(self, store: Path, label: str = NUCLEI_LABEL, images: Sequence[str] | None = None) -> None:
        """images: those that are known to have the label image; None where all have it."""
        self._store = store
        self._label = label
        self._places, self._missing, self._nuclei = _planes_of_table(store)
        self._written = WrittenMasks(store)
        asked = self._places.values() if images is None else [self._places[image] for image in images]
        if not all(self._group(mask).is_dir() for mask, _ in itertools.islice(asked, 1)):
            raise InputMissingError(
                f"{store} has no label image {label!r}; rings are made with `segment --ring`, cells with `--expand`, "
                "volumes with `--link z`."
            )

    def __getitem__(self, image: str) -> NDArray[np.uint32]:
        mask, where = self._place(image)
        return self._written.read(image, mask, where, lambda: self._read(image))

    def _read(self, image: str) -> NDArray[np.uint32]:
        array, place = self._array(image)
        found = np.asarray(array[place])
        if self._label == NUCLEI_LABEL and self._nuclei[image] and not found.any():
            raise DamageError(
                f"{self._store}: the mask of {image} is empty, but the table has {self._nuclei[image]} nuclei; "
                "`nucseg-batch verify` says what is damaged."
            )
        return found

    def __contains__(self, image: object) -> bool:
        return image in self._places

    def array(self, image: str) -> tuple[zarr.Array[Any], tuple[int | slice, ...]]:
        """The zarr array with the masks of an image, not read yet, and the index of the image on the axes before y.

        A window of a large plane: `array, place = masks.array(key); array[*place, 5000:6000, 7000:8000]`. Raises
        UnfinishedError where the image is not done now; later reads of the array are not checked.
        """
        mask, where = self._place(image)
        self._written.check(image, mask, where)
        return self._array(image)

    def _array(self, image: str) -> tuple[zarr.Array[Any], tuple[int | slice, ...]]:
        mask, index = self._places[image]
        group = self._group(mask)
        array = open_array(group / level_name(0), mode="r")
        if index is None:
            return array, (slice(None),) * (array.ndim - 2)
        axes = axes_of(read_attributes(group))
        return array, tuple(index if axis == "i" else slice(None) for axis in axes[:-2])

    def dask(self, image: str) -> Any:
        """The masks of an image as a lazy dask array, with the axes and dtype that reading it gives.

        Its blocks are whole planes, or the regions in which a large plane was segmented. Checks as `array` does.
        """
        import dask.array as da

        array, place = self.array(image)
        sides = (array.shards or array.chunks)[-2:]
        return da.from_array(array, chunks=(*[1] * (array.ndim - 2), *sides), inline_array=True)[place]

    def _place(self, image: str) -> tuple[str, dict[str, int]]:
        """Label group of an image, and its place there; raises UnfinishedError where the table says it is not done.

        What the run folder says counts more: planes may have been done since, or be done again.
        """
        if image not in self._places and image in self._missing:
            raise not_done(image, self._missing[image])
        nuclei, index = self._places[image]
        mask, where = f"{nuclei.rpartition('/')[0]}/{self._label}", {} if index is None else {"i": index}
        if image in self._missing and self._written.look(mask, where) is None:
            raise not_done(image, self._missing[image])
        return mask, where

    def _group(self, mask: str) -> Path:
        """The group of the label image that is asked for, from that of the nuclei beside it."""
        return (self._store / mask).with_name(self._label)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def open_masks(store: str | os.PathLike[str], *, label: str = NUCLEI_LABEL) -> Masks:
    """Opens the masks of a finished run.

    Args:
        store: The store, `out.zarr`; `out.images.csv` must lie beside it.
        label: Which label image: `nuclei`, or `rings` or `cells` of a run with `--ring` or `--expand`, whose labels are
            those of the nuclei; or `volumes` of a run with `--link z`, whose labels are those of volumes.csv.

    Returns:
        The masks by image, uint32, each (height, width) or with axes t and z before.

    Raises:
        InputMissingError: The store, its images.csv or the label image is missing.
    """
    return Masks(Path(store), label)


def mask_places(store: Path) -> dict[str, tuple[str, int | None]]:
    """Label group, and place on axis i or None where there is none, of each image that has a mask, by image.

    So the table of images has them; of an image with several planes the first that did not fail counts. Raises
    InputMissingError where the store or the table is missing.
    """
    return _planes_of_table(store)[0]


def _planes_of_table(store: Path) -> tuple[dict[str, tuple[str, int | None]], Counter[str], Counter[str]]:
    """The same; how many planes of an image were not done when the table was written; and its nuclei.

    Images without any have no entry.
    """
    table = RunLayout(store).images_csv
    if not store.is_dir() or not table.is_file():
        raise InputMissingError(
            f"{store}: a finished run has this store and {table.name} beside it; one is missing. While a run is "
            "at work, `nucseg-batch finish` writes the tables of what is done."
        )
    missing, nuclei = Counter[str](), Counter[str]()
    places: dict[str, tuple[str, int | None]] = {}
    with open_table(table) as file:
        for row in csv_records(file):
            if row["status"] == PlaneStatus.OK:
                place = file_name(row["mask"]), int(row["index"]) if row["index"] else None
                image, found = file_name(row["image"]), int(row.get("nuclei") or 0)
                places.setdefault(image, place)
                if found:
                    nuclei[image] += found
            elif row["status"] == PlaneStatus.MISSING:
                missing[file_name(row["image"])] += 1
    return places, missing, nuclei
