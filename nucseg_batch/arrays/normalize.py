"""Brings every image to the range the network was trained on, whatever its bit depth and exposure.

Two percentiles of the whole image become 0 and 1. They are found here, on the host, from a histogram where the type
allows it; applying them to pixels is the device's first step. A tile of a large image uses the percentiles of the whole
image, because those of an empty margin would turn its noise into nuclei.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LOW_PERCENTILE = 1.0
HIGH_PERCENTILE = 99.8
LUMA = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Weights of red, green and blue in a grey value (ITU-R BT.709, as skimage.color.rgb2gray uses them)."""


def percentile_range(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """The values that become 0 and 1, over all pixels and channels together.

    A percentile is the smallest value that at least this share of all pixels does not exceed (no interpolation), so
    that 8 and 16 bit versions of one image agree. Where both percentiles are equal but the image is not constant, as
    in a dark field with few bright pixels, the high one is the maximum. A constant image gives high == low.
    """
    flat = pixels.ravel()
    if flat.dtype in (np.uint8, np.uint16):
        counts = np.bincount(flat)
        below = np.cumsum(counts)
        low, high = (int(np.searchsorted(below, flat.size * q / 100)) for q in (LOW_PERCENTILE, HIGH_PERCENTILE))
        top = counts.size - 1
    else:
        ranks = [max(int(np.ceil(flat.size * q / 100)) - 1, 0) for q in (LOW_PERCENTILE, HIGH_PERCENTILE)]
        part = np.partition(flat, ranks)
        low, high, top = part[ranks[0]], part[ranks[1]], flat.max()
    if high <= low:
        high = top
    return float(low), float(high)


def as_gain(ranges: Sequence[tuple[float, float]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each image the value that becomes 0, and the factor by which all above it are multiplied; (n,) both.

    ranges: the values that become 0 and 1. Where these are equal the factor is 0. It is not for the device to divide:
    TensorFlow does so in another way for images that have seven others beside them in a batch than for the rest, and
    the last bits differ (measured).
    """
    low, high = np.array(ranges, np.float32).T
    gain = np.zeros_like(low)
    np.divide(np.float32(1), high - low, out=gain, where=high > low)
    return low, gain


def apply_range(pixels: NDArray[np.generic], low: float, high: float) -> NDArray[np.float32]:
    """The numpy twin of the device's first step, for training: (pixel - low) / (high - low), cut to 0..LIMIT."""
    scale = 1.0 / (high - low) if high > low else 0.0
    return np.clip((pixels.astype(np.float32) - np.float32(low)) * np.float32(scale), 0.0, LIMIT)


LIMIT = 2.0
"""Normalised values are cut at 0 and here, so that one hot pixel cannot dominate."""


def luminance(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Grey values of a colour image, (height, width, 3) to (height, width), in the image's own units."""
    return pixels.astype(np.float32) @ LUMA
