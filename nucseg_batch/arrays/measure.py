"""Statistics of every nucleus by sums over the whole image, without a loop over nuclei.

Names, definitions and values are those of `skimage.measure.regionprops_table`, which measures one region at a time and
would be the slowest stage of a run. Here the plane is cut once into runs, stretches of one label along a row. A nucleus
has far fewer runs than pixels, and the area, box and moments of a run have closed forms; so only intensities are read
pixel by pixel, in the order in which they lie in memory, and nothing but runs is sorted. Moments are sums of integers
around each nucleus' own centre: a nucleus far from the origin of a large plane loses no precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.confidence import mean_support
from nucseg_batch.arrays.grouping import present_labels
from nucseg_batch.columns import MEASURED, channel_columns, names

TOGETHER = 2**20
"""Pixels of small planes that are measured at once, at most."""
HIGH = 2**31
"""Labels so high are not numbered on from plane to plane."""
_DIAGONAL, _STRAIGHT = 10, 2
"""What a neighbour on the border adds to the code of a border pixel, which itself counts 1."""


@dataclass(frozen=True)
class _Runs:
    """Stretches of one label along a row, and how they make up nuclei; arrays are int64 but for `order`."""

    start: NDArray[np.int64]
    """(runs,): place of each run's first pixel in the flat plane with its frame, in raster order."""
    length: NDArray[np.int64]
    """(runs,): pixels in each run."""
    width: int
    """Length of a row, with the frame."""
    height: int
    """Rows of one plane, with the row of background that follows it."""
    span: int
    """By how much the ids of a plane are above those of the plane before."""
    ids: NDArray[np.int64]
    """(nuclei,): labels, ascending, plane after plane: in plane i they have i * `span` added."""
    nucleus: NDArray[np.int64]
    """(runs,): place in `ids` of each run's label."""
    order: NDArray[np.intp]
    """(runs,): the runs sorted by nucleus, then in raster order."""
    count: NDArray[np.int64]
    """(nuclei,): runs of each nucleus."""

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(nuclei,): place in `order` of each nucleus' first run."""
        return np.cumsum(self.count) - self.count

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(runs,): pixels in all runs before each."""
        return np.cumsum(self.length) - self.length

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """One value for each nucleus from one for each of its runs, along the last axis."""
        return ufunc.reduceat(values[..., self.order], self.first, axis=-1)

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """(nuclei,): where the plane of each nucleus begins among the rows."""
        return self.ids // self.span * self.height

    def pixels(self) -> NDArray[np.int64]:
        """(pixels,): the places of all pixels in the flat planes without their frames, run by run."""
        y, x = np.divmod(self.start, self.width)
        y -= 1
        y -= y // self.height
        inner = y * (self.width - 2) + x - 1
        return np.repeat(inner - self.offsets, self.length) + np.arange(int(self.length.sum()))


def _perimeter_weights() -> NDArray[np.float64]:
    weights = np.zeros(4 * (_DIAGONAL + _STRAIGHT) + 2)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    return weights


_WEIGHTS = _perimeter_weights()


class PlaneToMeasure(NamedTuple):
    """A plane with its nuclei, as `measure` takes them."""

    labels: NDArray[np.integer]
    intensity: NDArray[Any]
    channels: Mapping[str, NDArray[Any]] = {}
    support: NDArray[np.uint8] | None = None

    @property
    def kind(self) -> tuple[object, ...]:
        """Planes of one kind can be measured together."""
        support = None if self.support is None else self.support.dtype
        channels = tuple((name, plane.dtype) for name, plane in self.channels.items())
        return self.labels.shape, self.labels.dtype, self.intensity.dtype, channels, support

    def check(self) -> None:
        """Raises ValueError where planes differ in shape or are none."""
        shape = self.labels.shape
        if len(shape) != 2 or shape != self.intensity.shape:
            raise ValueError(
                f"labels and intensity must be planes of one shape, but are {shape}, {self.intensity.shape}."
            )
        for name, plane in self.channels.items():
            if plane.shape != shape:
                raise ValueError(f"channel {name} is {plane.shape}, but labels are {shape}.")


def measure(
    labels: NDArray[np.integer],
    intensity: NDArray[Any],
    channels: Mapping[str, NDArray[Any]] | None = None,
    support: NDArray[np.uint8] | None = None,
) -> dict[str, NDArray[Any]]:
    """Measures every nucleus: one array for each of `columns.MEASURED`, with a value for each label in ascending order.

    labels: (height, width), 0 and below are background; labels that do not occur have no row. intensity: (height,
    width), any real dtype; all sums of it are float64, where regionprops_table adds float32 in float32. Lengths are in
    pixels, angles in radians from the first axis. Integers come as int64, other values as float64. `channels` are more
    planes by name, whose intensities are added as `columns.channel_columns`. support: (height, width); with it there is
    `confidence`, too, as `arrays.confidence.nuclei_confidence` has it. Raises ValueError where planes differ in shape
    or are none.
    """
    return measure_planes([PlaneToMeasure(labels, intensity, channels or {}, support)])[0]


def measure_planes(planes: Sequence[PlaneToMeasure]) -> list[dict[str, NDArray[Any]]]:
    """What `measure` says of each of some planes.

    Small planes of one kind that follow each other are measured as one, up to TOGETHER pixels: calls of numpy cost more
    than the pixels of a plane of 256x256.
    """
    found: list[dict[str, NDArray[Any]]] = []
    waiting: list[PlaneToMeasure] = []
    for plane in planes:
        plane.check()
        size = plane.labels.size
        if waiting and (plane.kind != waiting[0].kind or (len(waiting) + 1) * size > TOGETHER):
            found += _measured(waiting)
            waiting = []
        waiting.append(plane)
    return found + (_measured(waiting) if waiting else [])


_NAMES = names(MEASURED)


def _measured(planes: Sequence[PlaneToMeasure]) -> list[dict[str, NDArray[Any]]]:
    """The same of planes of one kind, which are put one below the other."""
    first, count = planes[0], len(planes)
    height, width = first.labels.shape
    framed = np.zeros((count * (height + 1) + 1, width + 2), first.labels.dtype)
    for i, plane in enumerate(planes):  # background all around ends every run with its row
        framed[i * (height + 1) + 1 : (i + 1) * (height + 1), 1:-1] = plane.labels
    span = np.iinfo(np.int64).max
    if count > 1:
        span = int(framed.max()) + 1
        if span > HIGH:
            return [_measured([plane])[0] for plane in planes]
    runs = _runs(framed, height + 1, span)
    table: dict[str, NDArray[Any]] = {"label": runs.ids % span} | _box_and_moments(runs)
    area = table["area"]
    table["equivalent_diameter_area"] = np.sqrt(4 * area / np.pi)
    table["extent"] = area / ((table["bbox-2"] - table["bbox-0"]) * (table["bbox-3"] - table["bbox-1"]))
    table["perimeter"] = _perimeters(framed.ravel(), runs)
    inside = runs.pixels()
    table |= _intensities(_pixels([plane.intensity for plane in planes], inside), runs, area)
    for channel in first.channels:
        values = _intensities(_pixels([plane.channels[channel] for plane in planes], inside), runs, area)
        table |= {f"{name}-{channel}": value for name, value in values.items()}
    found = {name: table[name] for name in (*_NAMES, *names(channel_columns(first.channels)))}
    supports = [plane.support for plane in planes if plane.support is not None]
    if supports:
        found["confidence"] = _confidence(_pixels(supports, inside), runs)
    if count == 1:
        return [found]
    ends = np.searchsorted(runs.ids, np.arange(1, count + 1) * span).tolist()
    sides = zip([0, *ends[:-1]], ends, strict=True)
    return [{name: values[start:end] for name, values in found.items()} for start, end in sides]


def _pixels(planes: Sequence[NDArray[Any]], inside: NDArray[np.int64]) -> NDArray[Any]:
    """Some pixels of planes that are taken for one."""
    return (planes[0].ravel() if len(planes) == 1 else np.concatenate([plane.ravel() for plane in planes]))[inside]


def _runs(framed: NDArray[np.integer], height: int, span: int) -> _Runs:
    """The runs of planes in a frame of background; height and span as in `_Runs`."""
    plane, width = framed.ravel(), framed.shape[1]
    changes = np.flatnonzero(plane[1:] != plane[:-1])
    changes += 1
    labels = plane[changes].astype(np.int64, copy=False)
    (kept,) = np.nonzero(labels[:-1] > 0)  # what follows the last change is frame
    start, labels = changes[kept], labels[kept]
    if framed.shape[0] > height + 1:
        labels += (start - width) // (width * height) * span
    ids, nucleus = present_labels(labels)
    few = nucleus.astype(np.uint16) if ids.size <= 2**16 else nucleus  # numbers of 16 bits are sorted by their digits
    order = np.argsort(few, kind="stable")
    count = np.bincount(nucleus, minlength=ids.size)
    return _Runs(start, changes[kept + 1] - start, width, height, span, ids, nucleus, order, count)


def _places(labels: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each label is in `ids`: by a table, or by search where labels are too high for a table of all."""
    if ids.size == 0 or ids[-1] > max(4 * labels.size, 2**16):
        return np.searchsorted(ids, labels)
    table = np.zeros(ids[-1] + 1, np.int64)
    table[ids] = np.arange(ids.size)
    return table[labels]


def _box_and_moments(runs: _Runs) -> dict[str, NDArray[Any]]:
    """Area, bounding box, centroid and the ellipse of equal second moments."""
    first, last = runs.first, runs.first + runs.count - 1
    n = runs.length[runs.order]
    y, x = np.divmod(runs.start[runs.order] - runs.width - 1, runs.width)
    top, bottom = y[first], y[last] + 1
    top -= runs.row
    bottom -= runs.row
    left, right = np.minimum.reduceat(x, first), np.maximum.reduceat(x + n, first)
    y -= np.repeat(top + runs.row, runs.count)
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
    numbers: NDArray[np.int64] = labels.astype(np.int64)
    if plane.size > width * (runs.height + 1):
        numbers += (place - width) // (width * runs.height) * runs.span
    nucleus = _places(numbers, runs.ids)
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
