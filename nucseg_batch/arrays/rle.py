"""Run-length encoding of nuclei as COCO has it: runs of pixels outside and inside in turn, down the columns.

All nuclei of a mask are encoded together. The text is what pycocotools calls compressed: each count, less the one two
before it, in groups of five bits from the lowest, with a sixth that says whether more follow, as characters from `0`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_PIXELS = 2**32
"""pycocotools counts in 32 bits."""
_GROUPS = 8
"""Groups of five bits that any count needs, with its sign."""


def encode(mask: NDArray[np.integer], shape: tuple[int, int], top: int = 0, left: int = 0) -> dict[int, str]:
    """The counts of each label of a mask (height, width), as text.

    shape: height and width of the plane, of less than MOST_PIXELS pixels, in which the mask is a window that begins at
    `top` and `left`.
    """
    label, start, stop = _runs(mask, shape[0], top, left)
    if not label.size:
        return {}
    first = np.flatnonzero(np.diff(label, prepend=-1))
    last = np.append(first[1:], label.size) - 1
    before = np.concatenate([[0], stop[:-1]])
    before[first] = 0
    total = shape[0] * shape[1]
    ends = stop[last] < total
    # Two counts for each run, and one more for each label that does not reach the end of the plane.
    sizes = 2 * (last - first + 1) + ends
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    which = np.repeat(np.arange(first.size), last - first + 1)
    places = begins[which] + 2 * (np.arange(label.size) - first[which])
    counts = np.empty(int(sizes.sum()), np.int64)
    counts[places], counts[places + 1] = start - before, stop - start
    counts[(begins + sizes - 1)[ends]] = total - stop[last][ends]
    number = np.arange(counts.size) - np.repeat(begins, sizes)
    text, lengths = _text(np.where(number > 2, counts - np.roll(counts, 2), counts))
    cuts = np.cumsum(np.add.reduceat(lengths, begins)).tolist()
    return {name: text[a:b] for name, a, b in zip(label[first].tolist(), [0, *cuts[:-1]], cuts, strict=True)}


def _runs(
    mask: NDArray[np.integer], height: int, top: int, left: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Label, start and stop of each run of a label's pixels, counted down the columns of the plane; sorted by label."""
    columns = np.ascontiguousarray(mask.T)
    changes = np.ones((columns.shape[0], columns.shape[1] + 1), bool)
    changes[:, 1:-1] = columns[:, 1:] != columns[:, :-1]
    x, y = np.nonzero(changes[:, :-1] & (columns != 0))
    y_stop = np.nonzero(changes[:, 1:] & (columns != 0))[1] + 1
    label = columns[x, y].astype(np.int64)
    base = (x + left) * height + top
    order = np.argsort(label, kind="stable")
    label, start, stop = label[order], (base + y)[order], (base + y_stop)[order]
    # A run to the foot of one column goes on at the head of the next.
    apart = np.ones(label.size + 1, bool)
    apart[1:-1] = (label[1:] != label[:-1]) | (start[1:] != stop[:-1])
    return label[apart[:-1]], start[apart[:-1]], stop[apart[1:]]


def _text(values: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """All values as characters, and how many each has."""
    characters = np.zeros((values.size, _GROUPS), np.uint8)
    used = np.zeros((values.size, _GROUPS), bool)
    rest, active = values, np.ones(values.size, bool)
    for group in range(_GROUPS):
        bits = rest & 31
        rest = rest >> 5
        more = np.where(bits & 16, rest != -1, rest != 0)
        characters[:, group] = bits + 32 * more + 48
        used[:, group] = active
        active = active & more
    return characters[used].tobytes().decode("ascii"), used.sum(axis=1)
