"""The statistics of nuclei in plain NumPy, as a reference for the compiled loops of `nucseg_batch.arrays.measure`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.confidence import mean_support
from nucseg_batch.arrays.grouping import present_labels
from nucseg_batch.columns import MEASURED, names

_DIAGONAL, _STRAIGHT = 10, 2


@dataclass(frozen=True)
class _Runs:
    """Stretches of one label along a row of a plane in a frame of background."""

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    width: int
    ids: NDArray[np.int64]
    nucleus: NDArray[np.int64]
    order: NDArray[np.intp]
    count: NDArray[np.int64]

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Place in `order` of each nucleus' first run."""
        return np.cumsum(self.count) - self.count

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Pixels in all runs before each."""
        return np.cumsum(self.length) - self.length

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """One value for each nucleus from one for each of its runs, along the last axis."""
        return ufunc.reduceat(values[..., self.order], self.first, axis=-1)

    def pixels(self) -> NDArray[np.int64]:
        """The places of all pixels in the flat plane without its frame, run by run."""
        y, x = np.divmod(self.start, self.width)
        inner = (y - 1) * (self.width - 2) + x - 1
        return np.repeat(inner - self.offsets, self.length) + np.arange(int(self.length.sum()))


def _perimeter_weights() -> NDArray[np.float64]:
    weights = np.zeros(4 * (_DIAGONAL + _STRAIGHT) + 2)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    return weights


_WEIGHTS = _perimeter_weights()


def measured(
    labels: NDArray[np.integer], intensity: NDArray[Any], support: NDArray[np.uint8] | None = None
) -> dict[str, NDArray[Any]]:
    """What `measure` says, without channels."""
    framed = np.zeros((labels.shape[0] + 2, labels.shape[1] + 2), labels.dtype)
    framed[1:-1, 1:-1] = labels
    runs = _runs(framed)
    table: dict[str, NDArray[Any]] = {"label": runs.ids} | _box_and_moments(runs)
    area = table["area"]
    table["equivalent_diameter_area"] = np.sqrt(4 * area / np.pi)
    table["extent"] = area / ((table["bbox-2"] - table["bbox-0"]) * (table["bbox-3"] - table["bbox-1"]))
    table["perimeter"] = _perimeters(framed.ravel(), runs)
    inside = runs.pixels()
    table |= _intensities(intensity.ravel()[inside], runs, area)
    found = {name: table[name] for name in names(MEASURED)}
    if support is not None:
        found["confidence"] = _confidence(support.ravel()[inside], runs)
    return found


def _runs(framed: NDArray[np.integer]) -> _Runs:
    plane, width = framed.ravel(), framed.shape[1]
    changes = np.flatnonzero(plane[1:] != plane[:-1]) + 1
    labels = plane[changes].astype(np.int64, copy=False)
    (kept,) = np.nonzero(labels[:-1] > 0)  # what follows the last change is frame
    start, labels = changes[kept], labels[kept]
    ids, nucleus = present_labels(labels)
    order = np.argsort(nucleus, kind="stable")
    count = np.bincount(nucleus, minlength=ids.size)
    return _Runs(start, changes[kept + 1] - start, width, ids, nucleus, order, count)


def _box_and_moments(runs: _Runs) -> dict[str, NDArray[Any]]:
    """Area, bounding box, centroid and the ellipse of equal second moments."""
    first, last = runs.first, runs.first + runs.count - 1
    n = runs.length[runs.order]
    y, x = np.divmod(runs.start[runs.order] - runs.width - 1, runs.width)
    top, bottom = y[first], y[last] + 1
    left, right = np.minimum.reduceat(x, first), np.maximum.reduceat(x + n, first)
    y -= np.repeat(top, runs.count)
    x -= np.repeat(left, runs.count)
    ny, pairs = n * y, n * (n - 1)
    run_x = n * x + pairs // 2
    run_xx = (n * x + pairs) * x + pairs * (2 * n - 1) // 6
    sums = np.add.reduceat(np.stack([n, ny, run_x, ny * y, run_xx, y * run_x]), first, axis=1)
    area, sum_y, sum_x, sum_yy, sum_xx, sum_xy = sums
    (mid_y, rest_y), (mid_x, rest_x) = np.divmod(sum_y, area), np.divmod(sum_x, area)
    # Moved, as integers, to the pixel at the centroid: squares of the first sums overflow in regions of megapixels.
    var_y = (sum_yy - mid_y * (sum_y + rest_y) - rest_y * rest_y / area) / area
    var_x = (sum_xx - mid_x * (sum_x + rest_x) - rest_x * rest_x / area) / area
    cov = (sum_xy - mid_y * sum_x - mid_x * rest_y - rest_y * rest_x / area) / area
    return {
        "area": area,
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


def _perimeters(plane: NDArray[np.integer], runs: _Runs) -> NDArray[Any]:
    """Perimeter by the configuration of border pixels around each border pixel; the plane is flat, with its frame.

    A border pixel has a neighbour along an axis that is not of its nucleus. The weights of configurations are those of
    Benkrid and Crookes, "Design and FPGA Implementation of a Perimeter Estimator", as in skimage.measure.perimeter.
    """
    width = runs.width
    on_border = np.zeros(plane.size, bool)
    unlike = plane[width:] != plane[:-width]
    on_border[width:] = unlike
    on_border[:-width] |= unlike
    on_border[runs.start] = on_border[runs.start + runs.length - 1] = True
    place = np.flatnonzero(on_border)
    labels = plane[place]
    (kept,) = np.nonzero(labels > 0)
    place, labels = place[kept], labels[kept]
    border = np.zeros_like(plane)
    border[place] = labels
    corner = place - (width + 1)  # of the 3x3 pixels around each
    code = np.ones(place.size, np.uint8)
    straight, diagonal = (1, width, width + 2, 2 * width + 1), (0, 2, 2 * width, 2 * width + 2)
    for steps, value in ((straight, _STRAIGHT), (diagonal, _DIAGONAL)):
        count = np.zeros(place.size, np.uint8)
        for step in steps:
            count += border[step:][corner] == labels
        count *= value
        code += count
    nucleus = np.searchsorted(runs.ids, labels.astype(np.int64))
    return np.bincount(nucleus, _WEIGHTS[code], minlength=runs.ids.size).astype(np.float64)  # integers without a pixel


def _intensities(pixels: NDArray[Any], runs: _Runs, area: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Mean, extremes and standard deviation; pixels: those of all runs, in their order."""
    starts = runs.offsets
    exact = pixels.astype(np.float64)
    mean = runs.reduce(np.add, np.add.reduceat(exact, starts)) / area
    low, high = (runs.reduce(f, f.reduceat(pixels, starts)) for f in (np.minimum, np.maximum))
    exact -= np.repeat(mean[runs.nucleus], runs.length)
    exact *= exact
    return {
        "intensity_mean": mean,
        "intensity_min": low.astype(np.float64),
        "intensity_max": high.astype(np.float64),
        "intensity_std": np.sqrt(runs.reduce(np.add, np.add.reduceat(exact, starts)) / area),
    }


def _confidence(support: NDArray[np.uint8], runs: _Runs) -> NDArray[np.float64]:
    """Mean support of each nucleus over the pixels that voted; support: of the pixels of all runs, in their order."""
    total, count = (
        runs.reduce(np.add, np.add.reduceat(values, runs.offsets, dtype=np.int64)) for values in (support, support > 0)
    )
    return mean_support(total, count)
