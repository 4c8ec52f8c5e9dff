"""How the pixel values of a label image are interpreted: as labels, a binary mask or colours, or not at all.

The rules are the same for `train` and `evaluate`:

| stored | result |
|---|---|
| whole numbers of any type, 0 for background | labels, renumbered 1..n in their order |
| one non-zero value in several components | binary mask: components are numbered; doubtful |
| flat colours on black | components of one colour are numbered; doubtful |
| many labels in several components each, or all 255 labels used and one of them in several | labels; doubtful |
| fractions, negative numbers | refused |
| a non-zero value along most of the border | refused: inverted mask, or a labelled background |
| mostly components less than 3 pixels wide | refused: intensities, interpolated or lossy labels, outlines |

For predictions the last two are doubtful rather than refused, because a bad prediction must still get its score. Plain
intensities are refused there, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

from nucseg_batch.errors import ImageError
from nucseg_batch.plan import Assumption

BORDER_SHARE = 0.5
"""A value on a larger share of the border pixels than this, and on all four sides, is the background."""
MIN_THIN = 10
"""Thin components that are tolerated in any label image."""
MIN_EXTRA_PIECES = 3
"""Components in excess of one per label below which labels are not doubted."""
EXTRA_SHARE = 0.1
"""The same as a share of the number of labels."""
LIMITS = (255, 65535)
"""Largest 8-bit and 16-bit labels, where numbering wraps around or saturates."""
OUTLINE = 1.3
"""Ratio of filled area to area above which a component is an outline."""
MIN_OUTLINES = 3
"""Outlines below which a mask may hold nuclei with holes."""
EXACT_IN_FLOAT = 2**24
"""Integers from here on are not all exact in single precision."""

ONE_NUMBER_EACH = "provide label images with one number per nucleus"
"""Remedy for most doubts."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """The nuclei of one image."""

    labels: NDArray[np.int32]
    """(height, width), nuclei 1..n, 0 for background."""
    assumptions: tuple[Assumption, ...] = ()
    """Assumptions about the encoding."""


def decode(numbers: NDArray[Any], name: str, *, semantic: bool = False, prediction: bool = False) -> Annotation:
    """The nuclei of a label image (height, width) or (height, width, 3) of any real dtype.

    semantic: only the foreground matters, so a binary mask is not doubtful. prediction: the image is to be scored, so
    labels that look wrong are doubtful rather than refused. Raises ImageError, whose text begins with `name`, for
    anything that cannot be a label image.
    """
    if numbers.ndim == 3 and (numbers == numbers[..., :1]).all():
        numbers = numbers[..., 0]
    colours = numbers.ndim == 3
    labels = _numbered(_colour_codes(numbers) if colours else _whole(numbers, name))
    count = int(labels.max(initial=0))
    if count == 0:
        return Annotation(labels)
    pieces = label(labels, connectivity=2).astype(np.int32, copy=False)
    doubts = _Objections(name, prediction)
    if not (semantic and count == 1):
        _check_background(labels, pieces, numbers, doubts)
    _check_width(labels, pieces, count, doubts, colours=colours)
    total = int(pieces.max())
    if colours or (count == 1 and total > 1):
        if not semantic:
            doubts.found.append(_BINARY if count == 1 else _COLOURS)
        return Annotation(pieces, tuple(doubts.found))
    extra = total - count
    if extra and count in LIMITS and int(numbers.max()) == count:
        doubts.found.append(_LIMIT)
    elif extra >= max(MIN_EXTRA_PIECES, EXTRA_SHARE * count):
        doubts.found.append(_IN_PIECES)
    return Annotation(labels, tuple(doubts.found))


def number_pieces(labels: NDArray[np.integer]) -> Annotation:
    """Trusted labels, renumbered; the components of a binary mask are numbered, which is doubtful."""
    dense = _numbered(labels)
    if dense.max(initial=0) == 1:
        pieces = label(dense, connectivity=2).astype(np.int32, copy=False)
        if pieces.max() > 1:
            return Annotation(pieces, (_BINARY,))
    return Annotation(dense)


def _doubtful(*, what: str, evidence: str, option: str = ONE_NUMBER_EACH) -> Assumption:
    return Assumption(kind="labels", what=what, evidence=evidence, option=option, doubtful=True)


_BINARY = _doubtful(
    what="read as a binary mask: connected components are numbered, touching nuclei count as one",
    evidence="one non-zero value in several components",
)
_COLOURS = _doubtful(
    what="colours are read as labels: connected components of one colour are numbered",
    evidence="flat colours on black",
)
_IN_PIECES = _doubtful(
    what="each label is read as one nucleus",
    evidence="many labels occur in several separate components, as in class masks",
)
_LIMIT = _doubtful(
    what="each label is read as one nucleus",
    evidence="all 8-bit or 16-bit labels are used and some occur in several components, as after an overflow",
    option="store the labels with more bits",
)


class _Objections:
    """Objections to a label image: errors, or doubtful assumptions for predictions."""

    def __init__(self, name: str, prediction: bool) -> None:
        self.name = name
        self.prediction = prediction
        self.found: list[Assumption] = []

    def add(self, measured: str, like: str, remedy: str, *, surely: bool = False) -> None:
        """Raises ImageError, unless this may be a bad prediction."""
        if surely or not self.prediction:
            raise ImageError(f"{self.name} is not a label image: {measured}, {like}; {remedy}.")
        self.found.append(Assumption("labels", "scored as a label image", f"it looks wrong: {like}", remedy, True))


def _whole(numbers: NDArray[Any], name: str) -> NDArray[Any]:
    """The numbers as integers; ImageError where they are not whole or are negative."""
    if numbers.dtype.kind == "f":
        if numbers.size and float(numbers.max()) >= EXACT_IN_FLOAT:
            raise ImageError(
                f"{name} is {numbers.dtype} up to {numbers.max():.0f}; labels of {EXACT_IN_FLOAT} and more are not "
                "exact in single precision; store them as integers."
            )
        if (numbers != np.round(numbers)).any():
            raise ImageError(
                f"{name} is {numbers.dtype} with fractions, from {numbers.min():g} to {numbers.max():g}; labels are "
                "whole numbers, 0 for background."
            )
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind == "b":
        numbers = numbers.astype(np.uint8)
    if numbers.dtype.kind not in "ui" or numbers.min(initial=0) < 0:
        raise ImageError(f"{name} is {numbers.dtype} from {numbers.min()}; labels are whole numbers, 0 for background.")
    return numbers


def _colour_codes(pixels: NDArray[Any]) -> NDArray[np.uint64]:
    """One number for each colour, 0 for black."""
    bits = 16 if pixels.dtype.itemsize == 2 else 8
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        _, inverse = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        return np.asarray(inverse, np.uint64).reshape(pixels.shape[:2]) + np.uint64(1)
    red, green, blue = (pixels[..., channel].astype(np.uint64) for channel in range(3))
    return red << np.uint64(2 * bits) | green << np.uint64(bits) | blue


def _numbered(numbers: NDArray[Any]) -> NDArray[np.int32]:
    """Labels as 1..n in the order of the numbers they have."""
    _, dense = np.unique(np.append(numbers, numbers.dtype.type(0)), return_inverse=True)
    return dense[:-1].reshape(numbers.shape).astype(np.int32)


def border_number(numbers: NDArray[Any]) -> int:
    """The value of more than BORDER_SHARE of the border pixels of (height, width), on all four sides; 0 without one."""
    sides = (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1])
    values, counts = np.unique(np.concatenate(sides), return_counts=True)
    most = int(values[counts.argmax()])
    if counts.max() <= BORDER_SHARE * counts.sum() or not all((side == most).any() for side in sides):
        return 0
    return most


def _check_background(
    labels: NDArray[np.int32], pieces: NDArray[np.int32], numbers: NDArray[Any], doubts: _Objections
) -> None:
    """Refuses labels with a labelled background, and inverted binary masks."""
    binary = labels.max() == 1
    around = border_number(labels)
    if around and binary and (labels > 0).mean() <= BORDER_SHARE and not border_number(pieces):
        return  # dense tissue
    if around:
        at = labels == around
        shown = numbers[at][0]
        shown = tuple(int(part) for part in shown) if numbers.ndim == 3 else int(shown)
        doubts.add(
            f"{shown} covers {at.mean():.0%} of it and most of its border",
            "like a background",
            "invert it, or set its background to 0",
        )


def _check_width(
    labels: NDArray[np.int32], pieces: NDArray[np.int32], count: int, doubts: _Objections, *, colours: bool
) -> None:
    """Refuses outlines, and labels of which most components have no pixel surrounded by its own value."""
    if count == 1 and _are_outlines(pieces):
        doubts.add("most components of its mask enclose a hole", "like outlines", "fill the outlines")
        return
    inner = ndimage.maximum_filter(labels, 3, mode="nearest") == ndimage.minimum_filter(labels, 3, mode="nearest")
    total = int(pieces.max())
    solid = np.unique(pieces[inner & (labels > 0)]).size
    thin = total - solid
    if thin <= total / 2 or (thin < MIN_THIN and not colours):
        return
    if colours:
        doubts.add(
            "it is a colour image",
            "not flat colours on black",
            "provide one plane of labels, 0 for background",
            surely=True,
        )
    if count == 1:
        doubts.add(
            f"{thin} of the {total} components of its mask are less than 3 pixels wide",
            "like outlines or specks",
            "fill the outlines, or remove the specks",
        )
    else:
        doubts.add(
            f"{thin} of its {total} connected components are less than 3 pixels wide",
            "as in raw intensities, or after interpolation or lossy compression",
            "resize labels with nearest neighbour and save them losslessly",
            surely=total > 2 * count or (labels == 0).mean() < 0.01,
        )


def _are_outlines(pieces: NDArray[np.int32]) -> bool:
    """Whether most pieces of a binary mask are outlines."""
    found = regionprops(pieces)
    outlines = sum(1 for piece in found if piece.area_filled > OUTLINE * piece.area)
    return outlines >= MIN_OUTLINES and outlines > len(found) / 2
