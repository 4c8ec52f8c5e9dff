"""Label images of z-stacks, in which a nucleus has one label in all slices; read slice by slice.

They are a TIFF, an OME-Zarr label image, or the volumes of a run. Values count as they are stored. A stack is never
read as a whole, so of what `encoding` checks only that values are whole numbers is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.compartments import VOLUMES
from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations.pairs import Pair
from nucseg_batch.files.annotations.reading import MAX_PIXELS
from nucseg_batch.files.images import open_file
from nucseg_batch.files.run.masks import Masks, mask_places
from nucseg_batch.files.tiff.axes import UnknownAxesError
from nucseg_batch.files.zarr.planes import ZarrPlane
from nucseg_batch.plan import Assumption

MOST = 2**32 - 1
"""The largest label."""


@dataclass(frozen=True, eq=False)
class LabelStack:
    """The labels of a stack, or of the stacks of several time points, which are not read yet."""

    shape: tuple[int, int, int, int]
    """Time points, z-slices, height and width."""
    read: Callable[[int, int], NDArray[Any]]
    """Reads a slice (height, width) by time point and slice; raises ImageError where it holds no labels."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed."""


def run_stacks(store: Path) -> Iterator[tuple[str, Callable[[], LabelStack]]]:
    """The volumes of a run by image; none of a run without, and of images without z-slices."""
    places = mask_places(store)
    joined = [image for image, (mask, _) in places.items() if (store / mask).with_name(VOLUMES).is_dir()]
    if joined:
        masks = Masks(store, VOLUMES, joined)
        yield from ((image, lambda image=image: _volumes(masks, image)) for image in joined)


def _volumes(masks: Masks, image: str) -> LabelStack:
    """The volumes of an image of a run; UnfinishedError where it is not done now."""
    array, place = masks.array(image)
    free = [axis for axis, at in enumerate(place) if isinstance(at, slice)]  # z, or t and z

    def read(t: int, z: int) -> NDArray[Any]:
        where = list(place)
        for axis, at in zip(reversed(free), (z, t), strict=False):
            where[axis] = at
        try:
            return np.asarray(array[tuple(where)])
        except OSError:
            raise
        except Exception as error:  # what zarr and its codecs raise for damaged chunks is of many classes
            raise ImageError(
                f"its volumes cannot be read ({type(error).__name__}); `nucseg-batch verify` says what is damaged."
            ) from error

    height, width = array.shape[-2:]
    times = array.shape[free[0]] if len(free) > 1 else 1
    return LabelStack((times, array.shape[free[-1]], height, width), read)


def open_stack(source: Pair | ZarrPlane | tuple[Path, ...], *, pictures: bool = False) -> LabelStack:
    """The stack of a label image that was found; ImageError where it is none."""
    pictures |= isinstance(source, Pair) and source.pictures
    labels = source.labels if isinstance(source, Pair) else source
    if isinstance(labels, ZarrPlane):
        shape, read = labels.open_slices(max_pixels=MAX_PIXELS)
        return LabelStack(shape, lambda t, z: _whole(read(t, z)))
    if pictures or len(labels) != 1:
        raise ImageError("pictures of single nuclei are no stack; give label stacks as TIFF or OME-Zarr.")
    return _file_stack(labels[0])


def _file_stack(path: Path) -> LabelStack:
    """A TIFF; an axis of which it says nothing is taken for z."""
    assumed: tuple[Assumption, ...] = ()
    try:
        source = open_file(path, max_pixels=MAX_PIXELS)
    except UnknownAxesError:
        source = open_file(path, max_pixels=MAX_PIXELS, axes="ZYX")
        assumed = (_SLICES,)
    header = source.header
    assumed = assumed or (_SLICES,) * any(one.kind == "axes" for one in header.assumptions)
    if header.length("C") > 1 or "S" in header.axes:
        raise ImageError("it has several channels; a label stack has the axes (z, y, x), or (t, z, y, x).")
    times, depth, height, width = (header.length(axis) for axis in "TZYX")

    def read(t: int, z: int) -> NDArray[Any]:
        plane = source.read(t, z, slice(0, height), slice(0, width))
        return _whole(plane[0] if "C" in header.axes else plane)

    return LabelStack((times, depth, height, width), read, assumed)


_SLICES = Assumption(
    kind="labels",
    what="the pages are z-slices",
    evidence="the file does not name this axis",
    option="name the axes in the file, as ImageJ and OME-TIFF do",
)


def _whole(plane: NDArray[Any]) -> NDArray[Any]:
    """The plane as labels; ImageError where values are not whole, negative or too large."""
    if plane.ndim != 2:
        raise ImageError("it has three channels; labels are grey.")
    low, high = (plane.min(), plane.max()) if plane.size else (0, 0)
    if plane.dtype.kind == "f" and not (plane == np.rint(plane)).all():
        raise ImageError("it is no label stack: it has fractions, as intensities and interpolated labels have.")
    if low < 0 or high > MOST:
        raise ImageError(f"it is no label stack: its values reach from {low:.0f} to {high:.0f}.")
    return plane.astype(np.int64) if plane.dtype.kind == "f" else plane


def empty_stack(like: LabelStack) -> LabelStack:
    """A stack of this shape in which nothing was found."""
    nothing = np.zeros(like.shape[-2:], np.uint8)
    return replace(like, read=lambda t, z: nothing, assumptions=())
