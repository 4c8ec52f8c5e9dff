"""Finds annotated images and label images in OME-Zarr: in our own stores and in those of others."""

from __future__ import annotations

from pathlib import Path

from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations.pairs import DataSet, Pair, joined
from nucseg_batch.files.masks.ngff import image_kind
from nucseg_batch.files.masks.store import is_ours
from nucseg_batch.files.run.masks import mask_places
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.planes import ZarrPlane, attributes, image_axis_length, label_names, labelled_groups

Names = dict[tuple[str, int | None], str]
"""Names of images by label group and place on axis i."""


def zarr_pairs(store: Path, top: Path) -> DataSet:
    """Pairs of every image group of a store with its label image, and a line for all groups that are none.

    A group of several label images counts with the one named `nuclei`. Keys are the names in our own table of images
    where it lies beside the store, else paths of groups, with the place of an image on axis i.
    """
    prefix = "" if store == top else store.relative_to(top).as_posix()
    groups = labelled_groups(store)
    if not groups:
        return DataSet(problems=(f"{prefix or store.name}: it has no label images",))
    names: Names | None = None
    if is_ours(store) and RunLayout(store).images_csv.is_file():
        names = {place: image for image, place in mask_places(store).items()}
    return joined(_group_pairs(group, store, prefix, names) for group in groups)


def label_groups(store: Path, label: str = NUCLEI_LABEL) -> list[tuple[str, Path]]:
    """The label groups of a store, each with the path in the store of the image that it belongs to.

    The store may be a label group itself. Of several label images of an image that named `label` is taken, else that
    named `nuclei`. Raises ImageError where neither is there, and for metadata that cannot be read.
    """
    place = store
    found = []
    try:
        if "image-label" in ome_of(attributes(store)) or store.parent.name == "labels":
            return [("", store)]
        for place in labelled_groups(store):
            names = label_names(place)
            chosen = label if label in names else _chosen(names)
            if names and chosen is None:
                raise ImageError(
                    f"its labels are {', '.join(sorted(names))}; give the folder of the one that is meant."
                )
            if chosen is not None:
                found.append(("" if place == store else place.relative_to(store).as_posix(), place / "labels" / chosen))
    except ImageError as error:
        raise ImageError(f"{place}: {error}") from error
    return found


def _chosen(names: list[str]) -> str | None:
    """Which label image of an image counts: the only one, or the one named `nuclei`; None where neither is there."""
    if len(names) == 1:
        return names[0]
    return NUCLEI_LABEL if NUCLEI_LABEL in names else None


def _group_pairs(group: Path, store: Path, prefix: str, names: Names | None) -> DataSet:
    inside = "" if group == store else group.relative_to(store).as_posix()
    shown = "/".join(part for part in (prefix or (not inside and store.name), inside) if part)
    try:
        label, others = _label_of(group, is_ours(store))
        count, expected = image_axis_length(group / "labels" / label), image_axis_length(group)
        if count != expected:
            raise ImageError(f"{expected} images, but {count} label images")
    except ImageError as error:
        return DataSet(problems=(f"{shown}: {error}",))
    notes = [f"{shown}: of its label images {', '.join(others)}, {label} is used"] * (len(others) > 1)
    pairs = []
    for index in [None] if count is None else range(count):
        key = _key(shown, prefix, f"{inside}/labels/{label}", index, names)
        if key is not None:
            pairs.append(Pair(key, ZarrPlane(group, index), ZarrPlane(group / "labels" / label, index)))
    return DataSet(tuple(pairs), tuple(notes))


def _label_of(group: Path, ours: bool) -> tuple[str, list[str]]:
    """Which label image of an image counts, and which it has; ImageError where the group is no image or has none."""
    own = attributes(group)
    if "multiscales" not in ome_of(own) or image_kind(own) == "labels":
        remedy = "; make it again with segment --with-images" if ours else ""
        raise ImageError(f"it has label images, but no pixels{remedy}")
    labels = label_names(group)
    label = _chosen(labels)
    if label is None:
        names_one = f"it has label images {', '.join(labels)}, but none named {NUCLEI_LABEL}"
        raise ImageError(names_one if labels else "its labels group lists no label image")
    return label, labels


def _key(shown: str, prefix: str, mask: str, index: int | None, names: Names | None) -> str | None:
    """Name of an image; None for one that the table of images does not name, because it failed."""
    if index is None:
        return shown
    if names is None:
        return f"{shown}[{index}]"
    name = names.get((mask, index))
    return None if name is None else f"{prefix}/{name}" if prefix else name
