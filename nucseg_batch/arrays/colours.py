"""Does a colour picture hold one stain only? Decided once for a whole plane, from its pixels or a sample of them.

A picture of one fluorescent stain is often saved as RGB in the colour of the stain: blue on black, with nothing, noise
or a faint copy in the other two channels. Such a plane is a grey image whose values are in its strongest channel.

The rule: the colours of all pixels lie on one straight line, from a dark background to a saturated colour; or two
channels are constant. Stained tissue ends in white and a composite of two stains fills a plane, so neither is meant;
nor is grey that was saved as RGB. Noise, chroma errors of JPEG and white annotation, such as a scale bar, are allowed
within the limits below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT_PIXELS = 2**18
"""Pixels that are kept of a plane; of larger ones only every so many-th is."""
QUICK_PIXELS = 2**12
"""Pixels that are looked at first: they are enough to recognise most pictures of several colours."""
BLOCK = 8
"""Side in pixels of the blocks whose means are compared: noise averages out there, a second stain does not."""
LOW, HIGH = 1.0, 99.9
"""Percentiles between which a channel's range lies."""
DARK = 0.25
"""Highest value of the background in any channel, in parts of the strongest channel's high end."""
SATURATED = 0.5
"""By at most so much the weakest channel rises with the strongest."""
BRIGHT = 0.3
"""Pixels above this part of the range say how the channels rise together."""
PIXEL_ERROR, PIXELS_OFF = 0.25, 1e-3
"""How far a pixel may be off the line, in parts of the range, and the share of pixels that may be farther off."""
BLOCK_ERROR, BLOCKS_OFF = 0.08, 5e-3
"""The same of the means of blocks."""
QUICK_OFF = 20
"""Factor by which the share of outlying pixels may be larger in the small first sample."""
WHITE, WHITE_SHARE = 0.9, 0.02
"""Pixels of which each channel is above this part of the highest value are annotation, where they are so few."""
EDGES = (2.0, 10.0)
"""Pixels and blocks on the edges of white annotation, which are off the line too, times its share of the pixels."""


@dataclass(frozen=True)
class SingleColour:
    """The only channel of a colour picture that holds anything of its own."""

    channel: int
    """Its place: 0 red, 1 green, 2 blue."""
    exact: bool
    """Whether the other two are constant."""
    white: float
    """Share of the pixels that were taken for white annotation."""


@dataclass
class ColourSample:
    """Pixels of one plane, added window by window."""

    pixels: int
    """Pixels that will be added in all."""
    _points: list[NDArray[Any]] = field(default_factory=list)
    _means: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, window: NDArray[Any]) -> None:
        """Adds a window, (h, w, 3) of any real type."""
        step = math.ceil(self.pixels / KEPT_PIXELS)
        step += step > 1 and step % 2 == 0  # so that columns of an even width are all met
        self._points.append(window.reshape(-1, 3)[::step])
        self._means.append(_block_means(window))

    def decided(self) -> SingleColour | None:
        """The only informative channel of what was added; None where there are several, or none."""
        points = np.ascontiguousarray(np.concatenate(self._points).T)
        if points.dtype.kind == "f":
            points = points[:, np.isfinite(points).all(axis=0)]
        if not points.size:
            return None
        if not _may_be_one(points.T):
            return None
        return _on_line(points, np.concatenate(self._means).T, PIXELS_OFF)


def one_colour(pixels: NDArray[Any]) -> SingleColour | None:
    """The only informative channel of a whole plane, (h, w, 3); None where there are several, or none."""
    sample = ColourSample(pixels.shape[0] * pixels.shape[1])
    if pixels.dtype.kind != "f" and not _may_be_one(pixels.reshape(-1, 3)):
        return None
    sample.add(pixels)
    return sample.decided()


def _may_be_one(points: NDArray[Any]) -> bool:
    """Whether a few of the colours, (n, 3), leave it open; True where there are only a few."""
    step = len(points) // QUICK_PIXELS
    return step <= 1 or _on_line(np.ascontiguousarray(points[::step].T), None, QUICK_OFF * PIXELS_OFF) is not None


def _on_line(points: NDArray[Any], means: NDArray[np.float32] | None, off: float) -> SingleColour | None:
    """The strongest channel of colours, (3, n), that lie on one line; means: of blocks, (3, m); off: see PIXELS_OFF."""
    top = float(np.iinfo(np.uint8).max if points.dtype == np.uint8 else points.max())
    white = _is_white(points, top)
    share = float(np.count_nonzero(white) / white.size)
    if share > WHITE_SHARE:
        return None
    values = (points[:, ~white] if share else points).astype(np.float32)
    low, high = np.percentile(values, (LOW, HIGH), axis=1, method="lower")
    if not (high > low).any():
        low, high = values.min(axis=1), values.max(axis=1)
    main = int(np.argmax(high - low))
    span = float(high[main] - low[main])
    if span <= 0:
        return None
    rounding = 0.0 if points.dtype.kind == "f" else 1.0
    above = values - low[:, None]
    bright = above[main] > BRIGHT * span
    follow = np.median(above[:, bright] / above[main, bright], axis=1).astype(np.float32)
    exact = all(np.ptp(values[c]) <= rounding for c in range(3) if c != main)
    if not exact and (low.max() > DARK * high[main] or follow.min() > SATURATED):
        return None
    if not _fits(above, follow, main, PIXEL_ERROR * span + rounding, off + EDGES[0] * share):
        return None
    if means is not None:
        inside = means[:, ~_is_white(means, top)] - low[:, None]
        if not _fits(inside, follow, main, BLOCK_ERROR * span + rounding, BLOCKS_OFF + EDGES[1] * share):
            return None
    return SingleColour(main, exact, share)


def _is_white(points: NDArray[Any], top: float) -> NDArray[np.bool_]:
    least = np.minimum(np.minimum(points[0], points[1]), points[2])
    return np.asarray((least >= WHITE * top) & (least > 0))


def _fits(above: NDArray[Any], follow: NDArray[Any], main: int, error: float, off: float) -> bool:
    """Whether all colours over the background but for a share of them are on a line."""
    away = np.zeros(above.shape[1], bool)
    for channel in range(3):
        if channel != main:
            away |= np.abs(above[channel] - above[main] * follow[channel]) > error
    return int(np.count_nonzero(away)) <= off * away.size


def _block_means(window: NDArray[Any]) -> NDArray[np.float32]:
    """(n, 3): means of squares of BLOCK pixels a side, at least one; what is left over at the ends is left out."""
    tall, wide = min(BLOCK, window.shape[0]), min(BLOCK, window.shape[1])
    height, width = window.shape[0] // tall, window.shape[1] // wide
    rows = np.add.reduceat(window[: height * tall], np.arange(0, height * tall, tall), axis=0, dtype=np.float32)
    blocks = np.add.reduceat(rows[:, : width * wide], np.arange(0, width * wide, wide), axis=1, dtype=np.float32)
    return np.asarray(blocks.reshape(-1, 3) / np.float32(tall * wide), np.float32)
