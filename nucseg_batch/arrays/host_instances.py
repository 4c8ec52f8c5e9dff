"""The twin of `arrays.instances` for a network on the processor: the same labels to the last bit, in numpy.

A device is fastest where it treats all pixels alike. A processor does best to skip: few pixels are foreground, and few
of these are the place of a centre. So here only foreground pixels vote, links are followed only from places that got
votes, and what must be done for every pixel, the blur and the search for the strongest place, is done in blocks that
stay in a core's cache. All of it is integers, but for the probability, which the device computes for both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.confidence import REACH, closeness, supported
from nucseg_batch.arrays.outputs import Output
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.arrays.votes import BLUR, CODE, CODE_BITS, JUMPS, MIN_ROOT_VOTES, VOTE, WINDOW_RADIUS
from nucseg_batch.settings import Task

BLOCK = 256
"""Side in pixels of the blocks in which votes are blurred: with their margin they stay in a core's own cache."""

PAGE = 1024
"""Values in a page of memory."""
APART = 336
"""How far after a multiple of a page from each other buffers begin: a processor that reads one and writes another at
the same place of their pages takes both for one and waits, several times as long as the sum takes (measured)."""

KEPT_SHAPES = 4
"""Shapes of blocks that are kept ready: those inside a plane and along its edges."""
_OF_THREAD = threading.local()
_LOW = CODE - 1
_BOTH = CODE**2 - 1


@dataclass(frozen=True)
class NetworkOutput:
    """What the network says of one image, as it leaves the device."""

    heads: NDArray[np.float32]
    """(h, w, block * block * outputs): the outputs of each pixel of a block, see `architectures.to_full_resolution`."""
    probability: NDArray[np.float32]
    """(height, width): the foreground's, the sigmoid of its output."""
    block: int = 1
    """Side in pixels of the square that one position answers for."""
    unit: float = 1.0
    """Pixels that an offset of 1 stands for."""
    outputs: int = len(Output)
    """Values for each pixel, in the order of `Output`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.heads.shape[0] * self.block, self.heads.shape[1] * self.block

    def inside(self, height: int, width: int, threshold: float) -> NDArray[np.bool_]:
        """Where the probability is above the threshold, within the first `height` rows and `width` columns."""
        found = self.probability > np.float32(threshold)
        found[height:] = False
        found[:, width:] = False
        return found

    def places(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where in the flat `heads` the outputs of each of these pixels begin."""
        _, w, channels = self.heads.shape
        return self._along(self.shape[0], w * channels, self.block)[y] + self._along(self.shape[1], channels, 1)[x]

    def _along(self, length: int, stride: int, step: int) -> NDArray[np.intp]:
        block, inner = np.divmod(np.arange(length), self.block)
        return block * stride + inner * step * self.outputs


def separate(
    answer: NetworkOutput,
    height: int,
    width: int,
    *,
    threshold: float,
    min_area: int,
    blur: int = BLUR,
    window: int = WINDOW_RADIUS,
) -> SeparatedNuclei:
    """Labels the nuclei of one image, of the answer's shape: what `instances.separate_rooted` gives.

    It is for the same logits and offsets. height, width: the part that is real. Other arguments as there.
    """
    inside = answer.inside(height, width, threshold)
    labels, support = np.zeros(answer.shape, np.int32), np.zeros(answer.shape, np.uint8)
    columns = answer.shape[1]
    pixel = np.flatnonzero(inside)
    if pixel.size == 0:
        return SeparatedNuclei(labels, np.zeros((0, 2), np.int64), support)
    y, x = np.divmod(pixel, columns)
    place = answer.places(y, x)
    heads = answer.heads.reshape(-1)
    weight = np.rint(answer.probability.take(pixel) * np.float32(VOTE))
    target = _target(y, heads.take(place + Output.OFFSET_Y), answer.unit, height) * columns
    target += _target(x, heads.take(place + Output.OFFSET_X), answer.unit, width)
    del inside, y, x, place  # as large as the image where all of it is foreground

    votes = np.bincount(target, weight, answer.shape[0] * columns).astype(np.int32).reshape(answer.shape)
    votes, strongest = _blurred_and_strongest(votes, blur, window)
    voters = np.bincount(target, minlength=votes.size)
    voted = np.flatnonzero(voters > 0)
    root = _followed(voted, strongest.reshape(-1), columns)

    close = np.zeros(votes.size, np.uint8)
    (root_y, root_x), (voted_y, voted_x) = np.divmod(root, columns), np.divmod(voted, columns)
    close[voted] = closeness((voted_y - root_y) ** 2 + (voted_x - root_x) ** 2)
    support.reshape(-1)[pixel] = supported(weight.astype(np.int32), close.take(target))

    roots, which = np.unique(root, return_inverse=True)
    area = np.bincount(which, voters[voted])
    kept = (votes.reshape(-1)[roots] >= MIN_ROOT_VOTES * VOTE * blur**2) & (area >= max(min_area, 1))
    number = voters  # no longer needed: from here on, the label of each place
    number[voted] = (np.cumsum(kept) * kept)[which]
    labels.reshape(-1)[pixel] = number.take(target)
    return SeparatedNuclei(labels, np.stack(np.divmod(roots[kept], columns), axis=1), support)


def foreground(answer: NetworkOutput, height: int, width: int, *, threshold: float, **_: int) -> SeparatedNuclei:
    """The plain mask as label 1, without roots; a pixel's support is its probability.

    Arguments as for `separate`, of which all but the threshold change nothing.
    """
    inside = answer.inside(height, width, threshold)
    support = np.zeros(answer.shape, np.uint8)
    weight = np.rint(answer.probability[inside] * np.float32(VOTE)).astype(np.int32)
    support[inside] = supported(weight, REACH**2)
    return SeparatedNuclei(inside.astype(np.int32), np.zeros((0, 2), np.int64), support)


def certainty(answer: NetworkOutput, height: int, width: int, *, threshold: float) -> float:
    """Mean probability of the pixels above the threshold; as `instances.certainty`."""
    parts = np.rint(answer.probability[answer.inside(height, width, threshold)] * np.float32(VOTE))
    count = np.float32(max(parts.size, 1))
    return float(np.float32(parts.sum(dtype=np.float64)) / (np.float32(VOTE) * count))


def on_native_grid(
    one: SeparatedNuclei,
    answer: NetworkOutput,
    probability: NDArray[np.float32],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    *,
    threshold: float,
) -> SeparatedNuclei:
    """Labels and support brought to the image's own grid, as `Program.native` does; roots stay where they are.

    probability: the foreground's on that grid, (height, width). rows, columns: the nearest pixels of the answer. Few
    pixels are just outside of a nucleus there, so only those look for one beside them.
    """
    labels = one.labels.take(rows, axis=0).take(columns, axis=1)
    above = probability > np.float32(threshold)
    labels[~above] = 0
    y, x = np.nonzero(above & (labels == 0))
    at_y, at_x = rows.astype(np.intp)[y], columns.astype(np.intp)[x]
    outside = answer.probability[at_y, at_x] <= np.float32(threshold)
    y, x, at_y, at_x = y[outside], x[outside], at_y[outside], at_x[outside]
    largest = np.zeros(y.size, np.int32)
    height, width = one.labels.shape
    for down, right in np.ndindex(3, 3):  # beyond an edge is what is at it
        beside = np.clip(at_y + down - 1, 0, height - 1), np.clip(at_x + right - 1, 0, width - 1)
        np.maximum(largest, one.labels[beside], out=largest)
    labels[y, x] = largest
    return SeparatedNuclei(labels, one.roots, one.support.take(rows, axis=0).take(columns, axis=1))


BY_TASK: Mapping[Task, Callable[..., SeparatedNuclei]] = {"instances": separate, "semantic": foreground}
"""How the answer of a network for each task becomes labels; arguments as for `separate`."""


def _target(place: NDArray[np.intp], offset: NDArray[np.float32], unit: float, length: int) -> NDArray[np.intp]:
    """Where pixels vote along one axis."""
    offset *= np.float32(unit)
    shift = np.rint(offset, out=offset).astype(np.int32)
    return np.clip(place + shift, 0, length - 1)


def _followed(places: NDArray[np.intp], strongest: NDArray[np.int32], columns: int) -> NDArray[np.intp]:
    """The place at which the links from each of these places end, or come to after 2**JUMPS links."""
    for _ in range(2**JUMPS):
        y, x = np.divmod(places, columns)
        code = strongest.take(places)
        following = (y + _signed((code >> CODE_BITS) - y)) * columns + x + _signed(code - x)
        if np.array_equal(following, places):
            break
        places = following
    return places


def _signed(difference: NDArray[Any]) -> NDArray[Any]:
    return ((difference + CODE // 2) & _LOW) - CODE // 2


def _blurred_and_strongest(
    votes: NDArray[np.int32], blur: int, window: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Votes after the blur, and for each place the coordinates, modulo CODE, of the strongest place nearby."""
    np.minimum(votes, 2**31 // blur**4 - 1, out=votes)
    height, width = votes.shape
    blurred, strongest = np.empty_like(votes), np.empty_like(votes)
    margin = 2 * (blur // 2) + window
    for top, bottom in _blocks(height):
        for left, right in _blocks(width):
            rows = slice(max(0, top - margin), min(height, bottom + margin))
            columns = slice(max(0, left - margin), min(width, right + margin))
            shape = rows.stop - rows.start, columns.stop - columns.start
            sweeps = _sweeps(shape, max(blur // 2, window))
            block = slice(top, bottom), slice(left, right)
            inner = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
            sweeps.values[...] = votes[rows, columns]
            for axis in (0, 0, 1, 1):
                sweeps.sum(axis, blur)
            blurred[block] = sweeps.values[inner]
            sweeps.values &= ~_BOTH
            sweeps.values |= (np.arange(rows.start, rows.stop, dtype=np.int32)[:, None] & _LOW) * CODE
            sweeps.values |= np.arange(columns.start, columns.stop, dtype=np.int32) & _LOW
            for axis in (0, 1):
                sweeps.maximum(axis, window)
            strongest[block] = sweeps.values[inner]
    return blurred, strongest


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    """An axis in even parts of about BLOCK."""
    count = max(1, round(length / BLOCK))
    for i in range(count):
        yield length * i // count, length * (i + 1) // count


def _sweeps(shape: tuple[int, int], reach: int) -> _Sweeps:
    """Sweeps for blocks of a shape; a thread keeps those of the shapes that it needed last."""
    kept: dict[tuple[tuple[int, int], int], _Sweeps] = _OF_THREAD.__dict__.setdefault("sweeps", {})
    sweeps = kept.get((shape, reach))
    if sweeps is None:
        while len(kept) >= KEPT_SHAPES:
            kept.pop(next(iter(kept)))
        sweeps = kept[shape, reach] = _Sweeps(shape, reach)
    return sweeps


class _Sweeps:
    """A block whose values are summed, or compared, with their neighbours along an axis; again and again.

    It lies in memory as one row, in which neighbours along an axis are a stride apart: 1, or the length of a row. Rows
    end with zeros, as many as a sweep reaches to one side, and there are zeros before and after, so that no sweep sees
    two rows at once. Whatever a sweep needs is allocated once: fresh memory costs more time than the sums.
    """

    def __init__(self, shape: tuple[int, int], reach: int) -> None:
        height, width = shape
        self._row = width + reach
        self._before = reach * self._row
        self._size = height * self._row
        length = self._size + 2 * self._before
        apart = length + (APART - length) % PAGE
        memory = np.zeros(4 * apart, np.int32)
        self._framed, self._one, self._other, self._total = (memory[i * apart :][:length] for i in range(4))
        rows = self._framed[self._before : self._before + self._size].reshape(height, self._row)
        self.values = rows[:, :width]
        self._ends = rows[:, width:]

    def sum(self, axis: int, width: int) -> None:
        """Each value becomes the sum over a box of odd width; see `instances._box_sum`."""
        stride = 1 if axis else self._row
        spans, spare = self._from(stride * (width // 2)), self._one
        span, start, total = 1, 0, self._total[: self._size]
        while True:
            if width & span:
                piece = spans[start * stride : start * stride + self._size]
                if start:
                    total += piece
                else:
                    total[...] = piece
                start += span
            if start == width:
                break
            spans, spare = self._combined(np.add, spans, spare, span * stride)
            span *= 2
        self._take(total)

    def maximum(self, axis: int, radius: int) -> None:
        """Each value becomes the largest of those up to `radius` places away; see `instances.sliding_maximum`."""
        stride = 1 if axis else self._row
        best, spare = self._from(stride * radius), self._one
        span, reach = 2 * radius + 1, 1
        while reach < span:
            step = min(reach, span - reach)
            best, spare = self._combined(np.maximum, best, spare, step * stride)
            reach += step
        self._take(best[: self._size])

    def _from(self, before: int) -> NDArray[np.int32]:
        return self._framed[self._before - before : self._before + self._size + before]

    def _combined(
        self, ufunc: np.ufunc, values: NDArray[np.int32], spare: NDArray[np.int32], step: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Each value with the one a step further on, and the buffer that is free next."""
        result = ufunc(values[:-step], values[step:], out=spare[: values.size - step])
        return result, self._other if spare is self._one else self._one

    def _take(self, result: NDArray[np.int32]) -> None:
        self._framed[self._before : self._before + self._size] = result
        self._ends[...] = 0
