"""Statistics of every nucleus by sums over the whole image, without a loop over nuclei.

Names, definitions and values are those of `skimage.measure.regionprops_table`, which measures one region at a time and
would be the slowest stage of a run. Here the plane is cut once into runs, stretches of one label along a row. A nucleus
has far fewer runs than pixels, and the area, box and moments of a run have closed forms; so only intensities are read
pixel by pixel, in the order in which they lie in memory, and nothing but runs is sorted. Moments are sums of integers
around each nucleus' own centre: a nucleus far from the origin of a large plane loses no precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.columns import MEASURED, channel_columns, names

_DIAGONAL, _STRAIGHT = 10, 2
"""What a neighbour on the border adds to the code of a border pixel, which itself counts 1."""


@dataclass(frozen=True)
class _Runs:
    """Stretches of one label along a row, in raster order, and how they make up nuclei; arrays are int64."""

    y: NDArray[np.int64]
    """Row of each run."""
    x: NDArray[np.int64]
    """Column of each run's first pixel."""
    length: NDArray[np.int64]
    """Pixels in each run."""
    ids: NDArray[np.int64]
    """Label of each nucleus, ascending."""
    nucleus: NDArray[np.int64]
    """Place in `ids` of each run's label."""
    order: NDArray[np.int64]
    """The runs sorted by nucleus, then in raster order."""
    first: NDArray[np.int64]
    """Place in `order` of each nucleus' first run."""

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """One value for each nucleus from one for each of its runs."""
        return ufunc.reduceat(values[self.order], self.first)


def _perimeter_weights() -> NDArray[np.float64]:
    weights = np.zeros(4 * (_DIAGONAL + _STRAIGHT) + 2)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    return weights


_WEIGHTS = _perimeter_weights()


def measure(
    labels: NDArray[np.integer], intensity: NDArray[Any], channels: Mapping[str, NDArray[Any]] | None = None
) -> dict[str, NDArray[Any]]:
    """Measures every nucleus: one array for each of `columns.MEASURED`, with a value for each label in ascending order.

    labels: (height, width), 0 and below are background; labels that do not occur have no row. intensity: (height,
    width), any real dtype; all sums of it are float64, where regionprops_table adds float32 in float32. Lengths are in
    pixels, angles in radians from the first axis. Integers come as int64, other values as float64. `channels` are more
    planes by name, whose intensities are added as `columns.channel_columns`. Raises ValueError where planes differ in
    shape or are none.
    """
    channels = channels or {}
    if labels.ndim != 2 or labels.shape != intensity.shape:
        raise ValueError(
            f"labels and intensity must be planes of one shape, but are {labels.shape}, {intensity.shape}."
        )
    height, width = labels.shape
    framed = np.zeros((height + 2, width + 2), labels.dtype)  # background all around ends every run with its row
    framed[1:-1, 1:-1] = labels
    plane = framed.ravel()
    runs = _runs(plane, width + 2)
    area = runs.reduce(np.add, runs.length)
    table: dict[str, NDArray[Any]] = {"label": runs.ids, "area": area}
    table |= _box_and_moments(runs, area)
    table["equivalent_diameter_area"] = np.sqrt(4 * area / np.pi)
    table["extent"] = area / ((table["bbox-2"] - table["bbox-0"]) * (table["bbox-3"] - table["bbox-1"]))
    table["perimeter"] = _perimeters(plane, width + 2, runs.ids)
    inside = labels > 0
    table |= _intensities(intensity[inside], runs, area)
    for channel, plane in channels.items():
        if plane.shape != labels.shape:
            raise ValueError(f"channel {channel} is {plane.shape}, but labels are {labels.shape}.")
        values = _intensities(plane[inside], runs, area)
        table |= {f"{name}-{channel}": value for name, value in values.items()}
    return {name: table[name] for name in names((*MEASURED, *channel_columns(channels)))}


def _runs(plane: NDArray[np.integer], width: int) -> _Runs:
    """The runs of a flat plane that has a frame of background; its rows are `width` long, with the frame."""
    changes = np.flatnonzero(plane[1:] != plane[:-1]) + 1
    labels = plane[changes].astype(np.int64, copy=False)
    (kept,) = np.nonzero(labels[:-1] > 0)  # what follows the last change is frame
    starts, labels = changes[kept], labels[kept]
    ids = np.unique(labels)
    nucleus = _places(labels, ids)
    order = np.argsort(nucleus, kind="stable")
    first = np.searchsorted(nucleus[order], np.arange(ids.size))
    y, x = np.divmod(starts, width)
    return _Runs(y - 1, x - 1, changes[kept + 1] - starts, ids, nucleus, order, first)


def _places(labels: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each label is in `ids`: by a table, or by search where labels are too high for a table of all."""
    if ids.size == 0 or ids[-1] > max(4 * labels.size, 2**16):
        return np.searchsorted(ids, labels)
    table = np.zeros(ids[-1] + 1, np.int64)
    table[ids] = np.arange(ids.size)
    return table[labels]


def _box_and_moments(runs: _Runs, area: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Bounding box, centroid and the ellipse of equal second moments."""
    n = runs.length
    top, left = runs.reduce(np.minimum, runs.y), runs.reduce(np.minimum, runs.x)
    bottom, right = runs.reduce(np.maximum, runs.y + 1), runs.reduce(np.maximum, runs.x + n)
    y, x = runs.y - top[runs.nucleus], runs.x - left[runs.nucleus]
    run_x = n * x + n * (n - 1) // 2
    run_xx = n * x * x + n * (n - 1) * x + n * (n - 1) * (2 * n - 1) // 6
    sum_y, sum_x, sum_yy, sum_xx, sum_xy = (
        runs.reduce(np.add, v) for v in (n * y, run_x, n * y * y, run_xx, y * run_x)
    )
    (mid_y, rest_y), (mid_x, rest_x) = np.divmod(sum_y, area), np.divmod(sum_x, area)
    # Moved, as integers, to the pixel at the centroid: squares of the first sums overflow in regions of megapixels.
    var_y = (sum_yy - mid_y * (sum_y + rest_y) - rest_y * rest_y / area) / area
    var_x = (sum_xx - mid_x * (sum_x + rest_x) - rest_x * rest_x / area) / area
    cov = (sum_xy - mid_y * sum_x - mid_x * rest_y - rest_y * rest_x / area) / area
    return {
        "bbox-0": top,
        "bbox-1": left,
        "bbox-2": bottom,
        "bbox-3": right,
        "centroid-0": top + sum_y / area,
        "centroid-1": left + sum_x / area,
        **_ellipse(var_y, var_x, cov),
    }


def _ellipse(
    var_y: NDArray[np.float64], var_x: NDArray[np.float64], cov: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Axes and angle from the eigenvalues of the covariance; a single pixel has two of 0 and no eccentricity."""
    middle, spread = (var_x + var_y) / 2, np.hypot((var_x - var_y) / 2, cov)
    major, minor = middle + spread, np.maximum(middle - spread, 0)
    ratio = np.divide(minor, major, out=np.ones_like(major), where=major > 0)
    angle = 0.5 * np.arctan2(2 * cov, var_y - var_x)
    return {
        "axis_major_length": 4 * np.sqrt(major),
        "axis_minor_length": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(1 - ratio),
        "orientation": np.where(var_x == var_y, np.where(cov > 0, np.pi / 4, -np.pi / 4), angle),
    }


def _perimeters(plane: NDArray[np.integer], width: int, ids: NDArray[np.int64]) -> NDArray[Any]:
    """Perimeter by the configuration of border pixels around each border pixel; the plane is flat, with a frame.

    A border pixel has a neighbour along an axis that is not of its nucleus. The weights of configurations are those of
    Benkrid and Crookes, "Design and FPGA Implementation of a Perimeter Estimator", as in skimage.measure.perimeter.
    """
    on_border = np.zeros(plane.size, bool)
    for step in (1, width):
        unlike = plane[step:] != plane[:-step]
        on_border[step:] |= unlike
        on_border[:-step] |= unlike
    place = np.flatnonzero(on_border & (plane > 0))
    labels = plane[place]
    border = np.zeros_like(plane)
    border[place] = labels
    code = np.ones(place.size, np.int64)
    straight, diagonal = (-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1)
    for steps, value in ((straight, _STRAIGHT), (diagonal, _DIAGONAL)):
        for step in steps:
            code += value * (border[place + step] == labels)
    nucleus = _places(labels.astype(np.int64, copy=False), ids)
    return np.bincount(nucleus, _WEIGHTS[code], minlength=ids.size).astype(np.float64)  # integers without a pixel


def _intensities(pixels: NDArray[Any], runs: _Runs, area: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Mean, extremes and standard deviation; pixels: those of all runs, in their order."""
    starts = np.cumsum(runs.length) - runs.length
    exact = pixels.astype(np.float64)
    mean = runs.reduce(np.add, np.add.reduceat(exact, starts)) / area
    low, high = (runs.reduce(f, f.reduceat(pixels, starts)) for f in (np.minimum, np.maximum))
    exact -= np.repeat(mean[runs.nucleus], runs.length)
    return {
        "intensity_mean": mean,
        "intensity_min": low.astype(np.float64),
        "intensity_max": high.astype(np.float64),
        "intensity_std": np.sqrt(runs.reduce(np.add, np.add.reduceat(exact * exact, starts)) / area),
    }
