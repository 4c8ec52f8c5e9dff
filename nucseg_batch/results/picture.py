"""Pictures of results: the image with its contrast stretched as the network saw it, and the outlines of nuclei."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from nucseg_batch.arrays.normalize import apply_range, percentile_range

Colour = tuple[int, int, int]
ON_DARK: tuple[Colour, Colour] = ((255, 220, 0), (255, 70, 200))
"""Outlines of nuclei and of doubtful ones: yellow and pink."""
ON_BRIGHT: tuple[Colour, Colour] = ((0, 158, 115), (213, 94, 0))
"""The same over bright pictures: green and vermilion, which everyone can tell apart."""
BRIGHT = 128
"""Pictures whose median grey value is above this are bright."""


def stretched(pixels: NDArray[Any], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """(height, width, 3) to look at: between the percentiles that the network is shown as 0 and 1.

    pixels: (height, width) or (height, width, 3) of any real dtype; limits: other values that become black and white.
    """
    shown = np.minimum(apply_range(pixels, *(limits or percentile_range(pixels))), 1)
    picture = np.dstack([shown] * 3) if shown.ndim == 2 else shown
    return np.rint(picture * 255).astype(np.uint8)


def is_bright(picture: NDArray[np.uint8]) -> bool:
    """Whether a picture to look at, (height, width, 3), is mostly bright, as stained tissue is."""
    return bool(np.median(picture) > BRIGHT)


def outline_colour(picture: NDArray[np.uint8]) -> Colour:
    """The colour of outlines that is seen in a picture."""
    return (ON_BRIGHT if is_bright(picture) else ON_DARK)[0]


def outlines(mask: NDArray[np.integer], width: int = 1) -> NDArray[np.bool_]:
    """(height, width): the pixels just inside the border of each nucleus, `width` of them."""
    edge = find_boundaries(mask, mode="inner")
    for _ in range(width - 1):
        edge |= find_boundaries(np.where(edge, 0, mask), mode="inner")
    return edge


def overlay(pixels: NDArray[Any], mask: NDArray[np.integer], *, width: int = 1) -> NDArray[np.uint8]:
    """The stretched image, (height, width, 3), with the outline of each nucleus of its mask."""
    picture = stretched(pixels)
    picture[outlines(mask, width)] = outline_colour(picture)
    return picture
