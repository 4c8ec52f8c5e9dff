"""Intensities of nuclei and of regions around them, in all channels.

Names and values are those of `skimage.measure.regionprops_table`, and percentiles those of `numpy.percentile`. The
values of a region lie together, so that they are sorted while they are in the processor's cache, which costs less than
one sort of a plane; all else is computed for all regions at once. Sums of sorted values do not depend on where the
region lies: a tile gives the same bits as the whole plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups

STATISTICS = ("sum", "mean", "std", "min", "max", "median")
"""What `intensity_columns` returns for each channel besides percentiles."""


def intensity_columns(
    groups: Groups, channels: Mapping[str, NDArray[Any]], prefix: str = "", percentiles: tuple[float, ...] = (25, 75)
) -> dict[str, NDArray[np.float64]]:
    """Statistics of each region in each channel: (n,) float64, for each label of the groups.

    channels: planes (height, width) of any real type by name. Columns are `<prefix>intensity_<statistic>-<channel>`,
    with STATISTICS and `p25` and so on, without `-<channel>` where that is "". A region without pixels has the sum 0
    and is NaN else; a region with a NaN pixel is NaN. Raises ValueError where a plane is not as large as the labels'.
    """
    table: dict[str, NDArray[np.float64]] = {}
    for channel, plane in channels.items():
        with np.errstate(invalid="ignore"):  # of infinite values
            values = _statistics(groups, channel_pixels(groups, channel, plane), percentiles)
        table |= {f"{prefix}intensity_{name}{channel_suffix(channel)}": column for name, column in values.items()}
    return table


def intensity_ratios(
    inside: Mapping[str, NDArray[np.float64]], around: Mapping[str, NDArray[np.float64]], prefix: str
) -> dict[str, NDArray[np.float64]]:
    """Mean intensity of nuclei divided by that of their rings, for each channel, as `intensity_ratio-<channel>`.

    inside: what `intensity_columns` returns for nuclei, without a prefix; around: for rings of the same labels, with
    `prefix`. NaN where the mean of the ring is 0, or there is no ring.
    """
    ratios = {}
    for name, mean in inside.items():
        if name.startswith("intensity_mean"):
            below = around[prefix + name]
            ratio = np.divide(mean, below, out=np.full(mean.shape, np.nan), where=below != 0)
            ratios[name.replace("mean", "ratio", 1)] = ratio
    return ratios


def weighted_centroids(groups: Groups, channels: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """`centroid_weighted-0` and `-1`, row and column of the centre of mass, for each channel: (n,) float64.

    As `regionprops_table` has it, with `-<channel>` after it. NaN where the intensities sum to 0.
    """
    origins, down, right = groups.offsets()
    table = {}
    for channel, plane in channels.items():
        values = channel_pixels(groups, channel, plane).astype(np.float64)
        total = groups.reduce(np.add, values)
        for axis, (origin, offset) in enumerate(zip(divmod(origins, groups.shape[1] or 1), (down, right), strict=True)):
            moment = groups.reduce(np.add, values * offset)
            centre = np.divide(moment, total, out=np.full(total.shape, np.nan), where=total != 0)
            table[f"centroid_weighted-{axis}{channel_suffix(channel)}"] = origin + centre
    return table


def edges(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """The pixels of nuclei that have a pixel of another label or of background at one of four sides: (height, width).

    Others are 0. As CellProfiler's edge of an object, `skimage.segmentation.find_boundaries` with mode "inner": the end
    of the image is no edge. Intensities of it are IntegratedIntensityEdge (`sum`), MeanIntensityEdge and so on.
    """
    edge = np.zeros(labels.shape, bool)
    for one, other in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(-1))),
    ):
        unlike = labels[one] != labels[other]
        edge[one] |= unlike
        edge[other] |= unlike
    return labels * (edge & (labels > 0))


def channel_suffix(channel: str) -> str:
    """What a column of this channel has after its name."""
    return f"-{channel}" if channel else ""


def channel_pixels(groups: Groups, channel: str, plane: NDArray[Any]) -> NDArray[Any]:
    """The values of a plane at the pixels of the groups, in their order; ValueError where its shape differs."""
    if plane.shape != groups.shape:
        raise ValueError(f"channel {channel} is {plane.shape}, but labels are {groups.shape}.")
    return plane.ravel().take(groups.place)


def _statistics(groups: Groups, pixels: NDArray[Any], percentiles: tuple[float, ...]) -> dict[str, NDArray[np.float64]]:
    """One array for each statistic, with NaN for groups without pixels."""
    stable = pixels.itemsize <= 2  # of small integers, a radix sort
    for start, stop in zip(groups.first.tolist(), np.cumsum(groups.count).tolist(), strict=True):
        pixels[start:stop].sort(stable=stable)
    exact = pixels.astype(np.float64)
    count = np.where(groups.count, groups.count, np.nan)
    total = groups.reduce(np.add, exact)
    ranks = {"min": 0.0, "median": 0.5, "max": 1.0} | {f"p{p:g}": p / 100 for p in percentiles}
    found = {"sum": total, "mean": total / count}
    found |= {name: _quantile(exact, groups, share) for name, share in ranks.items()}
    if pixels.dtype.kind == "f":
        spoilt = groups.reduce(np.logical_or, np.isnan(pixels)) > 0
        found = {name: np.where(spoilt, np.nan, column) for name, column in found.items()}
    exact -= groups.spread(found["mean"])
    found["std"] = np.sqrt(groups.reduce(np.add, exact * exact) / count)
    return found


def _quantile(values: NDArray[np.float64], groups: Groups, share: float) -> NDArray[np.float64]:
    """Of the sorted values of each group, linearly between the two around this share."""
    count, first = groups.count[groups.present], groups.first[groups.present]
    place = (count - 1) * share
    below = place.astype(np.int64)
    low, high = values[first + below], values[first + np.minimum(below + 1, count - 1)]
    part = place - below
    found = np.full(groups.ids.size, np.nan)
    found[groups.present] = np.where(part > 0, low + (high - low) * part, low)
    return found
