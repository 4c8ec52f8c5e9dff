"""The masks: a valid OME-Zarr 0.5 store of label images, written shard by shard.

Masks of images of one shape share the label array `<height>x<width>/labels/nuclei`, one uint32 array (i, y, x) with one
chunk per image and one shard per unit, so that 100 000 images are some hundred files. Compartments around nuclei are
label images beside it, cut alike, and a unit writes its shards of all of them. Axis i is of a custom type, which
NGFF allows; time t and depth z are further axes. An image of a store keeps its place, without axis i:
`<group>/labels/nuclei`, below the plates, wells and collections of the input. Its own group is an image whose arrays
are those of the labels, so that viewers open the store as the plate that it is, without a copy of the pixels.

A plane without nuclei has no chunk: that a unit is done is recorded by its marker, never by the store. With
`--with-images` pixels lie beside the masks (see `masks.pixels`); smaller levels are written last (see `pyramid`).
Labels in a store of the user are written by the same code (see `in_place`).
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.errors import OutputError
from nucseg_batch.files.atomic_write import remove_leftovers, write_whole
from nucseg_batch.files.masks.metadata import METADATA_FILES
from nucseg_batch.files.masks.ngff import (
    Calibration,
    calibration_of,
    image_attributes,
    label_attributes,
    label_path,
    label_paths,
    labels_attributes,
    level_name,
)
from nucseg_batch.files.masks.nodes import (
    ArrayLayout,
    StoredPart,
    combined,
    part_files,
    put_array,
    put_group,
    read_attributes,
    replace_part,
    stored_part,
    write_attributes,
)
from nucseg_batch.files.masks.pixels import (
    check_with_images,
    pixel_attributes,
    pixel_bounds,
    pixel_grid,
    pixel_type,
)
from nucseg_batch.files.masks.plates import PlateGroups, collection_xml, translated
from nucseg_batch.files.masks.pyramid import choose_levels, unlist_levels
from nucseg_batch.files.zarr.nodes import OWNER
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.plan import LabelArray, Plan, Unit

__all__ = [
    "OWNER",
    "MaskWriter",
    "Metadata",
    "create_store",
    "is_complete",
    "is_ours",
    "label_layout",
    "label_path",
    "list_masks",
    "masks_changed_ns",
    "remove_added",
    "remove_arrays",
    "remove_common_leftovers",
    "remove_leftovers_of",
    "remove_store",
    "set_complete",
    "shard_bytes",
    "shards_written",
    "unit_files",
    "volume_bytes",
    "volume_files",
    "volumes_written",
]

Metadata = Mapping[str, Mapping[str, Any]]
"""OME attributes of an input store, of version 0.4 to 0.6, by path of group as `ImageInfo.group` counts them."""
Groups = dict[str, dict[str, Any]]
"""Attributes of groups, by path."""


def create_store(path: Path, plan: Plan, *, with_images: bool = False, mirror: Metadata | None = None) -> list[str]:
    """Makes the store with all groups, metadata and (still empty) arrays of a plan, but for those already there.

    `with_images` makes arrays for the pixels, too. `mirror` describes the input where it is a store, or folders that
    hold stores: plates, wells, collections and images. Returns lines for the user about what of it could not be kept.
    Raises OutputError where two images would have one place, and UsageError as `check_with_images` does.
    """
    _check_places(plan)
    if with_images:
        check_with_images(plan)
    given = mirror or {}
    structure = translated(given, [one.group for one in plan.label_arrays if one.group is not None])
    groups: Groups = {"": {OWNER: {"layout": 1, "complete": False}}}
    for name, attributes in structure.groups.items():
        _merge(groups, name, attributes)
    arrays: dict[str, ArrayLayout] = {}
    for label_array in plan.label_arrays:
        calibration = calibration_of(label_array, ome_of(given.get(label_array.name, {})))
        _add_label_array(groups, arrays, label_array, calibration, with_images)
    for name in sorted({*groups, *_above(groups)}):
        put_group(path / name, groups.get(name, {}))
    for name, layout in arrays.items():
        put_array(path / name, layout)
    _describe_collections(path, plan, structure)
    return structure.notes


def list_masks(path: Path, plan: Plan, mirror: Metadata, failed: Collection[str]) -> None:
    """Lists images and labels of a store that keeps a structure, but for those that failed, by path of group.

    A viewer, or a count of a plate, would take the empty array of a failed image for an image without nuclei.
    """
    grouped = [one for one in plan.label_arrays if one.group is not None]
    good = [one.name for one in grouped if one.name not in failed]
    for name, attributes in translated(mirror, good).groups.items():
        _update(path / name, attributes["ome"])
    for label_array in plan.label_arrays:  # those of files, too: volumes may have come to a run that had none
        names = label_array.label_images if label_array.name not in failed else ()
        _update(path / label_path(label_array).rpartition("/")[0], labels_attributes(names)["ome"])


def _update(group: Path, ome: Mapping[str, Any]) -> None:
    """Gives a group other OME attributes of some kinds, where they are not these already."""
    attributes = read_attributes(group)
    now = ome_of(attributes)
    if {**now, **ome} != now:
        write_attributes(group, {**attributes, "ome": {**now, **ome}})


def label_layout(label_array: LabelArray) -> ArrayLayout:
    """The array of each of a label array's label images."""
    return ArrayLayout(label_array.grid, "uint32")


def _add_label_array(
    groups: Groups, arrays: dict[str, ArrayLayout], label_array: LabelArray, calibration: Calibration, with_images: bool
) -> None:
    """Adds a label array's groups and arrays."""
    if with_images:
        _merge(groups, label_array.name, pixel_attributes(label_array, calibration))
        arrays[f"{label_array.name}/{level_name(0)}"] = ArrayLayout(
            pixel_grid(label_array), pixel_type(label_array).name
        )
    elif label_array.group is not None:
        name = calibration.name or label_array.name.rpartition("/")[2] or label_array.images[0].key.rpartition("/")[2]
        _merge(groups, label_array.name, image_attributes(name, label_array.axes, calibration, "labels"))
    _merge(groups, label_path(label_array).rpartition("/")[0], labels_attributes(label_array.label_images))
    levels, source = choose_levels(label_array, calibration), label_array.group is not None
    for name, label in zip(label_array.label_images, label_paths(label_array), strict=True):
        _merge(groups, label, label_attributes(label_array.axes, calibration, levels, source=source, name=name))
        arrays[f"{label}/{level_name(0)}"] = label_layout(label_array)


def _merge(groups: Groups, name: str, attributes: Mapping[str, Any]) -> None:
    """Adds to what a group has: the root of a store may be a plate, or an image, as well."""
    own = groups.setdefault(name, {})
    for key, value in attributes.items():
        own[key] = {**own.get(key, {}), **value}


def _above(groups: Mapping[str, Any]) -> set[str]:
    """Paths of all groups that some groups are in."""
    parts = [name.split("/") for name in groups]
    return {"/".join(part[:depth]) for part in parts for depth in range(1, len(part))}


def _check_places(plan: Plan) -> None:
    seen: dict[str, LabelArray] = {}
    for one in plan.label_arrays:
        other = seen.setdefault(one.name, one)
        if other is not one:
            raise OutputError(
                f"{other.images[0].key} and {one.images[0].key} would both have their masks in {one.name}; "
                "rename one, or segment them into two outputs."
            )


def _describe_collections(path: Path, plan: Plan, structure: PlateGroups) -> None:
    label_arrays = {one.name: one for one in plan.label_arrays}
    for group, series in structure.collections.items():
        file = path / group / "OME" / "METADATA.ome.xml"
        images = [(name, label_arrays["/".join(part for part in (group, name) if part)]) for name in series]
        content = collection_xml(images)
        if not file.exists() or file.read_bytes() != content:  # images were added
            write_whole(file, content)


class MaskWriter:
    """Writes the shards of one store; the only code that writes masks and pixels. Threads may write at once.

    The store is OUT, or IN itself where labels are written in place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The store."""
        return self._path

    def write(
        self,
        unit: Unit,
        masks: NDArray[np.uint32] | Mapping[str, NDArray[np.uint32]],
        pixels: NDArray[Any] | None = None,
    ) -> StoredPart:
        """Writes a unit's masks, of the shape of the unit, as one whole shard that is on disk when this returns.

        masks: nuclei, or all label images by name in the order of `LabelArray.labels`, each a shard. `pixels`, as
        `pixels.empty_pixels` shapes them, become a shard of their own. Returns what is on disk then, all together;
        masks without a nucleus need no file, and an earlier one is deleted. In a store of zarr format 2, which has no
        shards, chunks are written instead.
        """
        return combined(self.write_parts(unit, masks if isinstance(masks, Mapping) else {NUCLEI_LABEL: masks}, pixels))

    def write_parts(
        self, unit: Unit, labels: Mapping[str, NDArray[np.uint32]], pixels: NDArray[Any] | None = None
    ) -> list[StoredPart]:
        """The same of some label images; returns each shard, pixels first."""
        unlist_levels(self._path, unit.label_array)
        shards = []
        if pixels is not None:
            shards.append(self._put(f"{unit.label_array.name}/{level_name(0)}", pixel_bounds(unit), pixels))
        for name, masks in labels.items():
            if masks.shape != unit.shape:
                raise ValueError(f"masks of {unit.name} have shape {masks.shape}; the unit's is {unit.shape}")
            shards.append(self._put(f"{label_path(unit.label_array, name)}/{level_name(0)}", unit.bounds, masks))
        return shards

    def read(
        self, unit: Unit, label: str = NUCLEI_LABEL, bounds: tuple[slice, ...] | None = None
    ) -> NDArray[np.uint32]:
        """A label image of a unit as it is now, of the shape of the unit; or of other bounds in its label array."""
        return np.asarray(self.open(unit.label_array, label)[bounds or unit.bounds])

    def open(self, label_array: LabelArray, label: str = NUCLEI_LABEL) -> zarr.Array[Any]:
        """The array of a label image, to read from."""
        return open_array(self._path / label_path(label_array, label) / level_name(0), mode="r")

    def _put(self, name: str, bounds: tuple[slice, ...], values: NDArray[Any]) -> StoredPart:
        folder = self._path / name
        return replace_part(folder, open_array(folder, mode="r+"), bounds, values)


def shard_bytes(store: Path, unit: Unit) -> int:
    """Size of a unit's shards, of its label images and its pixels together; 0 where there is none."""
    return sum(map(_size, unit_files(store, unit)))


def shards_written(store: Path, unit: Unit) -> StoredPart:
    """What `MaskWriter.write` said of a unit, found out from the files as they are now."""
    pixels = _pixel_files(store, unit)
    labels = (_files(store, unit, label) for label in unit.label_array.labels)
    return combined([*([stored_part(pixels)] if pixels else []), *map(stored_part, labels)])


def volume_bytes(store: Path, unit: Unit) -> int:
    """Size of a unit's shard of volumes; 0 where there is none."""
    return sum(map(_size, volume_files(store, unit)))


def volumes_written(store: Path, unit: Unit) -> StoredPart:
    """A unit's shard of volumes, found out from its files as they are now."""
    return stored_part(volume_files(store, unit))


def volume_files(store: Path, unit: Unit) -> list[Path]:
    """The files of a unit's shard of volumes, there or not."""
    return _files(store, unit, VOLUMES)


def remove_leftovers_of(store: Path, unit: Unit, *, volumes: bool = False) -> None:
    """Deletes what killed writers left of a unit's shards, or of its shard of volumes; nobody else may be at it."""
    for file in volume_files(store, unit) if volumes else unit_files(store, unit):
        remove_leftovers(file.parent, {file.name})


def remove_common_leftovers(store: Path, plan: Plan) -> None:
    """The same of what all units of a plan have in common: metadata; nobody else may be making these."""
    folders = {store}
    for label_array in plan.label_arrays:
        labels = (store / label for label in label_paths(label_array))
        arrays = [path for label in labels for path in label.iterdir() if path.is_dir()]
        if label_array.group is None:
            arrays += [path for path in (store / label_array.name).iterdir() if path.is_dir()]
        folders |= {place for array in arrays for place in (array, *array.parents) if place.is_relative_to(store)}
    for folder in folders:
        remove_leftovers(folder, METADATA_FILES)


def _pixel_files(store: Path, unit: Unit) -> list[Path]:
    """The file of a unit's pixels, where the store has them beside the masks."""
    if unit.label_array.group is not None:  # then a file of that name is the user's, where labels are written in place
        return []
    array = store / unit.label_array.name / level_name(0)
    if not (array / "zarr.json").exists():
        return []
    return part_files(array, pixel_grid(unit.label_array).shard, pixel_bounds(unit))


def masks_changed_ns(store: Path, unit: Unit, labels: Collection[str] | None = None) -> int:
    """When a file of a unit's label images, or of some of all, was last written, in ns; 0 where there is none."""
    chosen = unit.label_array.labels if labels is None else labels
    return max(_changed_ns(file) for label in chosen for file in _files(store, unit, label))


def unit_files(store: Path, unit: Unit) -> list[Path]:
    """The files of a unit's pixels and of all its label images, there or not."""
    labels = (file for label in unit.label_array.labels for file in _files(store, unit, label))
    return [*_pixel_files(store, unit), *labels]


def _files(store: Path, unit: Unit, label: str) -> list[Path]:
    """The files of a unit in a label image: its shard, or chunks where the format has no shards."""
    array = store / label_path(unit.label_array, label) / level_name(0)
    if (array / ".zarray").exists():
        return part_files(array, unit.label_array.grid.chunk, unit.bounds, version=2)
    return part_files(array, unit.label_array.grid.shard, unit.bounds)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def is_ours(path: Path) -> bool:
    """Whether there is a store at `path` that nucseg-batch made."""
    try:
        own = read_attributes(path).get(OWNER)
    except (ValueError, RecursionError):  # damaged, and so not made by us: ours are of format 3
        return False
    return isinstance(own, dict) and "layout" in own


def is_complete(path: Path) -> bool:
    """Whether a store of ours says that every plane of its run was tried."""
    own = read_attributes(path).get(OWNER)
    return isinstance(own, dict) and own.get("complete") is True


def set_complete(path: Path, complete: bool, provenance: Mapping[str, Any] | None = None) -> None:
    """Notes in the root of a store of ours whether every plane of its run was tried, and what masks were made with."""
    attributes = read_attributes(path)
    own = attributes.get(OWNER)
    if not isinstance(own, dict):
        return
    new = {**own, "complete": complete, **({} if provenance is None else {"provenance": dict(provenance)})}
    if new != own:
        write_attributes(path, {**attributes, OWNER: new})


def remove_arrays(path: Path, plan: Plan) -> None:
    """Deletes what is where the label arrays of a plan will be: of a portion that was begun and is forgotten."""
    for one in plan.label_arrays:
        for name in [one.name] if one.group is None else label_paths(one):
            shutil.rmtree(path / name, ignore_errors=True)


def remove_added(path: Path, portions: Collection[int], known: Collection[str]) -> None:
    """Deletes the arrays of images that are files and came in some portions; known: names of arrays that stay."""
    top = {name.partition("/")[0] for name in known}
    for number in portions:
        for folder in path.glob(f"*-added{number}"):
            if folder.name not in top:
                shutil.rmtree(folder)


def remove_store(path: Path) -> None:
    """Deletes a store of ours."""
    shutil.rmtree(path)
