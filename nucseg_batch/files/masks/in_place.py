"""Labels in the input store itself: a label image beside each image's pixels, in the version of the store.

Nothing else of the store changes. A label image is listed in its image's `labels` group, and in consolidated metadata
where the store has them, only when the run is complete; a run that stops before leaves a valid store without it.
Shards are written by `masks.store.MaskWriter`, levels by `pyramid.build_levels`, as in a store of our own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nucseg_batch.compartments import CELLS, RINGS, VOLUMES
from nucseg_batch.errors import OutputError, UsageError
from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.masks.ngff import (
    Version,
    calibration_of,
    label_attributes,
    label_path,
    labels_attributes,
    level_name,
)
from nucseg_batch.files.masks.nodes import (
    ATTRIBUTES_FILES,
    GROUP_FILES,
    put_array,
    put_group,
    read_attributes,
    write_attributes,
    zarr_format,
)
from nucseg_batch.files.masks.pyramid import choose_levels
from nucseg_batch.files.masks.store import label_layout
from nucseg_batch.files.zarr.nodes import OWNER
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.files.zarr.systems import has_systems
from nucseg_batch.plan import Plan

VERSIONS: dict[int, Version] = {2: "0.4", 3: "0.5"}
"""OME-Zarr version of what is written, by zarr format of the image."""
CONSOLIDATED = ".zmetadata"
"""Where zarr format 2 keeps copies of a store's metadata."""


def check_labels(
    folder: Path,
    plan: Plan,
    *,
    resumed: bool = False,
    overwrite: bool = False,
    advice: str = "to replace them add --overwrite",
) -> None:
    """Raises what stands against labels in the store, or in the folder of stores, that the images of a plan are in.

    That is UsageError for an image that is a file or of version 0.6, and OutputError where an image group is not there
    or cannot be written to, or has label images of the names of the plan's, such as `nuclei`: unless they are of the
    run that is `resumed`, or `overwrite` says that `remove_labels` may delete them. advice: what else to do then.
    """
    for label_array in plan.label_arrays:
        key = label_array.images[0].key
        if label_array.group is None:
            raise UsageError(f"--in-place: {key} is no OME-Zarr image, so it cannot hold labels; give OUT instead.")
        group = folder / label_array.group
        if zarr_format(group) is None or "multiscales" not in _ome(group):
            raise OutputError(f"--in-place: {key} is no OME-Zarr group, so it cannot hold labels; give OUT instead.")
        if has_systems(_ome(group)["multiscales"][0]):
            raise UsageError(
                f"--in-place: {key} is OME-Zarr 0.6, but labels are written in 0.5, and a store has one version; "
                "give OUT instead."
            )
        if not os.access(group, os.W_OK):
            raise OutputError(f"--in-place: {group} cannot be written to; change its permissions, or give OUT instead.")
        for name in label_array.label_images:
            label, listed = folder / label_path(label_array, name), name in _names(group / "labels")
            begun = zarr_format(label) is None and not listed  # a run that was stopped while it made its groups
            mine = resumed and (begun or OWNER in read_attributes(label))
            if not (mine or overwrite) and (label.exists() or listed):
                raise OutputError(f"--in-place: {key} has label images called {name} already; {advice}.")


def create_labels(folder: Path, plan: Plan) -> None:
    """Makes the label groups and their (still empty) arrays, but for those already there; none is listed yet."""
    for label_array in plan.label_arrays:
        group = folder / label_array.name
        version = zarr_format(group) or 3
        calibration = calibration_of(label_array, _ome(group))
        levels = choose_levels(label_array, calibration, _level_shapes(group), as_image=True)
        put_group(group / "labels", labels_attributes((), version=VERSIONS[version]), version=version)
        for name in label_array.label_images:
            label = folder / label_path(label_array, name)
            attributes = label_attributes(
                label_array.axes, calibration, levels, source=True, name=name, version=VERSIONS[version]
            )
            put_array(label / level_name(0), label_layout(label_array), version=version)
            put_group(label, attributes, version=version)


def register(
    folder: Path, plan: Plan, failed: Collection[str] = (), provenance: Mapping[str, Any] | None = None
) -> None:
    """Lists the label images of a complete run, and says in each what made it; doing it again changes nothing.

    Those of images that failed, by path of group, are empty and stay out of the lists.
    """
    for label_array in plan.label_arrays:
        if label_array.name in failed:
            continue
        labels = folder / label_array.name / "labels"
        if provenance is not None:
            for name in label_array.label_images:
                _say(labels / name, provenance)
        names = _names(labels)
        if new := [name for name in label_array.label_images if name not in names]:
            _list(labels, [*names, *new])
    _consolidate(folder, {folder / one.name / "labels": set(one.label_images) for one in plan.label_arrays})


def _say(label: Path, provenance: Mapping[str, Any]) -> None:
    """Notes in a label group of ours what made it."""
    attributes = read_attributes(label)
    new = {**attributes.get(OWNER, {}), "provenance": dict(provenance)}
    if attributes.get(OWNER) != new:
        write_attributes(label, {**attributes, OWNER: new})


def remove_labels(folder: Path, plan: Plan) -> None:
    """Takes label images that a plan writes out of the lists, and then deletes them, whoever made them.

    Compartments and volumes that an earlier run of ours made go, too: the nuclei that they belong to are gone.
    """
    gone: dict[Path, set[str]] = {}
    for label_array in plan.label_arrays:
        labels = folder / label_array.name / "labels"
        gone[labels] = {
            *label_array.label_images,
            *(name for name in (RINGS, CELLS, VOLUMES) if _made_as(labels / name, name)),
        }
        names = _names(labels)
        if gone[labels] & set(names):
            _list(labels, [name for name in names if name not in gone[labels]])
    _consolidate(folder, gone)
    for label in (labels / name for labels, names in gone.items() for name in sorted(names)):
        if label.exists():
            shutil.rmtree(label)


def _made_as(label: Path, name: str) -> bool:
    """Whether nucseg-batch made a label group under this name; False for a copy under another name."""
    attributes = read_attributes(label)
    return OWNER in attributes and ome_of(attributes)["multiscales"][0]["name"] == name


def _ome(group: Path) -> Mapping[str, Any]:
    return ome_of(read_attributes(group))


def _names(labels: Path) -> list[str]:
    names = _ome(labels).get("labels", [])
    return [str(name) for name in names] if isinstance(names, list) else []


def _list(labels: Path, names: list[str]) -> None:
    """Gives a `labels` group another list of label images, and keeps what else it says."""
    attributes = read_attributes(labels)
    new = labels_attributes(names, version=VERSIONS[zarr_format(labels) or 3])
    if "ome" in new:
        new = {"ome": {**ome_of(attributes), **new["ome"]}}
    write_attributes(labels, {**attributes, **new})


def _level_shapes(group: Path) -> list[dict[str, int]]:
    """Lengths of the axes of an image's levels; what cannot be read ends the list."""
    shapes: list[dict[str, int]] = []
    try:
        multiscale = _ome(group)["multiscales"][0]
        axes = [axis if isinstance(axis, str) else str(axis["name"]) for axis in multiscale["axes"]]
        for dataset in multiscale["datasets"]:
            array = open_array(group / dataset["path"], mode="r")
            shapes.append(dict(zip(axes, array.shape, strict=True)))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return shapes
    return shapes


def _consolidate(folder: Path, own: Mapping[Path, Collection[str]]) -> None:
    """Brings copies of metadata, which some stores keep in their root, up to date with the label groups.

    own: the names of label images of ours, there or deleted, by their `labels` group.
    """
    changed: dict[Path, dict[Path, Collection[str]]] = defaultdict(dict)
    for labels, names in own.items():
        for top in _above(folder, labels):
            changed[top][labels] = names
    for top, groups in changed.items():
        version = zarr_format(top)
        if version == 2 and (top / CONSOLIDATED).is_file():
            _consolidate_2(top, groups)
        elif version == 3:
            _consolidate_3(top, groups)


def _above(folder: Path, labels: Path) -> list[Path]:
    """The groups that hold a `labels` group, up to the root of the store, which may be above `folder`."""
    found = []
    for place in labels.resolve().parents:
        if zarr_format(place) is None:
            break
        found.append(place)
    return found


def _described(labels: Path, own: Collection[str]) -> list[Path]:
    """The groups and arrays to copy: a `labels` group and, where they are listed, label groups of ours, with arrays."""
    listed = [labels / name for name in _names(labels) if name in own]
    return [labels, *listed, *sorted(path for label in listed for path in label.iterdir() if path.is_dir())]


def _consolidate_2(top: Path, groups: Mapping[Path, Collection[str]]) -> None:
    content = json.loads((top / CONSOLIDATED).read_bytes())
    before = content["metadata"]
    copies = dict(before)
    for labels, own in groups.items():
        inside = labels.resolve().relative_to(top).as_posix()
        for key in [key for key in copies if key.startswith(tuple(f"{inside}/{name}/" for name in own))]:
            del copies[key]
        for node in _described(labels, own):
            for name in (GROUP_FILES[2], ".zarray", ATTRIBUTES_FILES[2]):
                if (node / name).is_file():
                    key = f"{node.resolve().relative_to(top).as_posix()}/{name}"
                    copies[key] = json.loads((node / name).read_bytes())
    if copies != before:
        content = {**content, "metadata": _sorted(copies)}
        write_whole(top / CONSOLIDATED, json.dumps(content, indent=4).encode())


def _consolidate_3(top: Path, groups: Mapping[Path, Collection[str]]) -> None:
    content = json.loads((top / GROUP_FILES[3]).read_bytes())
    consolidated = content.get("consolidated_metadata")
    if not isinstance(consolidated, dict):
        return
    before = consolidated["metadata"]
    copies = dict(before)
    for labels, own in groups.items():
        inside = labels.resolve().relative_to(top).as_posix()
        for key in [key for key in copies if f"{key}/".startswith(tuple(f"{inside}/{name}/" for name in own))]:
            del copies[key]
        for node in _described(labels, own):
            copies[node.resolve().relative_to(top).as_posix()] = json.loads((node / GROUP_FILES[3]).read_bytes())
    if copies != before:
        content["consolidated_metadata"] = {**consolidated, "metadata": _sorted(copies)}
        write_whole(top / GROUP_FILES[3], json.dumps(content, indent=2).encode())


def _sorted(copies: Mapping[str, Any]) -> dict[str, Any]:
    """Copies by depth and path: zarr-python (3.1) loses members of a group that do not follow each other."""
    return {path: copies[path] for path in sorted(copies, key=lambda path: (path.count("/"), path))}
