"""Finds the annotated images of a folder, in any of the layouts that people keep them in, and tells what does not pair.

- a folder of images beside one of label images, such as `images/` and `labels/`, `img/` and `gt/`, `imagesTr/` and
  `labelsTr/`, `01/` and `01_GT/SEG/`, or images with `masks/` in their own folder: files of the same name, or of the
  same core (see `names`);
- Kaggle's `<id>/images/` with one image and `<id>/masks/` with a binary mask per nucleus. The names distinguish it
  from the layout above: one image, and no file in `masks/` that is named after it;
- `a.tif` beside `a_masks.tif` and the like in one folder, as Cellpose and others write them;
- OME-Zarr images with label images (see `zarr_layouts`), among them our own stores that hold the pixels, too.

All of these may lie at any depth, and several in one folder. Beside folders of images and label images there may be
`ignore/`, masks of the same names, of pixels that nobody annotated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nucseg_batch.errors import InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.annotations.index import AnnotationIndexes
from nucseg_batch.files.annotations.names import (
    CHALLENGE,
    FOLDERS_TO_IGNORE,
    AnnotationName,
    folder_pairs,
    is_image_name,
    label_folders,
    read_name,
)
from nucseg_batch.files.annotations.pairs import DataSet, Pair, joined
from nucseg_batch.files.annotations.zarr_layouts import zarr_pairs
from nucseg_batch.files.find.leftovers import SYSTEM_FOLDERS, stem_of, tool_of
from nucseg_batch.files.zarr.planes import is_zarr

PICTURE_FOLDERS = ("masks", "labels")
"""Names that Kaggle's folder of pictures of single nuclei may have."""
SHOWN = 3
"""Problems listed in the error when nothing pairs."""


def find_pairs(folder: Path, *, group: str | None = None) -> DataSet:
    """Lists the annotated images below a folder, and all that does not pair.

    `group` names a column of `index.csv` whose values keep images together when a share of them is held out. Raises
    InputMissingError where there is no such folder, NothingToDoError where nothing in it pairs, and UsageError where no
    image has a value of `group`.
    """
    found = _found_below(folder, group)
    _check_group(found, group, str(folder))
    return found


def find_all_pairs(folders: Sequence[Path], *, group: str | None = None) -> DataSet:
    """The annotated images of several folders as one data set; keys begin with the folder as it was given.

    Arguments and errors are those of `find_pairs`, which does the same for one folder. UsageError also where a folder
    is given twice.
    """
    if len(folders) == 1:
        return find_pairs(folders[0], group=group)
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{folder} is given twice; give each folder of annotated images once.")
    parts = []
    for folder in folders:
        found = _found_below(folder, group)
        pairs = tuple(replace(pair, key=f"{folder.as_posix()}/{pair.key}") for pair in found.pairs)
        parts.append(replace(found, pairs=pairs, problems=tuple(f"{folder}: {one}" for one in found.problems)))
    found = joined(parts)
    _check_group(found, group, ", ".join(map(str, folders)))
    return found


def _check_group(found: DataSet, group: str | None, where: str) -> None:
    if group is not None and not any(pair.group for pair in found.pairs):
        raise UsageError(f"--group {group}: no index.csv in or above {where} has that column for its images.")


def _found_below(folder: Path, group: str | None) -> DataSet:
    if not folder.is_dir():
        raise InputMissingError(f"{folder} is not a folder; give the folder that holds the annotated images.")
    indexes = AnnotationIndexes(folder, group)
    parts = []
    for place, content in places(folder):
        found = zarr_pairs(place, folder) if content is None else content
        if content is not None and found.loose:
            found = replace(found, problems=(*found.problems, _none_annotated(place, folder, found)))
        parts.append(indexes.apply(place, found))
    found = joined(parts)
    if not found.pairs:
        told = f" Found: {'; '.join(found.problems[:SHOWN]).rstrip('.')}." if found.problems else ""
        raise NothingToDoError(
            f"No annotated images were found in {folder}: expected images/ and labels/ (or masks/) with files of the "
            "same names, a.tif beside a_masks.tif, <id>/images/ and <id>/masks/ as Kaggle ships them, or OME-Zarr "
            f"images with labels.{told}"
        )
    return found


def places(top: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[tuple[Path, DataSet | None]]:
    """Every folder below `top`, itself included, with the annotated images in it; None for a zarr store.

    Hidden folders, those of file servers and those of a layout already listed are left out. `onerror` gets the errors
    of folders that cannot be listed.
    """
    for name, folders, files in os.walk(top, onerror=onerror):
        place = Path(name)
        if is_zarr(place):
            folders.clear()
            yield place, None
            continue
        shown = sorted(name for name in folders if not _is_hidden(name))
        plain = [folder for folder in shown if not is_zarr(place / folder)]
        found, taken = _layouts(place, plain, sorted(filter(_may_count, files)), top)
        folders[:] = [folder for folder in shown if folder not in taken]
        yield place, found


def _layouts(place: Path, folders: list[str], files: list[str], top: Path) -> tuple[DataSet, set[str]]:
    """What is annotated in a folder with these folders and files in it, and the folders that this takes up."""
    parts, taken = [], set()
    for beside in folder_pairs(folders):
        is_there = (place / beside.labels).is_dir()
        label_folder = beside.labels if is_there else beside.labels.removesuffix(CHALLENGE)
        ignore = [folder for folder in folders if folder.lower() in FOLDERS_TO_IGNORE]
        parts.append(_with_ignored(place, _folders(place, beside.images, label_folder, top), beside.images, ignore))
        taken |= {beside.images, beside.labels.partition("/")[0], *beside.unused, *ignore}
        parts += [
            DataSet(problems=(f"{_key(place / other, top)}: not used, for there is {beside.labels}/ beside it",))
            for other in beside.unused
            if any(is_image_name(path.name) for path in (place / other).rglob("*"))
        ]
    here = [place / file for file in files]
    flat = _flat(here, top)
    for folder in label_folders(folders) if not taken and not flat.pairs and here else ():
        labels = _files(place / folder)
        found = _matched(here, labels, place, place / folder, top)
        if found.pairs:
            return joined([found]), {folder}
    return joined([flat, *parts]), taken


def _folders(place: Path, image_folder: str, label_folder: str, top: Path) -> DataSet:
    """Pairs of a folder of images and that of label images beside it, which may both have the same folders in them."""
    images, labels = _files(place / image_folder), _files(place / label_folder)
    kaggle = kaggle_pair(place, images, labels, top) if label_folder.lower() in PICTURE_FOLDERS else None
    if kaggle is not None:
        return DataSet((kaggle,))
    return _matched(images, labels, place / image_folder, place / label_folder, top)


def _with_ignored(place: Path, found: DataSet, image_folder: str, folders: list[str]) -> DataSet:
    """Pairs with the masks of the same name from folders of masks to ignore."""
    masks: dict[str, list[Path]] = {}
    for folder in folders:
        for path in _files(place / folder):
            masks.setdefault(path.relative_to(place / folder).with_suffix("").as_posix(), []).append(path)
    pairs = []
    for pair in found.pairs:
        assert isinstance(pair.image, Path)
        name = pair.image.relative_to(place / image_folder).with_suffix("").as_posix()
        pairs.append(replace(pair, ignore=tuple(masks.pop(name, ()))))
    unused = [f"{_key(path, place)}: no image of that name" for paths in masks.values() for path in paths]
    return replace(found, pairs=tuple(pairs), problems=(*found.problems, *unused))


def kaggle_pair(place: Path, images: list[Path], masks: list[Path], top: Path) -> Pair | None:
    """The image of a folder in Kaggle's layout, in which no mask is named after it; None for other folders.

    Without masks nobody found a nucleus in it, if the image is named after its folder.
    """
    if len(images) != 1:
        return None
    image = read_name(images[0].stem)
    if any({image.stem, image.core} & {named.stem, named.core} for named in (read_name(mask.stem) for mask in masks)):
        return None
    if not masks and (image.stem != place.resolve().name or not (place / "masks").is_dir()):
        return None
    return Pair(_key(place, top, images[0].stem), images[0], tuple(masks), pictures=True)


def _flat(files: list[Path], top: Path) -> DataSet:
    """Pairs of files in one folder, where a word in the name marks label images."""
    named = {path: read_name(path.stem) for path in files}
    images = {name for one in named.values() for name in (one.stem, one.image_core)}
    labels = [path for path, one in named.items() if one.label_rank is not None and one.core in images - {one.stem}]
    if not labels:
        return DataSet(loose=tuple(files))
    others = [path for path in files if path not in labels]
    return _matched(others, labels, files[0].parent, files[0].parent, top)


def _matched(images: list[Path], labels: list[Path], images_at: Path, labels_at: Path, top: Path) -> DataSet:
    """Pairs of images and label images by name: the same one, or the same core, of several label images the best."""
    problems: list[str] = []
    by_name, label_names = _by_name(images, images_at, top, problems), _by_name(labels, labels_at, top, problems)
    flat = images_at == labels_at
    cores: dict[str, list[tuple[int, str]]] = {}
    for name, (_, one) in label_names.items():
        cores.setdefault(one.core, []).append((-1 if one.label_rank is None else one.label_rank, name))
    pairs, used, orphans = [], set(), []
    for name, (image, one) in by_name.items():
        same = [name] if name in label_names else []
        by_core = [label for _, label in sorted(cores.get(one.stem, [])) or sorted(cores.get(one.image_core, []))]
        label = next(iter(same or by_core), None)
        if label is not None:
            pairs.append(Pair(_key(image, top), image, (label_names[label][0],)))
            used.add(label)
        elif flat and one.label_rank is not None:
            problems.append(f"{_key(image, top)}: no image of that name")
            orphans.append(image)
        else:
            problems.append(f"{_key(image, top)}: no labels of that name")
    known = {core for _, one in by_name.values() for core in (one.stem, one.image_core)}
    for name, (path, one) in label_names.items():
        if name not in used:
            taken = bool(known & {one.stem, one.core})
            problems.append(f"{_key(path, top)}: {'its image has other labels' if taken else 'no image of that name'}")
            orphans += [] if taken else [path]
    return DataSet(tuple(pairs), tuple(problems), tuple(orphans))


def _by_name(files: list[Path], folder: Path, top: Path, problems: list[str]) -> dict[str, tuple[Path, AnnotationName]]:
    """Files by their path in a folder without suffix; of two that differ in suffix only the first counts."""
    found: dict[str, tuple[Path, AnnotationName]] = {}
    for path in files:
        named = read_name(path.relative_to(folder).with_suffix("").as_posix())
        first, _ = found.setdefault(named.stem, (path, named))
        if first != path:
            problems.append(f"{_key(path, top)}: not used, for there is {first.name} beside it")
    return found


def _files(folder: Path) -> list[Path]:
    """Images at any depth in a folder."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        found += [path for path in (Path(place) / name for name in names if _may_count(name)) if path.is_file()]
    return sorted(found)


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or SYSTEM_FOLDERS.fullmatch(folder) is not None


def _may_count(name: str) -> bool:
    """Whether a file may be an image or a label image: not what segmentation tools write besides, such as outlines."""
    return is_image_name(name) and not (tool_of(name) and read_name(stem_of(name)).label_rank is None)


def _none_annotated(place: Path, top: Path, found: DataSet) -> str:
    count = f"{len(found.loose)} image{'s' * (len(found.loose) > 1)}"
    native = any(name.endswith("_seg.npy") for name in os.listdir(place))
    hint = "; save Cellpose's masks as PNG or TIFF, its _seg.npy files are not read" if native else ""
    return f"{_key(place, top, top.name)}: {count}, none with annotation beside it{hint}"


def _key(path: Path, top: Path, top_name: str = "") -> str:
    return top_name if path == top else path.relative_to(top).as_posix()
