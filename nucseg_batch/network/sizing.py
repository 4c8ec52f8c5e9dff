"""How wide the nuclei of an image are, from a few cheap looks of a model's size network.

An image is looked at at half its scale first. Where its nuclei turn out so narrow or so wide that the network sees them
badly there, it is looked at again at the scale that fits, and once more where these two looks contradict each other. Of
large images only windows are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.normalize import apply_range, as_gain
from nucseg_batch.arrays.scale import padded_resampling
from nucseg_batch.arrays.widths import BINS, CELL, typical_width
from nucseg_batch.network.batching import HalvedSizes, power_of_two
from nucseg_batch.network.program import Program

FIRST_SCALE = 0.5
"""Scale of the first look, but at small images."""
SHORTEST = 240
"""The longer side of an image, in pixels, in a look at least, if that does not take more than the largest scale."""
SEEN_WELL = (8.0, 36.0)
"""Widths of nuclei in a look, in pixels, that need no further look."""
AIM = 14.0
"""Width of nuclei in the looks after the first."""
SCALES = (1 / 16, 2.0)
"""Scales of looks, least and most."""
LOOKS = 3
"""Looks at most."""
AGREE = 0.8
"""Octaves by which the widths that two looks find differ at most, if they do not contradict each other."""
WINDOW = 1024
"""Side in pixels, in a look, of the windows in which large images are shown."""
WINDOWS = 4
"""Windows at most, spread evenly over the image."""


LOOK_PIXELS = 2**20
"""Pixels that the size network is shown at once at most, but for one image."""
LOOKS_AT_ONCE = 16
"""Images that it is shown at once at most."""


class SizeEstimator:
    """The size network of a model, ready on a device; threads may share it.

    program: of the size network without normalisation layers. coarse: whether images are rescaled before they come to
    the device and padded to few shapes, because it compiles a program for each. pixels: what it is shown at once at
    most, but for one image. full: whether it is always shown as many images as that allows, for the same reason.
    """

    def __init__(
        self, program: Program, *, coarse: bool = False, pixels: int = LOOK_PIXELS, full: bool = False
    ) -> None:
        self._program = program
        self._coarse = coarse
        self._pixels = pixels
        self._full = full
        self._halved = HalvedSizes()

    def width(self, pixels: NDArray[Any], limits: tuple[float, float]) -> float | None:
        """Typical width of the nuclei of an image in its pixels; None where there are none.

        pixels: (height, width) or (height, width, 3). limits: the values that become 0 and 1.
        """
        return self.widths([pixels], [limits])[0]

    def widths(
        self, images: Sequence[NDArray[Any]], limits: Sequence[tuple[float, float]], *, fill: bool = True
    ) -> list[float | None]:
        """The same of several images of one shape, dtype and number of channels, which share calls of the network.

        fill: see `Predictor.predict_batch`. The width of an image does not depend on the other images. Where the
        device's memory does not suffice for a call, calls of that padded shape are halved from then on; raises
        MemoryError where one window does not fit.
        """
        searches = [_search(image.shape[:2]) for image in images]
        wanted = {i: next(search) for i, search in enumerate(searches)}
        found: list[float | None] = [None] * len(images)
        while wanted:
            scale = next(iter(wanted.values()))
            group = [i for i, one in wanted.items() if one == scale]
            seen = self._looks([images[i] for i in group], [limits[i] for i in group], scale, fill)
            for i, width in zip(group, seen, strict=True):
                try:
                    wanted[i] = searches[i].send(width)
                except StopIteration as end:
                    found[i] = end.value
                    del wanted[i]
        return found

    def at_once(self, shape: tuple[int, int]) -> int:
        """How many images of a shape share the first look."""
        scale = next(_search(shape))
        return self._together(shape, scale) if all(length <= _side(scale) for length in shape) else 1

    def _together(self, shape: tuple[int, ...], scale: float) -> int:
        """Windows of a shape in one call."""
        bucket = ResampleGeometry.of(shape[:2], scale, coarse=self._coarse).bucket
        area = max(bucket) ** 2 if self._coarse else math.prod(bucket)
        most = min(LOOKS_AT_ONCE, max(1, self._pixels // area))
        return self._halved.limited(bucket, most)

    def _looks(
        self, images: Sequence[NDArray[Any]], limits: Sequence[tuple[float, float]], scale: float, fill: bool
    ) -> list[float | None]:
        """Typical widths of nuclei as they are seen at a scale."""
        windows = [(i, window) for i, image in enumerate(images) for window in _windows(image, scale)]
        seen: list[list[tuple[NDArray[Any], NDArray[Any]]]] = [[] for _ in images]
        while windows:
            shape = windows[0][1].shape
            most = self._together(shape, scale)
            alike = next((k for k, (_, window) in enumerate(windows) if window.shape != shape), len(windows))
            part = windows[: min(most, alike)]
            size = most if self._full and fill else min(most, power_of_two(len(part)))
            frame = ResampleGeometry.of(shape[:2], scale, coarse=self._coarse)
            try:
                answers = self._answers([window for _, window in part], [limits[i] for i, _ in part], frame, size)
            except MemoryError:
                if size == 1:
                    raise
                self._halved.halve(frame.bucket, size)
                continue
            windows = windows[len(part) :]
            rows, columns = (max(1, round(length / CELL)) for length in frame.scaled)
            for (i, _), answer in zip(part, answers, strict=False):
                seen[i].append(_cells(answer[:rows, :columns]))
        return [typical_width(*(np.concatenate(part) for part in zip(*cells, strict=True))) for cells in seen]

    def _answers(
        self,
        windows: Sequence[NDArray[Any]],
        limits: Sequence[tuple[float, float]],
        frame: ResampleGeometry,
        size: int,
    ) -> NDArray[np.float32]:
        """The size network's answers for windows, padded, (size, height / CELL, width / CELL, 1 + BINS.size)."""
        program, seen = self._program, math.prod(frame.bucket)
        fill = size - len(windows)
        if self._coarse:
            side = max(frame.bucket)
            shown = np.zeros((size, side, side, 3), np.float32)
            for slot, window, one in zip(shown, windows, limits, strict=False):
                slot[...] = _shown(window, one, frame, side)
            answers = program.run(program.heads, shown, *as_gain([(0.0, 1.0)] * size), seen=side**2)
        else:
            low, gain = as_gain([*limits, *[(0.0, 0.0)] * fill])
            shown = padded_batch(windows, frame.native_bucket, size)
            if frame.is_native:
                answers = program.run(program.heads, shown, low, gain, seen=seen)
            else:
                answers = program.run(program.heads_rescaled, shown, low, gain, *frame.there(), seen=seen)
        return np.asarray(answers)


def _search(shape: tuple[int, ...]) -> Generator[float, float | None, float | None]:
    """How an image of this shape is looked at: yields a scale, is sent the width seen there, and returns the width."""
    least = _limited(_stepped(SHORTEST / max(shape), math.ceil), SCALES[0])
    first = scale = max(FIRST_SCALE, least)
    looks: list[tuple[float, float]] = []  # scale, and width as it was seen
    while len(looks) < LOOKS and scale not in [earlier for earlier, _ in looks]:
        width = yield scale
        if width is None:
            break
        agree = not looks or abs(math.log2(width / scale / looks[-1][1] * looks[-1][0])) <= AGREE
        looks.append((scale, width))
        if agree and not _misfit(width):
            break
        # where two looks contradict each other, the first may have been misled: the third goes the other way
        following = _stepped(scale * AIM / width) if agree else first * 2 if scale < first else first / 2
        scale = _limited(following, least)
    if not looks:
        return None
    scale, width = min(reversed(looks), key=lambda look: _misfit(look[1]))
    return width / scale


def _cells(answer: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each cell how much of it is nucleus, (n,), and the distribution of their width, (n, BINS.size)."""
    cells = answer.reshape(-1, 1 + BINS.size).astype(np.float64)
    logits = np.exp(cells[:, 1:] - cells[:, 1:].max(axis=1, keepdims=True))
    return 1 / (1 + np.exp(-cells[:, 0])), logits / logits.sum(axis=1, keepdims=True)


def _shown(
    window: NDArray[Any], limits: tuple[float, float], frame: ResampleGeometry, side: int
) -> NDArray[np.float32]:
    """What the network is shown of a window: normalised, rescaled, mirrored up to a square, (side, side, 1 or 3)."""
    rows, columns = (
        padded_resampling(native, scaled, native, side)
        for native, scaled in zip(frame.native, frame.scaled, strict=True)
    )
    image: NDArray[Any] = apply_range(window, *limits).reshape(*frame.native, -1)
    return np.moveaxis(rows @ np.moveaxis(image, -1, 0) @ columns.T, 0, -1)


def _misfit(width: float) -> float:
    """By how many octaves a width, as it was seen, is outside SEEN_WELL."""
    return max(0.0, math.log2(SEEN_WELL[0] / width), math.log2(width / SEEN_WELL[1]))


def _stepped(scale: float, rounded: Callable[[float], int] = round) -> float:
    """The power of the root of two that is nearest to a scale, or the next as `rounded` says."""
    return float(2.0 ** (rounded(2 * math.log2(scale)) / 2))


def _limited(scale: float, least: float) -> float:
    return min(max(scale, least), SCALES[1])


def _windows(pixels: NDArray[Any], scale: float) -> Iterator[NDArray[Any]]:
    """The image or, if it is large at this scale, windows spread evenly over it."""
    side = _side(scale)
    places = [_places(length, side) for length in pixels.shape[:2]]
    grid = [(y, x) for y in places[0] for x in places[1]]
    for i in np.unique(np.linspace(0, len(grid) - 1, WINDOWS).round().astype(int)):
        y, x = grid[i]
        yield np.ascontiguousarray(pixels[y : y + side, x : x + side])


def _side(scale: float) -> int:
    """Side of a window in the image's pixels."""
    return round(WINDOW / scale)


def _places(length: int, side: int) -> list[int]:
    """Where windows of a side begin along an axis."""
    return [0] if length <= side else np.linspace(0, length - side, -(-length // side)).round().astype(int).tolist()
