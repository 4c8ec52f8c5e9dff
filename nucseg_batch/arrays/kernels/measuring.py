"""Sums over the pixels of every nucleus of a plane, for `arrays.measure`.

A plane is cut once into runs, stretches of one label along a row. Area, box and moments of a run have closed forms, so
only intensities are read pixel by pixel. What is no whole number is added in raster order within each nucleus, runs
first, so that sums do not depend on how planes are shared among threads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined

ROW, START, STOP, NUCLEUS = range(4)
"""Columns of runs: row, first column, column after the last, and place of the nucleus among the labels that occur."""
_AREA, _TOP, _BOTTOM, _ORIGIN, _LEFT, _RIGHT, _Y, _X, _YY, _XX, _YX = range(11)
"""Columns of sums; those after _RIGHT are of coordinates from _TOP and from the column _ORIGIN on."""
_DIAGONAL, _STRAIGHT = 10, 2
"""What a neighbour on the border adds to the code of a border pixel, which itself counts 1."""


def _perimeter_weights() -> NDArray[np.float64]:
    weights = np.zeros(4 * (_DIAGONAL + _STRAIGHT) + 2)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    return weights


_WEIGHTS = _perimeter_weights()


@compiled
def find_runs(labels: NDArray[Any]) -> tuple[NDArray[np.int64], int]:
    """The runs of labels (h, w) in raster order, (runs, 4), with the label in place of NUCLEUS; and the highest label.

    0 and below are background.
    """
    height, width = labels.shape
    runs, count = np.empty((height + 2 * width + 1, 4), np.int64), 0
    changed, place = np.zeros(width // 8 * 8 + 8, np.uint8), np.empty(width + 8, np.int64)
    eight = changed.view(np.uint64)
    for y in range(height if width else 0):
        if count + width >= runs.shape[0]:
            more = np.empty((2 * runs.shape[0], 4), np.int64)
            for run in range(count):
                for i in range(4):
                    more[run, i] = runs[run, i]
            runs = more
        count = _add_runs(labels, y, changed, eight, place, runs, count)
    highest = 0
    for run in range(count):
        highest = max(highest, runs[run, NUCLEUS])
    return runs[:count], highest


@inlined
def _add_runs(
    labels: NDArray[Any],
    y: int,
    changed: NDArray[np.uint8],
    eight: NDArray[np.uint64],
    place: NDArray[np.int64],
    runs: NDArray[np.int64],
    count: int,
) -> int:
    """Writes the runs of a row behind the `count` that are there; returns how many there are then.

    changed: room for a mark of each place and of the end; eight: the same, eight at a time; place: room for the places
    of changes. Nothing branches on whether a label changes or is background, which a processor cannot foretell.
    """
    width = labels.shape[1]
    before, after, marked = labels[y, :-1], labels[y, 1:], changed[1:width]
    for x in range(width - 1):
        marked[x] = np.uint8(1) if after[x] != before[x] else np.uint8(0)
    changed[width] = 1  # the last run ends with the row
    changes = 0
    for i in range(eight.size):
        if eight[i] != 0:
            for x in range(8 * i, 8 * i + 8):
                place[changes] = x
                changes += changed[x]
    start = 0
    for i in range(changes):
        label = labels[y, start]
        runs[count, ROW], runs[count, START], runs[count, STOP], runs[count, NUCLEUS] = y, start, place[i], label
        count += label > 0
        start = place[i]
    return count


@compiled
def number(runs: NDArray[np.int64], highest: int) -> NDArray[np.int64]:
    """Puts places among the labels that occur where runs have labels, by a table of all; returns these, ascending."""
    place = np.zeros(highest + 1, np.int32)
    for run in range(runs.shape[0]):
        place[runs[run, NUCLEUS]] = 1
    count = 0
    for label in range(place.size):
        count += place[label]
        place[label] = count - 1
    ids = np.empty(count, np.int64)
    for run in range(runs.shape[0]):
        label = runs[run, NUCLEUS]
        runs[run, NUCLEUS] = place[label]
        ids[place[label]] = label
    return ids


@compiled
def run_areas(runs: NDArray[np.int64], highest: int) -> NDArray[np.int64]:
    """Pixels of each label from 1 to the highest, (highest,), where runs have labels."""
    areas = np.zeros(highest + 1, np.int64)
    for run in range(runs.shape[0]):
        areas[runs[run, NUCLEUS]] += runs[run, STOP] - runs[run, START]
    return areas[1:]


@compiled
def draw(runs: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Writes 1 + NUCLEUS of each run into its pixels of an image (h, w)."""
    for run in range(runs.shape[0]):
        row, value = runs[run, ROW], runs[run, NUCLEUS] + 1
        for x in range(runs[run, START], runs[run, STOP]):
            out[row, x] = value


@compiled
def shapes(runs: NDArray[np.int64], count: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Area and box of `count` nuclei, (5, count), and nine statistics of their shape, (9, count), as in `columns`.

    width: of the plane.
    """
    sums = np.zeros((count, 11), np.int64)
    for run in range(runs.shape[0]):
        _add_run(sums, runs, run)
    whole, real = np.empty((5, count), np.int64), np.zeros((9, count), np.float64)
    for nucleus in range(count):
        _finish_box(sums[nucleus], whole[:, nucleus])
        _finish_shape(sums[nucleus], real[:, nucleus])
    _add_perimeters(runs, width, real[8])
    return whole, real


@inlined
def _add_run(sums: NDArray[np.int64], runs: NDArray[np.int64], run: int) -> None:
    """Adds one run to the sums of its nucleus."""
    row, start, stop, i = runs[run, ROW], runs[run, START], runs[run, STOP], runs[run, NUCLEUS]
    if sums[i, _AREA] == 0:
        sums[i, _TOP], sums[i, _ORIGIN], sums[i, _LEFT], sums[i, _RIGHT] = row, start, start, stop
    sums[i, _BOTTOM] = row + 1
    sums[i, _LEFT], sums[i, _RIGHT] = min(sums[i, _LEFT], start), max(sums[i, _RIGHT], stop)
    n, y, x = stop - start, row - sums[i, _TOP], start - sums[i, _ORIGIN]
    pairs = n * (n - 1)
    of_x = n * x + pairs // 2
    sums[i, _AREA] += n
    sums[i, _Y] += n * y
    sums[i, _X] += of_x
    sums[i, _YY] += n * y * y
    sums[i, _XX] += (n * x + pairs) * x + pairs * (2 * n - 1) // 6
    sums[i, _YX] += y * of_x


@inlined
def _finish_box(sums: NDArray[np.int64], whole: NDArray[np.int64]) -> None:
    """Area and bounding box."""
    whole[0], whole[1], whole[2] = sums[_AREA], sums[_TOP], sums[_LEFT]
    whole[3], whole[4] = sums[_BOTTOM], sums[_RIGHT]


@inlined
def _finish_shape(sums: NDArray[np.int64], real: NDArray[np.float64]) -> None:
    """Centroid, the ellipse of equal second moments, and how large the nucleus is.

    The second moments are moved to the box and to the pixel at the centroid as integers: a nucleus far from the origin
    of a large plane loses no precision, and what exceeds 64 bits in between is made up for.
    """
    area, shift = sums[_AREA], sums[_ORIGIN] - sums[_LEFT]
    sum_y, sum_x = sums[_Y], sums[_X] + shift * area
    sum_xx = sums[_XX] + shift * (2 * sums[_X] + shift * area)
    sum_yx = sums[_YX] + shift * sum_y
    mid_y, mid_x = sum_y // area, sum_x // area
    rest_y, rest_x = sum_y - mid_y * area, sum_x - mid_x * area
    over_y, over_x = float(rest_y), float(rest_x)
    var_y = (sums[_YY] - mid_y * (sum_y + rest_y) - over_y * over_y / area) / area
    var_x = (sum_xx - mid_x * (sum_x + rest_x) - over_x * over_x / area) / area
    cov = (sum_yx - mid_y * sum_x - mid_x * rest_y - over_y * over_x / area) / area
    real[0], real[1] = sums[_TOP] + sum_y / area, sums[_LEFT] + sum_x / area
    middle, spread = (var_x + var_y) / 2, math.hypot((var_x - var_y) / 2, cov)
    major, minor = middle + spread, max(middle - spread, 0.0)
    real[2], real[3] = 4 * math.sqrt(major), 4 * math.sqrt(minor)
    real[4] = math.sqrt(1 - minor / major) if major > 0 else 0.0
    if var_x == var_y:
        real[5] = math.pi / 4 if cov > 0 else -math.pi / 4
    else:
        real[5] = 0.5 * math.atan2(2 * cov, var_y - var_x)
    real[6] = math.sqrt(4 * area / math.pi)
    real[7] = area / ((sums[_BOTTOM] - sums[_TOP]) * (sums[_RIGHT] - sums[_LEFT]))


@inlined
def _add_perimeters(runs: NDArray[np.int64], width: int, perimeter: NDArray[np.float64]) -> None:
    """Adds perimeters by the configuration of border pixels around each border pixel.

    A border pixel has a neighbour along an axis that is not of its nucleus. The weights of configurations are those of
    Benkrid and Crookes, "Design and FPGA Implementation of a Perimeter Estimator", as in skimage.measure.perimeter.
    """
    border = np.zeros((3, width + 2), np.int64)  # of three rows: 1 + nucleus of border pixels, in a frame of one pixel
    column, count = np.empty((3, width), np.int64), np.zeros(3, np.int64)  # and their columns as a list
    height = runs[-1, ROW] + 1 if runs.shape[0] else 0
    first = second = third = 0
    end = _row_end(runs, 0, 0)
    for y in range(height + 1):  # of which the runs are second to third, between those of the rows beside it
        first, second, third, end = second, third, end, _row_end(runs, end, y + 1)
        here, before = y % 3, (y + 2) % 3
        for i in range(count[here]):
            border[here, column[here, i] + 1] = 0
        count[here] = _mark_row(runs, (first, second, third, end), border, column, here)
        for i in range(count[before]):
            x = column[before, i]
            code = _code(border, (y + 1) % 3, before, here, x)
            perimeter[border[before, x + 1] - 1] += _WEIGHTS[code]


@inlined
def _row_end(runs: NDArray[np.int64], run: int, y: int) -> int:
    """The first run from one on that is not in a row."""
    while run < runs.shape[0] and runs[run, ROW] == y:
        run += 1
    return run


@inlined
def _mark_row(
    runs: NDArray[np.int64],
    rows: tuple[int, int, int, int],
    border: NDArray[np.int64],
    column: NDArray[np.int64],
    here: int,
) -> int:
    """Marks and lists the border pixels of a row in row `here` of both arrays; returns how many there are.

    What is enclosed are stretches: where runs of the nucleus above and below overlap its own, without both ends.
    rows: where runs of the row above, of the row and of the row below begin, and where these end.
    """
    count, (above, begin, below, end) = 0, rows
    stop_above, stop_here = begin, below
    for run in range(begin, stop_here):
        start, stop, nucleus = runs[run, START], runs[run, STOP], runs[run, NUCLEUS]
        while above < stop_above and runs[above, STOP] <= start:
            above += 1
        while below < end and runs[below, STOP] <= start:
            below += 1
        i, j, x = above, below, start
        while i < stop_above and j < end and runs[i, START] < stop and runs[j, START] < stop:
            low = max(start + 1, runs[i, START], runs[j, START])
            high = min(stop - 1, runs[i, STOP], runs[j, STOP])
            if low < high and runs[i, NUCLEUS] == nucleus and runs[j, NUCLEUS] == nucleus:
                count = _mark(nucleus, x, low, border, column, here, count)
                x = high
            if runs[i, STOP] < runs[j, STOP]:
                i += 1
            else:
                j += 1
        count = _mark(nucleus, x, stop, border, column, here, count)
    return count


@inlined
def _mark(
    nucleus: int, start: int, stop: int, border: NDArray[np.int64], column: NDArray[np.int64], here: int, count: int
) -> int:
    """Marks and lists pixels from a column to another behind the `count` that are there; returns the new count."""
    for x in range(start, stop):
        border[here, x + 1] = nucleus + 1
        column[here, count] = x
        count += 1
    return count


@inlined
def _code(border: NDArray[np.int64], above: int, here: int, below: int, x: int) -> int:
    """The configuration of border pixels around the one in column x of row `here`, between two others."""
    own = border[here, x + 1]
    straight = int(border[above, x + 1] == own) + int(border[below, x + 1] == own)
    straight += int(border[here, x] == own) + int(border[here, x + 2] == own)
    diagonal = int(border[above, x] == own) + int(border[above, x + 2] == own)
    diagonal += int(border[below, x] == own) + int(border[below, x + 2] == own)
    return 1 + _STRAIGHT * straight + _DIAGONAL * diagonal


@compiled
def whole_intensities(pixels: NDArray[Any], runs: NDArray[np.int64], area: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean, lowest, highest and standard deviation of whole numbers, (4, nuclei), from sums that are exact."""
    count = area.size
    sums = np.zeros((count, 4), np.int64)
    sums[:, 1] = np.iinfo(np.int64).max
    for run in range(runs.shape[0]):
        row, i = runs[run, ROW], runs[run, NUCLEUS]
        total, low, high, squares = sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3]
        for x in range(runs[run, START], runs[run, STOP]):
            value = np.int64(pixels[row, x])
            total += value
            low, high = min(low, value), max(high, value)
            squares += value * value
        sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3] = total, low, high, squares
    found = np.empty((4, count))
    for i in range(count):
        total, n = sums[i, 0], area[i]
        middle = (2 * total + n) // (2 * n)
        rest = total - middle * n  # from the whole number that is nearest to the mean: no digits cancel
        squares = sums[i, 3] - middle * (total + rest)
        found[0, i], found[1, i], found[2, i] = total / n, sums[i, 1], sums[i, 2]
        found[3, i] = math.sqrt(max(squares - rest * (rest / n), 0.0) / n)
    return found


@compiled
def real_intensities(pixels: NDArray[Any], runs: NDArray[np.int64], area: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same of other numbers, in two passes; NaN where a pixel is."""
    found = np.zeros((4, area.size))
    found[1], found[2] = np.inf, -np.inf
    for run in range(runs.shape[0]):
        row, nucleus = runs[run, ROW], runs[run, NUCLEUS]
        total, low, high = 0.0, found[1, nucleus], found[2, nucleus]
        for x in range(runs[run, START], runs[run, STOP]):
            value = np.float64(pixels[row, x])
            total += value
            low = value if value < low or value != value else low
            high = value if value > high or value != value else high
        found[0, nucleus] += total
        found[1, nucleus], found[2, nucleus] = low, high
    for nucleus in range(area.size):
        found[0, nucleus] /= area[nucleus]
    for run in range(runs.shape[0]):
        row, nucleus = runs[run, ROW], runs[run, NUCLEUS]
        total, mean = 0.0, found[0, nucleus]
        for x in range(runs[run, START], runs[run, STOP]):
            apart = np.float64(pixels[row, x]) - mean
            total += apart * apart
        found[3, nucleus] += total
    for nucleus in range(area.size):
        found[3, nucleus] = math.sqrt(found[3, nucleus] / area[nucleus])
    return found


@compiled
def support_sums(support: NDArray[np.uint8], runs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sum of the support of each nucleus, and how many of its pixels have any: (2, count)."""
    sums = np.zeros((2, count), np.int64)
    for run in range(runs.shape[0]):
        row, nucleus = runs[run, ROW], runs[run, NUCLEUS]
        total, voted = sums[0, nucleus], sums[1, nucleus]
        for x in range(runs[run, START], runs[run, STOP]):
            value = np.int64(support[row, x])
            total += value
            voted += int(value > 0)
        sums[0, nucleus], sums[1, nucleus] = total, voted
    return sums
