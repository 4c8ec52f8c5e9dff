"""Statistics of every nucleus by sums over the whole image, without a loop over nuclei.

Names, definitions and values are those of `skimage.measure.regionprops_table`, which measures one region at a time and
would be the slowest stage of a run. Here the foreground pixels are sorted by label once; then every statistic is a sum,
minimum or maximum over a stretch of them. Coordinates are summed as integers relative to each nucleus' own bounding
box, so that a nucleus far from the origin of a large plane loses no precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

COLUMNS: tuple[str, ...] = (
    "label",
    "area",
    "bbox-0",
    "bbox-1",
    "bbox-2",
    "bbox-3",
    "centroid-0",
    "centroid-1",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "equivalent_diameter_area",
    "extent",
    "perimeter",
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_std",
)
"""What `measure` returns, in the order of the tables."""

_INTEGERS = COLUMNS[:6]

_DIAGONAL, _STRAIGHT = 10, 2
"""What a neighbour on the border adds to the code of a border pixel, which itself counts 1."""


def _perimeter_weights() -> NDArray[np.float64]:
    weights = np.zeros(4 * (_DIAGONAL + _STRAIGHT) + 2)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    return weights


_WEIGHTS = _perimeter_weights()


def measure(labels: NDArray[np.integer], intensity: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Measures every nucleus: one array for each of COLUMNS, with a value for each label in ascending order.

    labels: (height, width), 0 is background; labels that do not occur have no row. intensity: (height, width), any real
    dtype; all sums of it are float64, where regionprops_table adds float32 in float32. Lengths are in pixels, angles in
    radians. Integers come as int64, other values as float64. Raises ValueError where the two differ in shape or are not
    planes.
    """
    if labels.ndim != 2 or labels.shape != intensity.shape:
        raise ValueError(
            f"labels and intensity must be planes of one shape, but are {labels.shape}, {intensity.shape}."
        )
    place = np.flatnonzero(labels)
    ids, rank, area = _ranked(labels.ravel()[place].astype(np.int64, copy=False))
    if ids.size == 0:
        return {name: np.zeros(0, np.int64 if name in _INTEGERS else np.float64) for name in COLUMNS}
    order = np.argsort(rank, kind="stable")
    place, rank = place[order], rank[order]
    starts = np.cumsum(area) - area
    y, x = np.divmod(place, labels.shape[1])
    table: dict[str, NDArray[Any]] = {"label": ids, "area": area}
    table |= _box_and_moments(y, x, area, starts)
    table["equivalent_diameter_area"] = np.sqrt(4 * area / np.pi)
    box = (table["bbox-2"] - table["bbox-0"]) * (table["bbox-3"] - table["bbox-1"])
    table["extent"] = area / box
    table["perimeter"] = _perimeters(labels.shape, y, x, rank, ids.size)
    table |= _intensities(intensity.ravel()[place], area, starts)
    return {name: table[name] for name in COLUMNS}


def _ranked(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """The labels that occur, the place of each pixel's label among them, and their areas.

    The quick way counts up to the highest label; labels far above the number of pixels are sorted instead.
    """
    if values.size and int(values.max()) > max(4 * values.size, 2**16):
        return np.unique(values, return_inverse=True, return_counts=True)
    counts = np.bincount(values)
    ids = np.flatnonzero(counts)
    rank = (np.cumsum(counts > 0) - 1).astype(np.uint16 if ids.size < 2**16 else np.int64)[values]
    return ids, rank, counts[ids]  # 16-bit ranks are sorted by radix, in linear time


def _box_and_moments(
    y: NDArray[np.int64], x: NDArray[np.int64], area: NDArray[np.int64], starts: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Bounding box, centroid and the ellipse of equal second moments; pixels are sorted by nucleus, then by row."""
    top, bottom = y[starts], y[starts + area - 1]  # rows ascend within a nucleus
    left, right = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    y, x = y - np.repeat(top, area), x - np.repeat(left, area)
    sum_y, sum_x, sum_yy, sum_xx, sum_xy = (np.add.reduceat(v, starts) for v in (y, x, y * y, x * x, x * y))
    (mid_y, rest_y), (mid_x, rest_x) = np.divmod(sum_y, area), np.divmod(sum_x, area)
    # Moved, as integers, to the pixel at the centroid: squares of the first sums overflow in regions of megapixels.
    var_y = (sum_yy - mid_y * (sum_y + rest_y) - rest_y * rest_y / area) / area
    var_x = (sum_xx - mid_x * (sum_x + rest_x) - rest_x * rest_x / area) / area
    cov = (sum_xy - mid_y * sum_x - mid_x * rest_y - rest_y * rest_x / area) / area
    middle, spread = (var_x + var_y) / 2, np.hypot((var_x - var_y) / 2, cov)
    major, minor = middle + spread, np.maximum(middle - spread, 0)
    ratio = np.divide(minor, major, out=np.ones_like(major), where=major > 0)
    angle = 0.5 * np.arctan2(2 * cov, var_y - var_x)
    return {
        "bbox-0": top,
        "bbox-1": left,
        "bbox-2": bottom + 1,
        "bbox-3": right + 1,
        "centroid-0": top + sum_y / area,
        "centroid-1": left + sum_x / area,
        "axis_major_length": 4 * np.sqrt(major),
        "axis_minor_length": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(1 - ratio),
        "orientation": np.where(var_x == var_y, np.where(cov > 0, np.pi / 4, -np.pi / 4), angle),
    }


def _perimeters(
    shape: tuple[int, ...], y: NDArray[np.int64], x: NDArray[np.int64], rank: NDArray[Any], count: int
) -> NDArray[Any]:
    """Perimeter by the configuration of border pixels around each border pixel.

    A border pixel has a neighbour along an axis that is not of its nucleus. The weights of configurations are those of
    Benkrid and Crookes, "Design and FPGA Implementation of a Perimeter Estimator", as in skimage.measure.perimeter.
    """
    width = shape[1] + 2
    place = (y + 1) * width + x + 1
    numbers = np.full((shape[0] + 2) * width, -1, np.int32)
    numbers[place] = rank
    straight, diagonal = (-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1)
    inner = np.ones(place.size, bool)
    for step in straight:
        inner &= numbers[place + step] == rank
    place, rank = place[~inner], rank[~inner]
    numbers.fill(-1)
    numbers[place] = rank
    code = np.ones(place.size, np.int64)
    for steps, value in ((straight, _STRAIGHT), (diagonal, _DIAGONAL)):
        for step in steps:
            code += value * (numbers[place + step] == rank)
    return np.bincount(rank, _WEIGHTS[code], minlength=count).astype(np.float64, copy=False)


def _intensities(
    values: NDArray[Any], area: NDArray[np.int64], starts: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    exact = values.astype(np.float64)
    mean = np.add.reduceat(exact, starts) / area
    deviation = exact - np.repeat(mean, area)
    return {
        "intensity_mean": mean,
        "intensity_min": np.minimum.reduceat(exact, starts),
        "intensity_max": np.maximum.reduceat(exact, starts),
        "intensity_std": np.sqrt(np.add.reduceat(deviation * deviation, starts) / area),
    }
