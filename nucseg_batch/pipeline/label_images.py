"""Finds label images to compare: a folder of them, Kaggle's layout, the masks of a run, or OME-Zarr labels.

Nothing is read before it is asked for, except the metadata of zarr stores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.annotations import read_label_zarr, read_labels
from nucseg_batch.files.images import read_header, read_image
from nucseg_batch.files.kinds import IMAGE_SUFFIXES
from nucseg_batch.files.masks.store import LABEL_NAME, Masks, is_ours, open_masks
from nucseg_batch.files.names import name_beside
from nucseg_batch.files.zarr.planes import attributes, is_zarr, label_names, labelled_groups

MAX_PIXELS = 2**31
"""Label images with more pixels are refused."""
ANNOTATION_FOLDERS = ("labels", "masks")
"""Folders beside which `images` holds no label images."""


@dataclass(frozen=True)
class LabelImage:
    """A label image that can be read."""

    name: str
    """Path relative to the place given, without suffix; of Kaggle's layout the folder `<id>`, of a store its name."""
    read: Callable[[], NDArray[np.integer]]
    """Reads it: (height, width) whole numbers, 0 is background; raises ImageError naming the file."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    lone: bool = False
    """Whether it is a store of its own, whose name need not be an image's."""


def find_label_images(place: Path, argument: str) -> list[LabelImage]:
    """The label images of PRED or TRUTH (`argument`), sorted by name; there is at least one.

    Understood are

    - OUT.zarr of a run;
    - an OME-Zarr label image, an OME-Zarr image with labels, or a store with such images at any depth; of several
      label images of one image the one called nuclei is taken;
    - a folder with `<id>/masks/` at any depth, as Kaggle ships them: a binary picture for each nucleus, and
      `<id>/images/` with one image if at all; other files are then passed over;
    - a folder of label images at any depth: files of one integer plane, and `*.zarr` as above but OUT.zarr. `images/`
      beside `labels/` or `masks/` is passed over, and so are hidden files.

    Raises InputMissingError where there is no such place or it cannot be read, NothingToDoError where it holds no label
    image, ImageError for a store that does not tell which label image is meant, and UsageError where two names differ
    in their suffix only.
    """
    if not place.exists():
        raise InputMissingError(
            f"{argument} {place}: there is no such folder or store of label images"
            f"{name_beside(str(place)) or '; `nucseg-batch segment` makes one.'}"
        )
    if not place.is_dir():
        raise InputMissingError(f"{argument} {place}: this is a file; give the folder that holds the label images.")
    if is_zarr(place):
        found = _masks(place) if is_ours(place) else _store(place)
    else:
        kaggle, images = _search(place)
        found = kaggle or images
    if not found:
        raise NothingToDoError(
            f"{argument} {place}: no label image was found; expected label images (PNG or TIFF), <id>/masks/ with a "
            "picture for each nucleus as Kaggle ships them, or OME-Zarr labels; give the OUT.zarr of a run itself."
        )
    names: set[str] = set()
    for image in found:
        if image.name in names:
            raise UsageError(f"{place} holds two images named {image.name}, with different suffixes; keep one of them.")
        names.add(image.name)
    return sorted(found, key=lambda image: image.name)


def stem(key: str) -> str:
    """An image's key without suffix."""
    return str(PurePosixPath(key).with_suffix(""))


def _masks(path: Path) -> list[LabelImage]:
    masks = open_masks(path)
    return [LabelImage(stem(key), partial(_read_mask, masks, key)) for key in masks]


def _read_mask(masks: Masks, key: str) -> NDArray[np.integer]:
    mask = masks[key]
    if any(length != 1 for length in mask.shape[:-2]):
        raise ImageError(f"{key}: its masks have shape {mask.shape}; what is compared is one plane (y, x) an image.")
    return mask.reshape(mask.shape[-2:])


def _store(path: Path) -> list[LabelImage]:
    """The label images of an OME-Zarr store: one at its root is called after the store, others after their group."""
    return [
        LabelImage(inside or _store_name(path), partial(_read_label_group, group), lone=True)
        for inside, group in _label_groups(path)
    ]


def _label_groups(store: Path) -> list[tuple[str, Path]]:
    """The label groups of a store, each with the path in the store of the image that it belongs to."""
    if "image-label" in attributes(store) or store.parent.name == "labels":
        return [("", store)]
    chosen = [(group, _choice(group)) for group in labelled_groups(store)]
    return [
        ("" if group == store else group.relative_to(store).as_posix(), group / "labels" / label)
        for group, label in chosen
        if label is not None
    ]


def _store_name(path: Path) -> str:
    """Name of the store that a group is in, without suffix."""
    places = (path.resolve(), *path.resolve().parents)
    return next((place.stem for place in places if place.suffix == ".zarr"), places[0].name)


def _choice(group: Path) -> str | None:
    """Which label image of an image is meant; None where it has none."""
    names = label_names(group)
    if len(names) > 1 and LABEL_NAME not in names:
        raise ImageError(f"{group}/labels holds {', '.join(sorted(names))}; give the folder of the one that is meant.")
    return LABEL_NAME if len(names) > 1 else next(iter(names), None)


def _read_label_group(path: Path) -> NDArray[np.integer]:
    try:
        return read_label_zarr(path)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _search(top: Path) -> tuple[list[LabelImage], list[LabelImage]]:
    """The images below a folder that are in Kaggle's layout, and the label images."""
    kaggle: list[LabelImage] = []
    images: list[LabelImage] = []
    for root, folders, names in os.walk(top, onerror=_refuse):
        folder = Path(root)
        shown = sorted(name for name in folders if not name.startswith("."))
        stores = [name for name in shown if is_zarr(folder / name)]
        passed = {"images"} if set(ANNOTATION_FOLDERS) & set(shown) else set()
        image = _kaggle(folder, top)
        if image is not None:
            kaggle.append(image)
            passed.add("masks")
        folders[:] = [name for name in shown if name not in stores and name not in passed]
        files = [folder / name for name in names if _is_image(name)]
        images += [LabelImage(_name(path, top), partial(_read_label_file, path)) for path in files]
        for path in (folder / name for name in stores if not is_ours(folder / name)):
            for inside, group in _label_groups(path):
                name = f"{_name(path, top)}/{inside}".rstrip("/")
                images.append(LabelImage(name, partial(_read_label_group, group)))
    return kaggle, images


def _refuse(error: OSError) -> None:
    """Ends the search at a folder that cannot be listed: images left out in silence would change a score."""
    raise InputMissingError(f"{error.filename}: this folder cannot be read ({error.strerror}).") from error


def _name(path: Path, top: Path) -> str:
    return stem(path.relative_to(top).as_posix())


def _kaggle(folder: Path, top: Path) -> LabelImage | None:
    """The image that `folder` is in Kaggle's layout, if it is one.

    It holds `masks/`, and `images/` with one image after which no mask is named. Without `images/` it must be below
    the place given, else `masks/` may be a folder of label images.
    """
    masks, images = folder / "masks", folder / "images"
    pictures, files = _images_in(images), _images_in(masks)
    if not masks.is_dir() or (len(pictures) != 1 if images.is_dir() else folder == top):
        return None
    if pictures and pictures[0].stem in {file.stem for file in files}:
        return None
    name = folder.relative_to(top).as_posix() if folder != top else folder.resolve().name
    aliases = {f"{name}/images/{file}" for file in (folder.name, *(picture.stem for picture in pictures))}
    return LabelImage(name, partial(_read_kaggle, files, pictures, folder), tuple(sorted(aliases)))


def _read_kaggle(masks: tuple[Path, ...], pictures: tuple[Path, ...], folder: Path) -> NDArray[np.int32]:
    try:
        if masks or not pictures:
            return read_labels(masks)
        header = read_header(pictures[0], max_pixels=MAX_PIXELS)  # an image in which nobody found a nucleus
        return np.zeros((header.height, header.width), np.int32)
    except ImageError as error:
        raise ImageError(f"{folder}: {error}") from error


def _read_label_file(path: Path) -> NDArray[np.integer]:
    try:
        labels: NDArray[Any] = read_image(path, max_pixels=MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise ImageError(
            f"{path}: it is {labels.dtype} of shape {labels.shape}; a label image is one integer plane. "
            "Give the folder of the label images, not that of the pictures."
        )
    if labels.min() < 0:
        raise ImageError(f"{path}: it has negative numbers; a label image has 0 for background, then 1, 2, ...")
    return labels


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _images_in(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if _is_image(path.name))) if folder.is_dir() else ()
