"""The groups above images: plates, wells and collections of an input store, in version 0.5, of images that have masks.

The metadata come as plain dicts by path of group, of version 0.4 to 0.6, and go through ome-zarr-models. What these
refuse, such as well images whose names are not of letters and digits alone, is copied as it is, and a note says so.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ome_zarr_models.v05.bioformats2raw import BioFormats2RawAttrs
from ome_zarr_models.v05.hcs import HCSAttrs
from ome_zarr_models.v05.well import WellAttrs
from pydantic import ValidationError

from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.plan import LabelArray

LAYOUT = "bioformats2raw.layout"
"""Attribute that says that a group is a collection, or a plate, as bioformats2raw writes them."""
ACQUISITION_KEYS = ("id", "name", "maximumfieldcount", "description", "starttime", "endtime")
OME_XML = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True)
class PlateGroups:
    """What the groups above the images of a plan are."""

    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Attributes by path of group, each with the one key `ome`."""
    collections: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths of images by path of the collection that they are in, in its order and relative to it; plates apart."""
    notes: list[str] = field(default_factory=list)
    """Lines for the user."""


def translated(metadata: Mapping[str, Mapping[str, Any]], images: Collection[str]) -> PlateGroups:
    """The plates, wells and collections that the images (paths of groups) are in, by the metadata of their store."""
    store = _Store({path: ome_of(content) for path, content in metadata.items()}, _below(images))
    structure = PlateGroups()
    for path, ome in sorted(store.metadata.items()):
        try:
            if isinstance(ome.get("plate"), Mapping):
                _add_plate(structure, store, path)
            elif LAYOUT in ome:
                _add_collection(structure, store, path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            structure.notes.append(f"{path or 'IN'}: its metadata cannot be understood ({reason}); they are left out")
    return structure


def collection_xml(images: Sequence[tuple[str, LabelArray]]) -> bytes:
    """OME-XML of a collection of label images, by their paths: napari-ome-zarr and Bio-Formats find them by it."""
    ElementTree.register_namespace("", OME_XML)
    top = ElementTree.Element(f"{{{OME_XML}}}OME")
    for number, (path, label_array) in enumerate(images):
        lengths = dict(zip(label_array.axes, label_array.shape, strict=True))
        image = ElementTree.SubElement(top, f"{{{OME_XML}}}Image", ID=f"Image:{path}", Name=path)
        sizes = {f"Size{axis.upper()}": str(lengths.get(axis, 1)) for axis in "xyzct"}
        of = {"ID": f"Pixels:{number}", "DimensionOrder": "XYZCT", "Type": "uint32", **sizes}
        pixels = ElementTree.SubElement(image, f"{{{OME_XML}}}Pixels", of)
        ElementTree.SubElement(pixels, f"{{{OME_XML}}}Channel", ID=f"Channel:{number}:0", SamplesPerPixel="1")
        ElementTree.SubElement(pixels, f"{{{OME_XML}}}MetadataOnly")
    return bytes(ElementTree.tostring(top, encoding="utf-8", xml_declaration=True))


@dataclass(frozen=True)
class _Store:
    """What is known of the input."""

    metadata: dict[str, Mapping[str, Any]]
    """OME attributes by path of group."""
    below: dict[str, set[str]]
    """By path of group, the paths of planned images below it, relative to it."""

    def of(self, path: str) -> Mapping[str, Any]:
        return self.metadata.get(path, {})

    def images(self, path: str) -> set[str]:
        return self.below.get(path, set())


def _add_plate(structure: PlateGroups, store: _Store, path: str) -> None:
    ome = store.of(path)
    plate = ome["plate"]
    rows = [str(row["name"]) for row in plate.get("rows") or ()]
    columns = [str(column["name"]) for column in plate.get("columns") or ()]
    acquisitions = [_chosen(one, ACQUISITION_KEYS) for one in plate.get("acquisitions") or ()]
    numbers = {one.get("id") for one in acquisitions}
    wells: list[dict[str, Any]] = []
    groups: dict[str, dict[str, Any]] = {}
    for well in plate.get("wells") or ():
        group = _join(path, str(well["path"]))
        if fields := _fields(store.of(group), store.images(group), numbers):
            wells.append(_well_in_plate(well, rows, columns))
            groups[group] = {"version": "0.5", "well": {"version": "0.5", "images": fields}}
    if not wells:
        return
    new: dict[str, Any] = {
        **({"name": plate["name"]} if isinstance(plate.get("name"), str) else {}),
        "version": "0.5",
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": wells,
        **({"acquisitions": acquisitions} if acquisitions else {}),
        "field_count": max(len(content["well"]["images"]) for content in groups.values()),
    }
    content: dict[str, Any] = {"version": "0.5", "plate": new}
    check: Callable[[Any], Any] = HCSAttrs.model_validate
    if LAYOUT in ome:
        content, check = {**content, LAYOUT: 3}, BioFormats2RawAttrs.model_validate
        _add_series(structure, store, path)
    structure.groups[path] = _valid(check, content, f"plate {path}".rstrip(), structure.notes)
    for group, one in groups.items():
        structure.groups[group] = _valid(WellAttrs.model_validate, one, f"well {group}", structure.notes)


def _fields(well: Mapping[str, Any], present: set[str], acquisitions: set[Any]) -> list[dict[str, Any]]:
    """Entries of a well's images that are in the plan, as the well lists them, else by name."""
    listed = well.get("well", {}).get("images") or ()
    known = {str(one["path"]): one.get("acquisition") for one in listed}
    order = [name for name in known if name in present]
    order += sorted((name for name in present if name not in known), key=_natural)
    return [
        {"path": name, "acquisition": known[name]}
        if isinstance(known.get(name), int) and (not acquisitions or known[name] in acquisitions)
        else {"path": name}
        for name in order
    ]


def _well_in_plate(well: Mapping[str, Any], rows: list[str], columns: list[str]) -> dict[str, Any]:
    row, _, column = str(well["path"]).partition("/")
    indices = {"rowIndex": _index(rows, row), "columnIndex": _index(columns, column)}
    return {"path": str(well["path"]), **indices, **_chosen(well, tuple(indices))}


def _index(names: list[str], name: str) -> int:
    return names.index(name) if name in names else 0


def _add_collection(structure: PlateGroups, store: _Store, path: str) -> None:
    if series := _add_series(structure, store, path):
        content = {"version": "0.5", LAYOUT: 3}
        structure.groups[path] = _valid(BioFormats2RawAttrs.model_validate, content, path or "IN", structure.notes)
        structure.collections[path] = series


def _add_series(structure: PlateGroups, store: _Store, path: str) -> tuple[str, ...]:
    """Lists a collection's images in its group OME: those it listed itself, else all that have numbers for names."""
    group, present = _join(path, "OME"), store.images(path)
    listed = store.of(group).get("series")
    if isinstance(listed, list):
        series = tuple(str(name) for name in listed if str(name) in present)
    else:
        series = tuple(sorted((name for name in present if name.isdigit()), key=_natural))
    if series:
        structure.groups[group] = {"ome": {"version": "0.5", "series": list(series)}}
    return series


def _valid(check: Callable[[Any], Any], content: dict[str, Any], what: str, notes: list[str]) -> dict[str, Any]:
    """Attributes as the models write them; as they are, with a note, where the models refuse them."""
    try:
        return {"ome": check(content).model_dump(exclude_none=True, by_alias=True, mode="json")}
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).splitlines()[-1].strip()
        notes.append(f"{what}: its metadata are not valid OME-Zarr ({reason}); they were copied as they are")
        return {"ome": content}


def _below(images: Collection[str]) -> dict[str, set[str]]:
    """Paths of images by each group that they are in, relative to it."""
    below: dict[str, set[str]] = {}
    for image in filter(None, images):
        parts = image.split("/")
        for depth in range(len(parts)):
            below.setdefault("/".join(parts[:depth]), set()).add("/".join(parts[depth:]))
    return below


def _chosen(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: values[key] for key in keys if values.get(key) is not None}


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts names so that numbers in them count as numbers."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part]
