"""From the network's answer for each pixel to one label for each nucleus, on the device.

Every foreground pixel votes for the place where it believes its nucleus has its centre. Votes are blurred, every place
is linked to the strongest place in a window around it, and following the links (pointer jumping: each step doubles the
distance) ends at a root. A nucleus is the set of pixels whose votes end at one root.

There is no loop over objects, no limit to their number and no sorting, all shapes are static, and all sums are of
integers: the same pixels give the same labels whatever the batch, the order of additions or the device's threads.

Clustering pixels by predicted centres follows Neven et al. 2019 (arXiv:1906.11109) and Cheng et al. 2020
(arXiv:1911.10194); finding roots by pointer jumping is JaJa 1992, "An Introduction to Parallel Algorithms", 2.2.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from nucseg_batch.arrays.confidence import REACH, closeness, supported
from nucseg_batch.arrays.votes import BLUR, CODE, CODE_BITS, JUMPS, MIN_ROOT_VOTES, VOTE, WINDOW_RADIUS

_LOW = CODE - 1
_BOTH = CODE**2 - 1


def separate_rooted(
    foreground: Any,
    offsets: Any,
    heights: Any,
    widths: Any,
    *,
    threshold: float,
    min_area: int,
    blur: int = BLUR,
    window: int = WINDOW_RADIUS,
) -> tuple[Any, Any, Any]:
    """Labels the nuclei of a batch: int32 (batch, height, width), 0 is background, 1..n in each image.

    The second result, int32 (batch, height, width), is 1 at the roots: the k-th of these in raster order is that of
    label k. It may lie outside the nucleus' own pixels. The third, uint8 (batch, height, width), is how far each pixel
    of the foreground supports its nucleus, see `arrays.confidence`; 0 elsewhere.

    foreground: (batch, height, width) float32 logits. offsets: (batch, height, width, 2) float32, pixels along y and x
    from each pixel to the centre of its nucleus. heights, widths: (batch,) int32, the part of each image that is real;
    beyond it nothing is labelled. Labels number nuclei by the raster order of their roots. Nuclei of fewer than
    `min_area` pixels become background. A smaller `blur` and `window` keep nuclei apart that are smaller than the
    network knows them, and split larger ones.
    """
    batch, height, width = ops.shape(foreground)
    size = height * width
    y, x = _coordinates(height, width)
    first = ops.reshape(ops.arange(batch, dtype="int32") * size, (batch, 1, 1))
    last_y = ops.reshape(heights - 1, (batch, 1, 1))
    last_x = ops.reshape(widths - 1, (batch, 1, 1))

    probability = ops.sigmoid(foreground)
    inside = (probability > threshold) & (y <= last_y) & (x <= last_x)
    weight = ops.where(inside, ops.cast(ops.round(probability * VOTE), "int32"), 0)

    shift = ops.cast(ops.round(offsets), "int32")
    target_y = ops.minimum(ops.maximum(y + shift[..., 0], 0), last_y)
    target_x = ops.minimum(ops.maximum(x + shift[..., 1], 0), last_x)
    target = ops.reshape(first + target_y * width + target_x, (-1,))
    votes = ops.segment_sum(ops.reshape(weight, (-1,)), target, num_segments=batch * size)
    votes = blur_votes(ops.reshape(votes, (batch, height, width)), blur)

    parent = ops.reshape(first + strongest_nearby(votes, y, x, window), (-1,))
    for _ in range(JUMPS):
        parent = ops.take(parent, parent)
    root = ops.take(parent, target)

    close = closeness(_squared_distance(parent, width, size))
    close = ops.reshape(ops.take(close, target), (batch, height, width))
    support = ops.where(inside, supported(weight, close), 0)

    inside = ops.reshape(inside, (-1,))
    area = ops.segment_sum(ops.cast(inside, "int32"), root, num_segments=batch * size)
    strong = ops.reshape(votes, (-1,)) >= MIN_ROOT_VOTES * VOTE * blur**2
    kept = ops.cast(ops.reshape(strong & (area >= max(min_area, 1)), (batch, size)), "int32")
    number = ops.reshape(ops.cumsum(kept, axis=1) * kept, (-1,))
    labels = ops.where(inside, ops.take(number, root), 0)
    shape = (batch, height, width)
    return ops.reshape(labels, shape), ops.reshape(kept, shape), ops.cast(support, "uint8")


def _squared_distance(root: Any, width: Any, size: Any) -> Any:
    """Of each place from its root, int32; root: flat index of each place of a batch of images of so many pixels."""
    place = ops.arange(ops.shape(root)[0], dtype="int32")
    y, x = place % size // width - root % size // width, place % width - root % width
    return y * y + x * x


def foreground_mask(foreground: Any, heights: Any, widths: Any, *, threshold: float) -> Any:
    """The plain mask, int32 (batch, height, width), 1 where a pixel's probability is above the threshold.

    foreground, heights and widths as for `separate_rooted`.
    """
    y, x = _coordinates(*ops.shape(foreground)[1:])
    inside = (y < ops.reshape(heights, (-1, 1, 1))) & (x < ops.reshape(widths, (-1, 1, 1)))
    return ops.cast((ops.sigmoid(foreground) > threshold) & inside, "int32")


def foreground_support(foreground: Any, heights: Any, widths: Any, *, threshold: float) -> Any:
    """The support of pixels without votes, uint8 (batch, height, width): their probability, 0 outside the mask.

    foreground, heights and widths as for `separate_rooted`.
    """
    inside = foreground_mask(foreground, heights, widths, threshold=threshold)
    weight = ops.cast(ops.round(ops.sigmoid(foreground) * VOTE), "int32")
    return ops.cast(inside * supported(weight, REACH**2), "uint8")


def certainty(foreground: Any, heights: Any, widths: Any, *, threshold: float) -> Any:
    """Mean probability of the pixels above the threshold, (batch,) float32; 0 where there is none.

    foreground, heights and widths as for `separate_rooted`. Probabilities count in parts of VOTE, so sums are exact.
    """
    inside = foreground_mask(foreground, heights, widths, threshold=threshold)
    parts = inside * ops.cast(ops.round(ops.sigmoid(foreground) * VOTE), "int32")
    total, count = ops.sum(parts, axis=(1, 2)), ops.sum(inside, axis=(1, 2))
    return ops.cast(total, "float32") / (VOTE * ops.cast(ops.maximum(count, 1), "float32"))


def _coordinates(height: Any, width: Any) -> tuple[Any, Any]:
    y = ops.reshape(ops.arange(height, dtype="int32"), (1, height, 1))
    return y, ops.reshape(ops.arange(width, dtype="int32"), (1, 1, width))


def blur_votes(votes: Any, blur: int = BLUR) -> Any:
    """Box sums of width `blur`, twice along each axis, in exact int32: (batch, height, width) in and out.

    A single vote spreads over (2 * blur - 1)**2 pixels and counts blur**2 where it was cast. Votes at one place are
    capped where the sums could overflow, at far more than any nucleus casts.
    """
    votes = ops.minimum(votes, 2**31 // blur**4 - 1)
    for axis in (1, 2, 1, 2):
        votes = _box_sum(votes, axis, blur)
    return votes


def strongest_nearby(votes: Any, y: Any, x: Any, window: int = WINDOW_RADIUS) -> Any:
    """For each place the flat index, in its image, of the strongest place within `window` along each axis.

    votes: (batch, height, width) int32, not negative. y: (1, height, 1) and x: (1, 1, width) int32, the coordinates.
    The place travels in the low eight bits of the votes, as coordinates modulo 16, which is unique inside a window;
    so places that differ by less than 256 of the blurred votes (1/49 of a vote) are ordered by that code.
    """
    code = ops.bitwise_and(y, _LOW) * CODE + ops.bitwise_and(x, _LOW)
    best = ops.bitwise_or(ops.bitwise_and(votes, ~_BOTH), code)
    for axis in (1, 2):
        best = sliding_maximum(best, axis, window)
    found_y = y + _signed(ops.right_shift(best, CODE_BITS) - y)
    found_x = x + _signed(best - x)
    return found_y * ops.shape(votes)[2] + found_x


def _signed(difference: Any) -> Any:
    """A difference of two coordinates, known modulo 16, as the step of -8..7 that it stands for."""
    return ops.bitwise_and(difference + CODE // 2, _LOW) - CODE // 2


def _box_sum(values: Any, axis: int, width: int) -> Any:
    """Sum of each value and its neighbours in a box of odd width; outside the array values count as 0.

    The width is put together from spans of 1, 2, 4, ... values, each the sum of two of the span before.
    """
    spans = _framed(values, axis, width // 2)
    span, start, total = 1, 0, None
    while True:
        if width & span:
            piece = _cut(spans, axis, start, width - span - start)
            total = piece if total is None else total + piece
            start += span
        if start == width:
            return total
        spans = _cut(spans, axis, 0, span) + _cut(spans, axis, span, 0)
        span *= 2


def sliding_maximum(values: Any, axis: int, radius: int) -> Any:
    """Maximum of each value and its neighbours up to `radius` places to either side; outside the array they are 0.

    Windows grow by doubling and may overlap, so that a span of 15 takes four steps.
    """
    best, span, reach = _framed(values, axis, radius), 2 * radius + 1, 1
    while reach < span:
        step = min(reach, span - reach)
        best = ops.maximum(_cut(best, axis, 0, step), _cut(best, axis, step, 0))
        reach += step
    return best


def _framed(values: Any, axis: int, width: int) -> Any:
    """With zeros before and after along an axis."""
    pad = [(0, 0), (0, 0), (0, 0)]
    pad[axis] = (width, width)
    return ops.pad(values, pad)


def _cut(values: Any, axis: int, front: int, back: int) -> Any:
    """Without so many places at either end of an axis."""
    index = [slice(None), slice(None), slice(None)]
    index[axis] = slice(front, -back or None)
    return values[tuple(index)]
