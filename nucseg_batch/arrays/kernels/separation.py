"""The loops of `arrays.host_instances`: votes, the roots that links lead to, labels.

Little of an image is foreground, and far fewer places get votes. So places with votes are numbered in the order in
which they get their first, and what is known of each is kept by number; of a whole image only votes, numbers and links
are kept. Links are computed block by block, when one is first followed into a block: most blocks are never reached.

A block, with a margin that holds all that decides its links, is small enough for a core's own cache. Sums and maxima
run down its columns, which a processor does for many columns at once; for the other axis the block is transposed.

Images are (height, width). Pixels and places count along the rows of an image. Arrays must be contiguous.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined


class VoteRules(NamedTuple):
    """How votes are counted. Compiled code takes these as arguments: constants of another file would go stale in it."""

    full: int
    """Votes of a pixel that is certainly foreground; at most 255."""
    most: int
    """Votes that count at one place: with more, blurred votes would exceed int32."""
    blur: int
    """Width of the box that votes are blurred with, twice along each axis; odd."""
    strong: int
    """Blurred votes that make a place a root."""
    window: int
    """Places link to the strongest place at most this far away along each axis."""
    code_bits: int
    """Bits of each coordinate of the strongest place; 2**code_bits must exceed 2 * window."""
    steps: int
    """Links that are followed at most."""
    reach: int
    """Square of the distance from the root at which a vote supports nothing; at most 255."""


class Votes(NamedTuple):
    """Places with votes, (n,), by their number less one."""

    places: NDArray[np.int64]
    """Where they are."""
    voters: NDArray[np.int32]
    """Pixels that vote for each."""


class Roots(NamedTuple):
    """Where links from places with votes, (n,), end: at m roots, in no order."""

    root_of: NDArray[np.int32]
    """(n,): which root."""
    close: NDArray[np.uint8]
    """(n,): how close to the root the place is, 0 to `VoteRules.reach`."""
    places: NDArray[np.int64]
    """(m,): where the roots are."""
    areas: NDArray[np.int32]
    """(m,): pixels that vote for a root, directly or by links."""
    strong: NDArray[np.bool_]
    """(m,): whether blurred votes there are enough."""


@compiled
def cast_votes(
    probability: NDArray[np.float32],
    heads: NDArray[np.float32],
    row_starts: NDArray[np.int64],
    column_starts: NDArray[np.int64],
    real: tuple[int, int],
    threshold: np.float32,
    unit: np.float32,
    rules: VoteRules,
    votes: NDArray[np.int32],
    numbers: NDArray[np.int32],
    labels: NDArray[np.int32],
    support: NDArray[np.uint8],
) -> Votes:
    """Lets each pixel above the threshold vote, within the first rows and columns (`real`).

    heads: flat; the outputs of a pixel begin where `row_starts` and `column_starts` of its coordinates sum up to: two
    offsets, in `unit` pixels, follow the first output. An offset that is no number, or beyond int32, points to the
    first row or column.

    Adds to `votes`, and writes the number of each place with votes to `numbers`, that of the place that a pixel votes
    for to `labels`, and the pixel's weight to `support`. All four must be 0.
    """
    height, width = real
    count = 0
    for y in range(height):
        row = probability[y, :width]
        for x in range(width):
            count += row[x] > threshold
    places, voters = np.empty(count, np.int64), np.zeros(count, np.int32)
    found = 0
    for y in range(height):
        row = probability[y, :width]
        for x in range(width):
            if not row[x] > threshold:
                continue
            outputs = row_starts[y] + column_starts[x]
            at_y = min(max(y + _whole(heads[outputs + 1] * unit), 0), height - 1)
            at_x = min(max(x + _whole(heads[outputs + 2] * unit), 0), width - 1)
            weight = min(max(_whole(row[x] * np.float32(rules.full)), 0), rules.full)
            number = numbers[at_y, at_x]
            if number == 0:
                places[found] = at_y * votes.shape[1] + at_x
                found += 1
                number = np.int32(found)
                numbers[at_y, at_x] = number
            voters[number - 1] += 1
            votes[at_y, at_x] = min(votes[at_y, at_x] + weight, rules.most)
            labels[y, x] = number
            support[y, x] = weight
    return Votes(places[:found], voters[:found])


@compiled
def follow_links(
    votes: NDArray[np.int32],
    numbers: NDArray[np.int32],
    links: NDArray[np.uint16],
    cast: Votes,
    block: int,
    rules: VoteRules,
) -> Roots:
    """Follows links from each place with votes to its root.

    votes, numbers: as `cast_votes` left them; `numbers` is changed. links: memory for links, which are made in blocks
    with sides of `block` pixels; what is in it does not matter.
    """
    height, width = votes.shape
    side = block + 2 * _margin(rules)
    ready = np.zeros((-(-height // block), -(-width // block)), np.bool_)
    one, other = np.zeros((side, side), np.int32), np.zeros((side, side), np.int32)
    low, half = (1 << rules.code_bits) - 1, 1 << rules.code_bits >> 1
    count = cast.places.size
    root_of, close = np.empty(count, np.int32), np.empty(count, np.uint8)
    places, areas, strong = np.empty(count, np.int64), np.zeros(count, np.int32), np.empty(count, np.bool_)
    own = np.zeros(count, np.int32)  # of places with votes that are roots: the root's number; of others in `numbers`
    found = 0
    for i in range(count):
        from_y, from_x = divmod(cast.places[i], width)
        y, x, followed = from_y, from_x, 0
        while True:
            if not ready[y // block, x // block]:
                _link(votes, links, y // block * block, x // block * block, block, rules, one, other)
                ready[y // block, x // block] = True
            link = int(links[y, x])
            down = (((link >> rules.code_bits) - y + half) & low) - half
            right = ((link - x + half) & low) - half
            if followed == rules.steps or (down == 0 and right == 0):
                break
            y, x, followed = y + down, x + right, followed + 1
        number = int(numbers[y, x])
        root = int(own[number - 1]) if number > 0 else -number
        if root == 0:
            places[found] = y * width + x
            strong[found] = link >> 2 * rules.code_bits
            found += 1
            root = found
            if number > 0:
                own[number - 1] = root
            else:
                numbers[y, x] = -root
        areas[root - 1] += cast.voters[i]
        root_of[i] = root - 1
        close[i] = max(rules.reach - (y - from_y) ** 2 - (x - from_x) ** 2, 0)
    return Roots(root_of, close, places[:found], areas[:found], strong[:found])


@compiled
def label_pixels(
    labels: NDArray[np.int32],
    support: NDArray[np.uint8],
    names: NDArray[np.int32],
    close: NDArray[np.uint8],
    reach: int,
) -> None:
    """Gives each pixel the name of its nucleus, and its support, see `confidence.supported`.

    labels, support: as `cast_votes` left them; they are changed. names, close: of the places with votes.
    """
    for y in range(labels.shape[0]):
        row, above = labels[y], support[y]
        for x in range(row.size):
            number = row[x]
            if number > 0:
                row[x] = names[number - 1]
                above[x] = max(np.int64(above[x]) * np.int64(close[number - 1]) // reach, 1)


@inlined
def _whole(value: np.float32) -> Any:
    """The nearest whole number, the even one of two; the least of int32 for what int32 does not hold, and for NaN."""
    nearest = np.rint(value)
    if nearest >= np.float32(-(2.0**31)) and nearest < np.float32(2.0**31):
        return np.int64(nearest)
    return np.int64(-(2**31))


@inlined
def _margin(rules: VoteRules) -> Any:
    """Pixels around a block that decide its links."""
    return 2 * (rules.blur // 2) + rules.window


@inlined
def _link(
    votes: NDArray[np.int32],
    links: NDArray[np.uint16],
    top: int,
    left: int,
    block: int,
    rules: VoteRules,
    one: NDArray[np.int32],
    other: NDArray[np.int32],
) -> None:
    """Links of a block: the coordinates, modulo 2**code_bits, of the strongest place in the window around each place.

    A higher bit says whether the place itself is strong. one, other: scratch. What is beyond the image counts as 0,
    also after each sum, so that the block's margin ends where the image ends.
    """
    height, width = votes.shape
    margin, bits = _margin(rules), rules.code_bits
    bottom, right = min(top + block, height), min(left + block, width)
    above, before = max(0, top - margin), max(0, left - margin)
    rows, columns = min(height, bottom + margin) - above, min(width, right + margin) - before
    for y in range(rows):
        row, cast = one[y], votes[above + y]
        for x in range(columns):
            row[x] = cast[before + x]
    length, across = rows, columns
    for _ in range(2):  # once down rows, once down what were columns
        for _ in range(2):
            _sum(one, other, length, rules.blur)
            one, other = other, one
        _transpose(one, other, length, across)
        one, other = other, one
        length, across = across, length

    high, low = np.int32(-(1 << 2 * bits)), (1 << bits) - 1
    for y in range(rows):
        row, code = one[y], ((y + above) & low) << bits
        if top <= y + above < bottom:
            found = links[y + above]
            for x in range(left - before, right - before):
                found[x + before] = (row[x] >= rules.strong) << 2 * bits
        for x in range(row.size):
            row[x] = (row[x] & high) | np.int32(((x + before) & low) | code)

    for _ in range(2):
        _maximum(one, length, rules.window)
        _transpose(one, other, length, across)
        one, other = other, one
        length, across = across, length
    low = (1 << 2 * bits) - 1
    for y in range(top, bottom):
        row, found = one[y - above], links[y]
        for x in range(left, right):
            found[x] |= np.uint16(row[x - before] & low)


@inlined
def _transpose(values: NDArray[np.int32], transposed: NDArray[np.int32], length: int, across: int) -> None:
    """The first `length` rows, of the first `across` columns each, become columns."""
    for y in range(length):
        row = values[y]
        for x in range(across):
            transposed[x, y] = row[x]


@inlined
def _sum(values: NDArray[np.int32], sums: NDArray[np.int32], length: int, width: int) -> None:
    """Sums of the first `length` rows over a box of rows of odd width; see `instances._box_sum`."""
    half = width // 2
    total = sums[0]
    for x in range(total.size):
        total[x] = 0
    for y in range(min(half + 1, length)):
        row = values[y]
        for x in range(total.size):
            total[x] += row[x]
    for y in range(1, length):
        before, after = sums[y - 1], sums[y]
        entering, leaving = values[min(y + half, length - 1)], values[max(y - half - 1, 0)]
        enters, leaves = np.int32(-(y + half < length)), np.int32(-(y - half > 0))  # all bits, or none
        for x in range(after.size):
            after[x] = before[x] + (entering[x] & enters) - (leaving[x] & leaves)


@inlined
def _maximum(values: NDArray[np.int32], length: int, radius: int) -> None:
    """The first `length` rows become the largest of those up to `radius` rows away.

    Windows that begin at a row grow by doubling, and then two of them, one before the other, are joined.
    """
    reach = 1
    while reach <= radius:
        step = min(reach, radius + 1 - reach)
        for y in range(length - step):
            _larger(values[y], values[y + step])
        reach += step
    for y in range(length - 1, 0, -1):
        _larger(values[y], values[max(y - radius, 0)])


@inlined
def _larger(row: NDArray[np.int32], other: NDArray[np.int32]) -> None:
    """Each value becomes the larger of both."""
    for x in range(row.size):
        row[x] = max(row[x], other[x])
