"""Views of annotated images for training: a Gaussian blur, and all planes of an image sampled in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled, inlined


@inlined
def _mirrored(place: int, length: int) -> int:
    """The pixel of an axis that is shown at a place, which may lie any distance beyond the axis."""
    place %= 2 * length
    return place if place < length else 2 * length - 1 - place


@compiled
def convolve_both_axes(image: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image (height, width, channels) convolved along rows and columns; beyond its edges it is mirrored.

    weights: (radius + 1,), of a pixel itself and of those at each distance from it.
    """
    height, width, channels = image.shape
    radius, length = weights.size - 1, width * channels
    rows = image.reshape(height, length)
    result = np.empty((height, length), np.float32)
    padded = np.empty((width + 2 * radius) * channels, np.float32)
    middle = padded[radius * channels : radius * channels + length]
    for i in range(height):
        row = rows[i]
        for j in range(length):
            middle[j] = weights[0] * row[j]
        for k in range(1, radius + 1):
            above, below, weight = rows[_mirrored(i - k, height)], rows[_mirrored(i + k, height)], weights[k]
            for j in range(length):
                middle[j] += weight * (above[j] + below[j])
        for k in range(radius):
            before, after = _mirrored(k - radius, width), _mirrored(width + k, width)
            for c in range(channels):
                padded[k * channels + c] = middle[before * channels + c]
                padded[(radius + width + k) * channels + c] = middle[after * channels + c]
        out = result[i]
        for j in range(length):
            out[j] = weights[0] * middle[j]
        for k in range(1, radius + 1):
            weight = weights[k]
            left = padded[(radius - k) * channels : (radius - k) * channels + length]
            right = padded[(radius + k) * channels : (radius + k) * channels + length]
            for j in range(length):
                out[j] += weight * (left[j] + right[j])
    return result.reshape(height, width, channels)


@inlined
def _shown(steps: NDArray[np.float64], start: float, size: int, length: int) -> tuple[int, NDArray[np.intp]]:
    """The pixels of an axis that a view shows, one after the other, and the place of the first of them.

    steps: (2,), how far a row and a column of the view lead along the axis.
    """
    reach = (size - 1) * steps
    first = int(np.floor(start + min(0.0, reach[0]) + min(0.0, reach[1]))) - 1
    last = int(np.floor(start + max(0.0, reach[0]) + max(0.0, reach[1]))) + 2
    shown = np.empty(last - first + 1, np.intp)
    for k in range(shown.size):
        shown[k] = _mirrored(first + k, length)
    return first, shown


@compiled
def sample_linear(
    image: NDArray[np.float32], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int
) -> NDArray[np.float32]:
    """An affine view, (size, size, channels), of an image (height, width, channels) that is mirrored at its edges.

    matrix: (2, 2), from row and column of the view to those of the image; offset: (2,), where the view begins.
    """
    height, width, channels = image.shape
    one = np.float32(1)
    first_row, rows = _shown(matrix[0], offset[0], size, height)
    first_column, columns = _shown(matrix[1], offset[1], size, width)
    result = np.empty((size, size, channels), np.float32)
    down, aside = matrix[0, 1], matrix[1, 1]
    for i in range(size):
        begin_y = matrix[0, 0] * i + offset[0] - first_row
        begin_x = matrix[1, 0] * i + offset[1] - first_column
        for j in range(size):
            y, x = begin_y + down * j, begin_x + aside * j
            up, left = int(y), int(x)
            below, across = np.float32(y - up), np.float32(x - left)
            top, bottom, start, end = rows[up], rows[up + 1], columns[left], columns[left + 1]
            for c in range(channels):
                upper = image[top, start, c] * (one - across) + image[top, end, c] * across
                lower = image[bottom, start, c] * (one - across) + image[bottom, end, c] * across
                result[i, j, c] = upper * (one - below) + lower * below
    return result


@compiled
def sample_labels(
    labels: NDArray[np.int32], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The same view of labels (height, width): the nearest label, and how much of each pixel is nucleus, 0 to 1.

    Labels are -1 beyond the middles of the outermost pixels, and nuclei are mirrored there.
    """
    height, width = labels.shape
    one, none = np.float32(1), np.float32(0)
    first_row, rows = _shown(matrix[0], offset[0], size, height)
    first_column, columns = _shown(matrix[1], offset[1], size, width)
    bottom_edge, right_edge = height - 1 - first_row, width - 1 - first_column
    nearest = np.empty((size, size), np.int32)
    cover = np.empty((size, size), np.float32)
    down, aside = matrix[0, 1], matrix[1, 1]
    for i in range(size):
        begin_y = matrix[0, 0] * i + offset[0] - first_row
        begin_x = matrix[1, 0] * i + offset[1] - first_column
        for j in range(size):
            y, x = begin_y + down * j, begin_x + aside * j
            up, left = int(y), int(x)
            below, across = np.float32(y - up), np.float32(x - left)
            top, bottom, start, end = rows[up], rows[up + 1], columns[left], columns[left + 1]
            upper = (one - across if labels[top, start] > 0 else none) + (across if labels[top, end] > 0 else none)
            lower = (one - across if labels[bottom, start] > 0 else none) + (
                across if labels[bottom, end] > 0 else none
            )
            cover[i, j] = upper * (one - below) + lower * below
            if y < -first_row or y > bottom_edge or x < -first_column or x > right_edge:
                nearest[i, j] = -1
            else:
                nearest[i, j] = labels[top if below < 0.5 else bottom, start if across < 0.5 else end]
    return nearest, cover


@compiled
def renumber(
    labels: NDArray[np.int32], table: NDArray[np.float32], most: int
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Labels (height, width) as 1..n in the order in which they are met, and their rows of a table.

    table: (largest label + 1, columns). The rows that are returned are (most + 1, columns), where row 0 and those
    beyond n are 0. Labels that do not fit into `most` become -1; 0 and negative labels stay 0 and -1.
    """
    numbers = np.zeros(table.shape[0], np.int16)
    rows = np.zeros((most + 1, table.shape[1]), np.float32)
    result = np.empty(labels.shape, np.int16)
    count = 0
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            label = labels[i, j]
            if label <= 0:
                result[i, j] = label
                continue
            if numbers[label] == 0:
                if count < most:
                    count += 1
                    numbers[label] = count
                    rows[count] = table[label]
                else:
                    numbers[label] = -1
            result[i, j] = numbers[label]
    return result, rows


@compiled
def in_three_channels(image: NDArray[np.float32], step: np.float32, limit: np.float32) -> NDArray[np.int16]:
    """An image (height, width, 1 or 3), cut to 0..limit and in steps of `step`, as (height, width, 3)."""
    height, width, channels = image.shape
    scale, half = np.float32(1) / step, np.float32(0.5)
    result = np.empty((height, width, 3), np.int16)
    for i in range(height):
        for j in range(width):
            for c in range(3):
                value = min(max(image[i, j, c if channels == 3 else 0], np.float32(0)), limit)
                result[i, j, c] = np.int16(value * scale + half)
    return result


def gaussian_weights(sigma: float) -> NDArray[np.float32]:
    """(radius + 1,), of a pixel and of those at each distance, for a deviation > 0 in pixels; cut at four of these."""
    weights = np.exp(-0.5 * (np.arange(int(4.0 * sigma + 0.5) + 1) / sigma) ** 2)
    return (weights / (2 * weights.sum() - weights[0])).astype(np.float32)


def blurred(image: NDArray[Any], sigma: float) -> NDArray[np.float32]:
    """An image (height, width), or with channels in a third axis, blurred by a Gaussian and mirrored at its edges."""
    planes = np.ascontiguousarray(image, np.float32)
    shown = convolve_both_axes(planes.reshape(*planes.shape[:2], -1), gaussian_weights(sigma))
    return shown.reshape(planes.shape)
