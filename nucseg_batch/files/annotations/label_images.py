"""Finds label images to compare: all that `train` takes, folders of label images alone, and the masks of a run.

Nothing is read before it is asked for, except the metadata of zarr stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.files.annotations.encoding import Annotation, number_pieces
from nucseg_batch.files.annotations.label_stacks import LabelStack, open_stack, run_stacks
from nucseg_batch.files.annotations.layouts import places
from nucseg_batch.files.annotations.names import stem
from nucseg_batch.files.annotations.pairs import DataSet, Pair
from nucseg_batch.files.annotations.reading import MAX_PIXELS, read_label_files, read_label_plane
from nucseg_batch.files.annotations.zarr_layouts import label_groups, zarr_pairs
from nucseg_batch.files.masks.store import is_ours
from nucseg_batch.files.names import name_beside
from nucseg_batch.files.run.masks import mask_places
from nucseg_batch.files.zarr.planes import ZarrPlane, is_zarr

Read = TypeVar("Read")
NAMED = 3
"""Files that are named where some are left out."""


@dataclass(frozen=True)
class LabelImage:
    """A label image that can be read."""

    name: str
    """Path relative to the place given, without suffix: of the label image, or of the image where both are in one
    folder; of Kaggle's layout the folder `<id>`, of a store its name."""
    read: Callable[[], Annotation]
    """Reads it; raises ImageError naming the file."""
    aliases: tuple[str, ...] = ()
    """Other names that mean it."""
    lone: bool = False
    """Whether it is a store of its own, whose name need not be an image's."""
    stack: Callable[[], LabelStack] | None = None
    """Opens it as a z-stack; raises ImageError naming the file. None where it is not one."""


@dataclass(frozen=True)
class LabelImages:
    """The label images of a place."""

    images: tuple[LabelImage, ...]
    """Sorted by name; there is at least one."""
    notes: tuple[str, ...] = ()
    """Lines on what was left out."""


def find_label_images(place: Path, argument: str, label: str = NUCLEI_LABEL) -> LabelImages:
    """The label images of PRED or TRUTH (`argument`).

    label: which label image of a run, and of an image with several of them: `nuclei`, or `volumes` of z-stacks.

    Understood are

    - OUT.zarr of a run;
    - an OME-Zarr label image, an OME-Zarr image with labels, or a store with such images at any depth; of several
      label images of one image the one called `label` is taken, or else nuclei;
    - a folder with annotated images in any layout of `layouts`, whose images, and files beside them that are neither,
      are left out; where there are images in Kaggle's layout, all other files are;
    - a folder of label images at any depth, and `*.zarr` as above but OUT.zarr. Hidden files are left out.

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
    prediction = argument == "PRED"
    if is_zarr(place):
        found = LabelImages(tuple(_of_run(place, label) if is_ours(place) else _store(place, prediction, label)))
    else:
        found = _search(place, prediction, label)
    if not found.images and label == VOLUMES and is_ours(place):
        raise NothingToDoError(f"{argument} {place}: the run has no volumes; segment with --link z.")
    if not found.images:
        raise NothingToDoError(
            f"{argument} {place}: no label image was found; expected label images (PNG or TIFF), alone or with their "
            "images in a layout that `train` accepts, or OME-Zarr labels; give the OUT.zarr of a run itself."
        )
    names: set[str] = set()
    for image in found.images:
        if image.name in names:
            raise UsageError(f"{place} holds two images named {image.name}, with different suffixes; keep one of them.")
        names.add(image.name)
    return replace(found, images=tuple(sorted(found.images, key=lambda image: image.name)))


def _of_run(path: Path, label: str) -> list[LabelImage]:
    if label == VOLUMES:
        return [LabelImage(stem(key), _no_plane, stack=_named(open_it, key)) for key, open_it in run_stacks(path)]
    places = mask_places(path).items()
    return [LabelImage(stem(key), partial(_read_mask, ZarrPlane(path / mask, i), key)) for key, (mask, i) in places]


def _read_mask(mask: ZarrPlane, key: str) -> Annotation:
    try:
        return number_pieces(mask.read(max_pixels=MAX_PIXELS))
    except ImageError as error:
        raise ImageError(f"{key}: {error}") from error


def _store(path: Path, prediction: bool, label: str) -> list[LabelImage]:
    """The label images of an OME-Zarr store: one at its root is called after the store, others after their group."""
    return [
        replace(_made(inside or _store_name(path), ZarrPlane(group), str(group), prediction), lone=True)
        for inside, group in label_groups(path, label)
    ]


def _store_name(path: Path) -> str:
    """Name of the store that a group is in, without suffix."""
    above = (path.resolve(), *path.resolve().parents)
    return next((folder.stem for folder in above if folder.suffix == ".zarr"), above[0].name)


def _search(top: Path, prediction: bool, label: str) -> LabelImages:
    """The label images below a folder; those in Kaggle's layout alone where there are any."""
    pictures: list[LabelImage] = []
    others: list[LabelImage] = []
    loose: list[DataSet] = []
    paired_at: set[Path] = set()
    notes: list[str] = []
    own: list[LabelImage] = []
    for place, content in places(top, onerror=_refuse):
        if content is None:
            if is_ours(place):
                own += [_of_pair(pair, top, prediction) for pair in zarr_pairs(place, top).pairs]
            else:
                others += _stored(place, top, prediction, label)
        elif place.name == "masks" and top not in (place, place.parent):  # without images/ beside it
            pictures.append(_of_pictures(place.parent, content.loose, top, prediction))
        else:
            pictures += [_of_pair(pair, top, prediction) for pair in content.pairs if pair.pictures]
            pairs = [pair for pair in content.pairs if not pair.pictures]
            others += [_of_pair(pair, top, prediction) for pair in pairs]
            others += [_of_file(path, top, prediction) for path in content.orphans]
            notes += _left_out(content.problems) if pairs else []
            paired_at |= {place} if pairs else set()
            loose.append(content)
    beside = []
    for path in (path for content in loose for path in content.loose):
        if paired_at.isdisjoint(path.parents):
            others.append(_of_file(path, top, prediction))
        else:
            beside.append(path)
    if beside:
        shown = _listed([path.relative_to(top).as_posix() for path in beside])
        notes.append(f"{shown}: neither images nor label images, left out")
    if not prediction and not pictures and not others:
        others = own
    return LabelImages(tuple(pictures or others), tuple(notes))


def _left_out(problems: Iterable[str]) -> list[str]:
    """What did not pair, in few lines; label images without an image are compared all the same."""
    lines = [line for line in problems if not line.endswith("no image of that name")]
    images = [line.split(": ")[0] for line in lines if line.endswith("no labels of that name")]
    rest = [line for line in lines if not line.endswith("no labels of that name")]
    return ([f"{_listed(images)}: without annotation, left out"] if images else []) + rest


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _refuse(error: OSError) -> None:
    """Ends the search at a folder that cannot be listed: images left out in silence would change a score."""
    raise InputMissingError(f"{error.filename}: this folder cannot be read ({error.strerror}).") from error


def _stored(store: Path, top: Path, prediction: bool, label: str) -> Iterator[LabelImage]:
    for inside, group in label_groups(store, label):
        yield _made(f"{_name(store, top)}/{inside}".rstrip("/"), ZarrPlane(group), str(group), prediction)


def _of_file(path: Path, top: Path, prediction: bool) -> LabelImage:
    return _made(_name(path, top), (path,), str(path), prediction)


def _of_pair(pair: Pair, top: Path, prediction: bool) -> LabelImage:
    if isinstance(pair.image, ZarrPlane) or isinstance(pair.labels, ZarrPlane):
        return _made(stem(pair.key), pair, pair.key, prediction)
    image = _name(pair.image, top)
    if pair.pictures:
        return _of_pictures(pair.image.parent.parent, pair.labels, top, prediction, pair)
    label = _name(pair.labels[0], top)
    beside = pair.image.parent == pair.labels[0].parent
    return replace(_made(image if beside else label, pair, str(pair.labels[0]), prediction), aliases=(image,))


def _of_pictures(
    folder: Path, files: tuple[Path, ...], top: Path, prediction: bool, pair: Pair | None = None
) -> LabelImage:
    """The image of a folder in Kaggle's layout."""
    name = folder.relative_to(top).as_posix() if folder != top else folder.resolve().name
    aliases = {f"{name}/images/{folder.name}"}
    if pair is not None and isinstance(pair.image, Path):
        aliases |= {f"{name}/images/{pair.image.stem}", _name(pair.image, top)}
    source = pair if pair is not None else files
    return replace(_made(name, source, str(folder), prediction, pictures=True), aliases=tuple(sorted(aliases)))


def _name(path: Path, top: Path) -> str:
    return stem(path.relative_to(top).as_posix())


def _made(
    name: str, source: Pair | ZarrPlane | tuple[Path, ...], shown: str, prediction: bool, *, pictures: bool = False
) -> LabelImage:
    """A label image, which is called `shown` in errors."""

    def read() -> Annotation:
        if isinstance(source, Pair):
            return source.read_labels(prediction=prediction)
        if isinstance(source, ZarrPlane):
            return read_label_plane(source, prediction=prediction)
        return read_label_files(source, pictures=pictures, prediction=prediction)

    return LabelImage(name, _named(read, shown), stack=_named(partial(open_stack, source, pictures=pictures), shown))


def _named(function: Callable[[], Read], shown: str) -> Callable[[], Read]:
    """The same, with errors that name what it reads."""

    def named() -> Read:
        try:
            return function()
        except ImageError as error:
            raise ImageError(f"{shown}: {error}") from error

    return named


def _no_plane() -> Annotation:
    raise ImageError("volumes are stacks, and no plane.")
