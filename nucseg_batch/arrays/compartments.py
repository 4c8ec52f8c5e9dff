"""Regions around nuclei: expansions ("cells") and rings ("cytoplasm"), which never overlap.

A background pixel belongs to the nearest nucleus, by the Euclidean distance to the nearest pixel of it. Where two are
equally near, the smaller label wins. A distance transform that returns one nearest place decides such ties by the
order in which it visits pixels, and looks arbitrarily far. Here distance and label are one integer, `squared distance *
2**bits + rank of the label`, so that the minimum of these is the answer. It is separable: first the minimum along each
column, by a sweep down and one up, then along each row, over no more than `distance` pixels to each side. A pixel thus
depends on labels within `distance` alone, and a tile with a margin of `halo` pixels gives what the whole plane gives.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups

_BAND = 2**15
"""Pixels of a band of rows, which stays in the processor's cache while its shifted copies are compared."""


def expanded(labels: NDArray[np.integer], distance: float) -> NDArray[np.integer]:
    """Nuclei with the background around them: (height, width), of the type of `labels`.

    labels: (height, width), 0 and below are background. distance: in pixels; a background pixel at most so far from a
    nucleus gets its label, and all others are 0. Pixels of nuclei keep their label. As
    `skimage.segmentation.expand_labels`, which does not define ties. Raises ValueError where labels are no plane, or
    the distance is negative or not finite.
    """
    return _around(labels, -1, _largest_square(distance))


def rings(labels: NDArray[np.integer], gap: float, width: float) -> NDArray[np.integer]:
    """Rings around nuclei: (height, width), of the type of `labels`; each has the label of its nucleus.

    labels: (height, width), 0 and below are background. gap, width: in pixels; a ring has the background pixels whose
    distance to the nearest nucleus is above `gap` and at most `gap + width`. No pixel of any nucleus is in a ring, and
    a nucleus without room around it has none. Raises ValueError where labels are no plane, or a length is negative or
    not finite.
    """
    if not width >= 0:
        raise ValueError(f"a ring is at least 0 pixels wide, but {width} is given.")
    return _around(labels, _largest_square(gap), _largest_square(gap + width))


def halo(distance: float) -> int:
    """Pixels around a tile on which its part of `expanded`, or of `rings` with `gap + width`, depends."""
    return math.isqrt(_largest_square(distance))


def _largest_square(distance: float) -> int:
    """The largest whole number whose root, as a float, is at most this distance."""
    if not 0 <= distance < 2**15:
        raise ValueError(f"a distance is from 0 to 32767 pixels, but {distance} is given.")
    square = int(distance * distance) + 1
    while math.sqrt(square) > distance:
        square -= 1
    return square


def _around(labels: NDArray[np.integer], above: int, most: int) -> NDArray[np.integer]:
    """Labels of the nearest nuclei where the squared distance is above one number and at most another, 0 elsewhere."""
    if labels.ndim != 2:
        raise ValueError(f"labels must be a plane, but their shape is {labels.shape}.")
    found = np.zeros_like(labels, order="C")
    highest = int(labels.max(initial=0))
    if highest <= 0:
        return found
    reach = math.isqrt(most)
    height, width = labels.shape
    ids, nuclei = None, labels
    if _key_type(reach, highest.bit_length()) == np.int64:  # few nuclei with high labels
        groups = Groups.of(labels)
        ids, highest = np.append(0, groups.ids), groups.ids.size
        nuclei = np.zeros(labels.shape, np.int64)
        nuclei.flat[groups.place] = groups.spread(np.arange(highest) + 1)
    bits = highest.bit_length()
    # Between two rows lies a gap, so that a shift does not reach the next.
    keys = np.full((height, width + reach), (reach + 1) << bits, _key_type(reach, bits))
    np.copyto(keys[:, :width], nuclei, where=nuclei > 0, casting="unsafe")
    sweep(keys, 1 << bits)
    rows = max(1, _BAND // (width + reach))
    for top in range(0, height, rows):
        band = slice(top, top + rows)
        nearest = _nearest_in_rows(keys[band], reach, bits)[:, :width]
        inside = (nearest >= (above + 1) << bits) & (nearest < (most + 1) << bits)
        rank = (nearest & ((1 << bits) - 1)) * inside
        found[band] = rank if ids is None else ids[rank]
    return found


def _key_type(reach: int, bits: int) -> type[np.signedinteger]:
    """The type that holds the sum of the largest squares of rows and columns, with a rank below."""
    return np.int32 if ((reach + 1) ** 2 + reach**2 + 1) << bits < 2**31 else np.int64


def sweep(keys: NDArray[np.signedinteger], one: int) -> None:
    """Each pixel becomes the least of its column, after `one` is added for each row between them; in place."""
    further = np.empty(keys.shape[1:], keys.dtype)
    for rows in (range(1, len(keys)), range(len(keys) - 2, -1, -1)):
        for y in rows:
            np.add(keys[y - rows.step], one, out=further)
            np.minimum(keys[y], further, out=keys[y])


def _nearest_in_rows(keys: NDArray[np.signedinteger], reach: int, bits: int) -> NDArray[np.signedinteger]:
    """Squared distance and rank of the nearest nucleus, from distances along columns."""
    distance = keys.ravel() >> bits
    size = distance.size
    padded = np.full(size + 2 * reach, (reach + 1) ** 2 << bits, keys.dtype)
    middle = padded[reach : reach + size]
    np.add(keys.ravel(), distance * (distance - 1) << bits, out=middle)
    best, shifted = middle.copy(), distance
    for step in range(1, reach + 1):
        np.minimum(padded[reach - step :][:size], padded[reach + step :][:size], out=shifted)
        shifted += step * step << bits
        np.minimum(best, shifted, out=best)
    return best.reshape(keys.shape)
