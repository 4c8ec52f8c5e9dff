"""Finds the annotated images of a folder, in any of the layouts that people keep them in, and tells what does not pair.

- `images/` beside `labels/` or `masks/`: files of the same name, or with an ending such as `_masks` on the label image;
- Kaggle's `<id>/images/` with one image and `<id>/masks/` with a binary picture for each nucleus. It is told from the
  layout above by the names: one image, and no file in `masks/` that is named after it;
- `a.tif` beside `a_masks.tif` and the like in one folder, as Cellpose and others write them;
- OME-Zarr images with label images (see `zarr_layouts`), among them our own stores that hold the pixels, too.

All of these may lie at any depth, and several in one folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nucseg_batch.errors import InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.find.name_rules import ANNOTATION_ENDINGS, IMAGE_ENDING
from nucseg_batch.files.kinds import IMAGE_SUFFIXES
from nucseg_batch.files.zarr.planes import is_zarr
from nucseg_batch.training.index import Indexes
from nucseg_batch.training.pairs import DataSet, Pair, joined
from nucseg_batch.training.zarr_layouts import zarr_pairs

LABEL_FOLDERS = ("labels", "masks")
"""Folders beside `images` that hold annotation; the first that is there counts."""
SHOWN = 3
"""Problems that are told where nothing pairs at all."""


def find_pairs(folder: Path, *, group: str | None = None) -> DataSet:
    """Lists the annotated images below a folder, and all that does not pair.

    `group` names a column of `index.csv` whose values keep images together when a share of them is held out. Raises
    InputMissingError where there is no such folder, NothingToDoError where nothing in it pairs, and UsageError where no
    image has a value of `group`.
    """
    if not folder.is_dir():
        raise InputMissingError(f"{folder} is not a folder; give the folder that holds the annotated images.")
    indexes = Indexes(folder, group)
    found = joined(indexes.apply(place, _pairs_at(place, folder)) for place in _places(folder))
    if not found.pairs:
        told = f" Found: {'; '.join(found.problems[:SHOWN])}." if found.problems else ""
        raise NothingToDoError(
            f"No annotated images were found in {folder}: expected images/ and labels/ (or masks/) with files of the "
            "same names, a.tif beside a_masks.tif, <id>/images/ and <id>/masks/ as Kaggle ships them, or OME-Zarr "
            f"images with labels.{told}"
        )
    if group is not None and not any(pair.group for pair in found.pairs):
        raise UsageError(f"--group {group}: no index.csv in or above {folder} has that column for its images.")
    return found


def _places(top: Path) -> Iterator[Path]:
    """Folders that may hold a layout: all but hidden ones and what belongs to a layout already listed."""
    for name, folders, _ in os.walk(top):
        place = Path(name)
        yield place
        taken = {"images", *LABEL_FOLDERS} if _label_folder(place) else set()
        folders[:] = [] if is_zarr(place) else sorted(f for f in folders if f not in taken and not f.startswith("."))


def _pairs_at(place: Path, top: Path) -> DataSet:
    if is_zarr(place):
        return zarr_pairs(place, top)
    labels = _label_folder(place)
    parts = [_flat(place, top)]
    if labels is not None:
        parts.append(_folders(place, labels, top))
    return joined(parts)


def _label_folder(place: Path) -> Path | None:
    if not (place / "images").is_dir():
        return None
    return next((place / name for name in LABEL_FOLDERS if (place / name).is_dir()), None)


def _folders(place: Path, label_folder: Path, top: Path) -> DataSet:
    """Pairs of `images/` and the label folder beside it, which may both have folders of the same names in them."""
    images, labels = _files(place / "images", deep=True), _files(label_folder, deep=True)
    found = _matched(images, labels, place / "images", label_folder, top)
    if len(images) == 1 and not found.pairs and labels:  # Kaggle's: pictures of single nuclei, named at random
        return DataSet((Pair(_key(place, top, images[0].stem), images[0], tuple(labels)),))
    return found


def _flat(place: Path, top: Path) -> DataSet:
    """Pairs of files in one folder, where label images are told by the ending of their names."""
    files = _files(place, deep=False)
    stems = {path.stem for path in files}
    annotated = {path: any(name in stems for name in _image_names(path.stem)) for path in files}
    labels = [path for path in files if annotated[path]]
    images = [path for path in files if not annotated[path]]
    if files and not labels:
        count = f"{len(files)} image{'s' * (len(files) > 1)}"
        return DataSet(problems=(f"{_key(place, top, top.name)}: {count}, none with annotation beside it",))
    return _matched(images, labels, place, place, top)


def _matched(images: list[Path], labels: list[Path], images_at: Path, labels_at: Path, top: Path) -> DataSet:
    problems: list[str] = []
    by_name, labels_by_name = _by_name(images, images_at, top, problems), _by_name(labels, labels_at, top, problems)
    pairs, used = [], set()
    for name, image in by_name.items():
        label = next((n for n in _label_names(name) if n in labels_by_name), None)
        if label is not None:
            pairs.append(Pair(_key(image, top), image, (labels_by_name[label],)))
            used.add(label)
        elif images_at == labels_at and next(_image_names(name), None):
            problems.append(f"{_key(image, top)}: no image of that name")
        else:
            problems.append(f"{_key(image, top)}: no labels of that name")
    for name, path in labels_by_name.items():
        if name not in used:
            taken = any(n in by_name for n in (name, *_image_names(name)))
            problems.append(f"{_key(path, top)}: {'its image has other labels' if taken else 'no image of that name'}")
    return DataSet(tuple(pairs), tuple(problems))


def _label_names(image: str) -> Iterator[str]:
    """Names that the label image of an image may have, best first."""
    yield image
    yield from (image + ending for ending in ANNOTATION_ENDINGS)
    if image.endswith(IMAGE_ENDING):
        yield from (image.removesuffix(IMAGE_ENDING) + ending for ending in ("", *ANNOTATION_ENDINGS))


def _image_names(label: str) -> Iterator[str]:
    """Names that the image of a label image may have, where the ending of its name shows that it is one."""
    for ending in ANNOTATION_ENDINGS:
        if label.endswith(ending) and label != ending:
            yield from (label.removesuffix(ending), label.removesuffix(ending) + IMAGE_ENDING)


def _by_name(files: list[Path], folder: Path, top: Path, problems: list[str]) -> dict[str, Path]:
    """Files by their path in a folder without suffix; of two that differ in suffix only the first counts."""
    found: dict[str, Path] = {}
    for path in files:
        first = found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
        if first != path:
            problems.append(f"{_key(path, top)}: not used, for there is {first.name} beside it")
    return found


def _files(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _key(path: Path, top: Path, top_name: str = "") -> str:
    return top_name if path == top else path.relative_to(top).as_posix()
