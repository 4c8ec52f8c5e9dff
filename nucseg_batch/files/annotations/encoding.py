"""What the numbers of a label image mean: labels, a binary mask, colours, or nothing that can be taken for nuclei.

`train` and `evaluate` accept and refuse the same:

| stored | result |
|---|---|
| whole numbers of any type, 0 for background | labels, renumbered 1..n in their order |
| one number besides 0, in several pieces | a binary mask: pieces are numbered, with a doubtful assumption |
| flat colours on black | pieces of one colour are numbered, with a doubtful assumption |
| many numbers in several pieces each, or 255 numbers and one of them in pieces | labels, with a doubtful assumption |
| fractions, negative numbers | refused |
| a number other than 0 around the image | refused: inverted, or the background has a number |
| mostly pieces less than 3 pixels wide | refused: intensities, interpolated or lossy labels, outlines |

The last two are doubtful assumptions instead where a prediction is scored, which may be as bad as it likes, unless the
pieces are plainly those of intensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from nucseg_batch.errors import ImageError
from nucseg_batch.plan import Assumption

BORDER_SHARE = 0.5
"""A number on more of the image's border than this, and on all four sides, is the background's."""
MIN_THIN = 10
"""Fewer pieces less than 3 pixels wide are no reason to refuse labels."""
MIN_EXTRA_PIECES = 3
"""Fewer pieces than these above one a number are no reason to doubt labels."""
EXTRA_SHARE = 0.1
"""Nor are fewer than this share of the numbers."""
LIMITS = (255, 65535)
"""Largest numbers of 8 and 16 bit, after which numbering starts again at 0 or stands still."""
EXACT_IN_FLOAT = 2**24
"""Whole numbers from here on are not all different in single precision."""

ONE_NUMBER_EACH = "give label images with one number per nucleus"
"""What to do about most doubts."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """The nuclei of one image."""

    labels: NDArray[np.int32]
    """(height, width), nuclei 1..n, 0 for background."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of how they are stored."""


def decode(numbers: NDArray[Any], name: str, *, semantic: bool = False, prediction: bool = False) -> Annotation:
    """The nuclei of a label image (height, width) or (height, width, 3) of any real dtype.

    semantic: only the foreground counts, so that a binary mask is no reason for doubt. prediction: it is scored, so that
    a bad one is no reason to refuse it. Raises ImageError, whose text begins with `name`, for what cannot be labels.
    """
    if numbers.ndim == 3 and (numbers == numbers[..., :1]).all():
        numbers = numbers[..., 0]
    colours = numbers.ndim == 3
    labels = _numbered(_colour_codes(numbers) if colours else _whole(numbers, name))
    count = int(labels.max(initial=0))
    if count == 0:
        return Annotation(labels)
    pieces = label(labels, connectivity=2).astype(np.int32, copy=False)
    doubts = _Doubts(name, prediction)
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
    """Labels that are known to be such, except that the pieces of a binary mask are numbered, with a doubt."""
    dense = _numbered(labels)
    if dense.max(initial=0) == 1:
        pieces = label(dense, connectivity=2).astype(np.int32, copy=False)
        if pieces.max() > 1:
            return Annotation(pieces, (_BINARY,))
    return Annotation(dense)


_BINARY = Assumption(
    kind="labels",
    what="it is a binary mask: pieces are numbered, and touching nuclei count as one",
    evidence="one number besides 0, in several pieces",
    option=ONE_NUMBER_EACH,
    doubtful=True,
)
_COLOURS = Assumption(
    kind="labels",
    what="its colours are labels: pieces of one colour are numbered, and touching nuclei of one colour count as one",
    evidence="flat colours on black",
    option=ONE_NUMBER_EACH,
    doubtful=True,
)
_IN_PIECES = Assumption(
    kind="labels",
    what="each number is one nucleus, although many numbers lie in several separate pieces",
    evidence="label images may hold nuclei in pieces; so do masks of classes",
    option=ONE_NUMBER_EACH,
    doubtful=True,
)
_LIMIT = Assumption(
    kind="labels",
    what="each number is one nucleus, although all numbers of its type are used and some lie in separate pieces",
    evidence="more nuclei than 8 or 16 bit can number give such labels, too",
    option="store the labels with more bits",
    doubtful=True,
)


class _Doubts:
    """What speaks against a label image: an error, or where a prediction is scored a doubtful assumption."""

    def __init__(self, name: str, prediction: bool) -> None:
        self.name = name
        self.prediction = prediction
        self.found: list[Assumption] = []

    def add(self, measured: str, like: str, remedy: str, *, surely: bool = False) -> None:
        """Raises ImageError, unless it may be a bad prediction."""
        if surely or not self.prediction:
            raise ImageError(f"{self.name} is no label image: {measured}, {like}; {remedy}.")
        self.found.append(Assumption("labels", "it is scored as a label image", f"looks wrong, {like}", remedy, True))


def _whole(numbers: NDArray[Any], name: str) -> NDArray[Any]:
    """The numbers as integers; ImageError where they are not whole or are negative."""
    if numbers.dtype.kind == "f":
        if numbers.size and float(numbers.max()) >= EXACT_IN_FLOAT:
            raise ImageError(
                f"{name} is {numbers.dtype} up to {numbers.max():.0f}; labels of {EXACT_IN_FLOAT} and more are not exact "
                "in single precision; store them as integers."
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
    """The number of most pixels of the border of (height, width); 0 where none has more than BORDER_SHARE of them."""
    sides = (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1])
    values, counts = np.unique(np.concatenate(sides), return_counts=True)
    most = int(values[counts.argmax()])
    if counts.max() <= BORDER_SHARE * counts.sum() or not all((side == most).any() for side in sides):
        return 0
    return most


def _check_background(
    labels: NDArray[np.int32], pieces: NDArray[np.int32], numbers: NDArray[Any], doubts: _Doubts
) -> None:
    """Refuses labels whose background has a number, and binary masks of which more than half, and of the border, is 1."""
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
            "as a background does",
            "invert it, or set its background to 0",
        )


def _check_width(
    labels: NDArray[np.int32], pieces: NDArray[np.int32], count: int, doubts: _Doubts, *, colours: bool
) -> None:
    """Refuses labels of which most pieces have no pixel with neighbours of the same number only."""
    inner = ndimage.maximum_filter(labels, 3, mode="nearest") == ndimage.minimum_filter(labels, 3, mode="nearest")
    total = int(pieces.max())
    solid = np.unique(pieces[inner & (labels > 0)]).size
    thin = total - solid
    if thin <= total / 2 or (thin < MIN_THIN and not colours):
        return
    if colours:
        doubts.add(
            "it is a colour picture",
            "not flat colours on black",
            "annotation is one plane of numbers, 0 for background",
            surely=True,
        )
    if count == 1:
        doubts.add(
            f"{thin} of the {total} pieces of its mask are less than 3 pixels wide",
            "as outlines or specks are",
            "fill the outlines, or remove the specks",
        )
    else:
        doubts.add(
            f"{thin} of its {total} pieces of one number are less than 3 pixels wide",
            "as in an image of intensities, or after interpolation or lossy compression",
            "give labels that were resized with nearest neighbour and stored without loss",
            surely=total > 2 * count or (labels == 0).mean() < 0.01,
        )
