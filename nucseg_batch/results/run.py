"""A run as its user has it: the store, the tables beside it and, where they can still be had, the images.

Everything is read when it is asked for, and nothing is written. Keras is not needed.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nucseg_batch.compartments import NUCLEI_LABEL, OPTIONS, VOLUMES
from nucseg_batch.errors import DamageError, ImageError, InputMissingError, MismatchError, NucsegError
from nucseg_batch.files.masks.ngff import axes_of, image_kind, level_name
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.masks.store import label_path
from nucseg_batch.files.opened import ImageReader, State, state_of
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.provenance import read_provenance
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.files.run.written import WrittenMasks
from nucseg_batch.files.run_layout import RunLayout, check_is_store
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.pipeline.channels import (
    NetworkInput,
    colour_of,
    is_open,
    named,
    resolve_channel,
    resolve_channel_of_pixels,
    select_channels,
)
from nucseg_batch.plan import ImageInfo, LabelArray, Plane, PlaneStatus
from nucseg_batch.results.tables import (
    PlaneNuclei,
    PlaneRow,
    nuclei_header,
    read_nuclei,
    read_nuclei_in_pieces,
    read_planes,
)

KEPT_ARRAYS = 64
"""Arrays of the store that stay open at once."""
WHOLE = slice(None)
Stored = tuple[zarr.Array[Any], tuple[int | slice, ...]]
"""The array of pixels in a store, and the place of a plane in it."""


class FinishedRun:
    """A run whose tables are written; a context manager, which closes the images that it opened.

    store: OUT.zarr. images: where the images are now, if no longer where they were segmented.

    Raises InputMissingError where the store or its tables are missing.
    """

    def __init__(self, store: Path, images: Path | None = None) -> None:
        store = store if store.name else store.resolve()
        if not store.name:
            raise InputMissingError(f"{store}: this is no store; give the OUT.zarr of a run.")
        check_is_store(store)
        if images is not None and "://" not in str(images) and not images.exists():
            raise InputMissingError(f"--images {images}: there is no such place; give where the images are now.")
        self.store = store
        self.tables = RunLayout.found(store).tables
        """The tables by name: images, nuclei (a folder of Parquet files, if there is no CSV file), failures."""
        missing = [path.name for path in (store, *self.tables.values()) if not path.exists()]
        if missing:
            raise InputMissingError(
                f"{store}: {missing[0]} is missing. Give the OUT.zarr of a run that is finished, with its tables "
                "beside it; `nucseg-batch finish` writes these."
            )
        self._images_place = images
        self._arrays: OrderedDict[str, tuple[zarr.Array[Any], str]] = OrderedDict()
        self._states: dict[str, State] = {}
        self._channels: dict[Plane, str] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> FinishedRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @cached_property
    def journal(self) -> Journal:
        """The run folder, which may have been deleted."""
        return Journal(self.store)

    @cached_property
    def written(self) -> WrittenMasks:
        """Which masks are whole and final now."""
        return WrittenMasks(self.store, lambda: None if self.begun is None else self.begun.plan)

    @cached_property
    def begun(self) -> RunSpec | None:
        """The plan and the settings; None where the run folder is gone or cannot be read."""
        try:
            return self.journal.load() if self.journal.exists() else None
        except MismatchError:
            return None

    def root(self) -> str | None:
        """Path or URL of IN, as the run was planned or images were added last; None where that is not known."""
        return None if self.begun is None else self.begun.root

    def planes(self, pattern: str | None = None) -> Iterator[PlaneRow]:
        """The rows of images.csv, in order; of those images only whose path or name matches a glob pattern."""
        rows = read_planes(self.tables["images"])
        return rows if pattern is None else (row for row in rows if matches(row.image, pattern))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The label images of all planes, nuclei first, as the run folder or else the provenance says."""
        if self.begun is not None:
            return self.begun.settings.labels
        return (NUCLEI_LABEL, *(label for label, option in OPTIONS.items() if self._options.get(option.strip("-"))))

    def labels_of(self, rows: Sequence[PlaneRow]) -> tuple[str, ...]:
        """The label images of an image, of which all rows are given: `labels`, and volumes once they are made of it."""
        joined = (self.begun.settings.link if self.begun is not None else self._options.get("link")) == "z"
        made = all(row.z is not None and row.status != PlaneStatus.MISSING for row in rows)
        return (*self.labels, VOLUMES) if joined and made else self.labels

    @cached_property
    def _options(self) -> dict[str, Any]:
        return (read_provenance(self.store) or {}).get("settings") or {}

    @cached_property
    def nuclei_columns(self) -> tuple[str, ...]:
        """Names of the columns of nuclei.csv."""
        return nuclei_header(self.tables["nuclei"])

    def with_nuclei(self, planes: Iterator[PlaneRow]) -> Iterator[tuple[PlaneRow, PlaneNuclei]]:
        """Some of the planes, in their order, each with its nuclei; reads nuclei.csv once."""
        return read_nuclei(self.tables["nuclei"], planes)

    def with_nuclei_in_pieces(self, planes: Iterator[PlaneRow]) -> Iterator[tuple[PlaneRow, Iterator[PlaneNuclei]]]:
        """The same, with the nuclei of a plane in pieces of at most 100 000, of which none need be kept."""
        return read_nuclei_in_pieces(self.tables["nuclei"], planes)

    def mask_array(self, row: PlaneRow) -> tuple[zarr.Array[Any], tuple[int, ...]]:
        """The array that holds a plane's mask, and the plane's place along its axes before y; for planes with masks."""
        array, axes = self._opened(row.mask)
        return array, _place(row, axes)

    def check_written(self, row: PlaneRow) -> None:
        """Raises UnfinishedError for a plane with a mask that is being made again."""
        self.written.check(row.name, row.mask, _places(row))

    def mask(self, row: PlaneRow, rows: slice = WHOLE, columns: slice = WHOLE) -> NDArray[np.uint32]:
        """A plane's mask, or a window of it: (height, width), 0 is background and nuclei have their label.

        Raises DamageError where it cannot be read, or is empty and should not be, and UnfinishedError where it is being
        made again.
        """
        array, place = self.mask_array(row)

        def read() -> NDArray[np.uint32]:
            return read_masks(array, (*place, rows, columns), row)

        mask = self.written.read(row.name, row.mask, _places(row), read)
        return checked(mask, row) if rows == columns == WHOLE else mask

    def shown(self, row: PlaneRow, rows: slice = WHOLE, columns: slice = WHOLE) -> NetworkInput:
        """A plane's pixels, or a window of them, as the network saw them and as they were measured.

        They come from the images that were segmented; where these are not there, from the store, if it has the pixels
        (`--with-images`). Raises ImageError, or InputMissingError where there is neither.
        """
        plane = self._plane(row)
        if plane is not None:
            try:
                return self._from_images(plane, rows, columns)
            except (OSError, NucsegError):
                if self._stored(row) is None:
                    raise
        stored = self._stored(row)
        if stored is None:
            raise InputMissingError(
                f"the pixels of {row.name} cannot be found: the run folder {self.journal.folder.name} is gone, and the "
                "store has no pixels (--with-images)."
            )
        return self._from_store(stored, plane, rows, columns)

    def image(self, row: PlaneRow) -> ImageInfo | None:
        """What was known of the image when it was planned; None without the run folder."""
        plane = self._plane(row)
        return None if plane is None else plane.image

    def _from_images(self, plane: Plane, rows: slice, columns: slice) -> NetworkInput:
        window = slice(*rows.indices(plane.image.height)), slice(*columns.indices(plane.image.width))
        images = self._images_for(plane.image)
        pixels = images.read(plane, *window)
        if self.begun is not None and plane not in self._channels:
            whole = pixels.shape[:2] == (plane.image.height, plane.image.width)
            self._channels[plane] = (
                resolve_channel_of_pixels(pixels, plane.image, self._channel)
                if whole and plane.image.height * plane.image.width <= self.begun.settings.region**2
                else resolve_channel(images, plane, self.begun.settings)
            )
        return select_channels(pixels, plane.image, self._channels.get(plane, self._channel))

    def _from_store(self, stored: Stored, plane: Plane | None, rows: slice, columns: slice) -> NetworkInput:
        array, place = stored

        def read(rows: slice, columns: slice) -> NDArray[Any]:
            pixels = np.asarray(array[(*place, rows, columns)])
            colours = pixels.ndim == 3 and (plane is None or not plane.image.names)
            return np.moveaxis(pixels, 0, -1) if colours else pixels

        pixels = read(rows, columns)
        if plane is not None and self.begun is not None:
            if plane not in self._channels:
                region, one = self.begun.settings.region, is_open(plane.image, self._channel)
                self._channels[plane] = named(colour_of(plane.image, read, region)) if one else self._channel
            return select_channels(pixels, plane.image, self._channels[plane])
        return NetworkInput(pixels, pixels if pixels.ndim == 2 else pixels.mean(axis=2))

    @property
    def _channel(self) -> str:
        return "auto" if self.begun is None else self.begun.settings.channel

    def _images_for(self, info: ImageInfo) -> ImageReader:
        """The images, of which this one is expected as it is now: copies have another time, but not another size."""
        begun, images = self.begun, self._images
        assert begun is not None
        assert images is not None
        if info.key not in self._states:
            state = state_of(self._root, info, begun.settings)
            if state[0] != info.size:
                raise ImageError("the image was changed after it was segmented.")
            self._states[info.key] = state
        return images

    @cached_property
    def _root(self) -> str:
        if self._images_place is not None:
            return str(self._images_place)
        return "" if self.begun is None else self.begun.root

    @cached_property
    def _images(self) -> ImageReader | None:
        if self.begun is None:
            return None
        return self._closing.enter_context(ImageReader(self._root, self.begun.settings, self._states))

    @cached_property
    def _label_arrays(self) -> dict[str, LabelArray]:
        return (
            {}
            if self.begun is None
            else {label_path(label_array): label_array for label_array in self.begun.plan.label_arrays}
        )

    def _plane(self, row: PlaneRow) -> Plane | None:
        label_array = self._label_arrays.get(row.mask)
        if label_array is None:
            return None
        return Plane(label_array.images[row.index or 0], row.t, row.z)

    def _opened(self, group: str) -> tuple[zarr.Array[Any], str]:
        """The array of the first level of a label or image group, and its axes."""
        if group not in self._arrays:
            try:
                array = open_array(self.store / group / level_name(0), mode="r")
            except (OSError, ValueError) as error:
                raise ImageError(f"{self.store / group}: the masks cannot be read ({type(error).__name__}).") from error
            while len(self._arrays) >= KEPT_ARRAYS:
                self._arrays.popitem(last=False)
            self._arrays[group] = array, axes_of(read_attributes(self.store / group))
        self._arrays.move_to_end(group)
        return self._arrays[group]

    def _stored(self, row: PlaneRow) -> Stored | None:
        """The array of a plane's pixels beside its mask and its place there; None where there is none."""
        group = row.mask.rpartition("/labels/")[0]
        if not group or image_kind(read_attributes(self.store / group)) != "pixels":
            return None
        array, axes = self._opened(group)
        return array, tuple(WHOLE if axis == "c" else _place(row, axis)[0] for axis in axes[:-2])


def read_masks(array: zarr.Array[Any], window: tuple[int | slice, ...], row: PlaneRow) -> NDArray[np.uint32]:
    """A part of an array of masks; DamageError, which names the plane it is for, where that cannot be read."""
    try:
        return np.asarray(array[window], np.uint32)
    except Exception as error:  # what zarr and its codecs raise for damaged chunks is of many classes
        raise DamageError(
            f"{row.name}: its mask cannot be read ({type(error).__name__}); `nucseg-batch verify` says what is damaged."
        ) from error


def checked(mask: NDArray[np.uint32], row: PlaneRow) -> NDArray[np.uint32]:
    """A plane's whole mask; DamageError where it is empty, as where its file is gone, and the table has nuclei."""
    if row.nuclei and not mask.any():
        raise DamageError(
            f"{row.name}: its mask is empty, but the table has {row.nuclei} nuclei; `nucseg-batch verify` says what is "
            "damaged, and `verify --redo` and then the same `segment` mend it."
        )
    return mask


def matches(image: str, pattern: str) -> bool:
    """Whether an image is meant by a glob pattern: its name, or its whole path where the pattern has a `/`."""
    return fnmatch.fnmatchcase(image if "/" in pattern else image.rpartition("/")[2], pattern)


def _place(row: PlaneRow, axes: str) -> tuple[int, ...]:
    places = _places(row)
    return tuple(places[axis] for axis in axes if axis in places)


def _places(row: PlaneRow) -> dict[str, int]:
    """The place of a plane on all axes before y that masks can have."""
    return {"i": row.index or 0, "t": row.time, "z": row.depth}
