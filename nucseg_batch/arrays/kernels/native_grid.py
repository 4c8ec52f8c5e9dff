"""The loop that brings labels back to an image's own grid, for `arrays.host_instances`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.kernels.compiled import compiled


@compiled
def to_native_grid(
    labels: NDArray[np.int32],
    support: NDArray[np.uint8],
    scaled_probability: NDArray[np.float32],
    probability: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    threshold: np.float32,
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Labels and support on the image's own grid, see `host_instances.on_native_grid`; arrays must be contiguous.

    labels, support and scaled_probability share one shape. probability: (height, width), of the result. rows,
    (height,), and columns, (width,): which of the labels are nearest. Raises IndexError where these are outside.
    """
    scaled_height, scaled_width = labels.shape
    for x in columns:
        if not 0 <= x < scaled_width:
            raise IndexError("columns must be those of the labels")
    found, found_support = np.empty(probability.shape, np.int32), np.empty(probability.shape, np.uint8)
    for i in range(probability.shape[0]):
        y = rows[i]
        if not 0 <= y < scaled_height:
            raise IndexError("rows must be those of the labels")
        certain, line, line_support = probability[i], found[i], found_support[i]
        near, near_support = labels[y], support[y]
        for j in range(probability.shape[1]):
            x = columns[j]
            line_support[j] = near_support[x]
            label = np.int32(0)
            if certain[j] > threshold:
                label = near[x]
                if label == 0 and scaled_probability[y, x] <= threshold:
                    for beside_y in range(max(y - 1, 0), min(y + 2, scaled_height)):
                        for beside_x in range(max(x - 1, 0), min(x + 2, scaled_width)):
                            label = max(label, labels[beside_y, beside_x])
            line[j] = label
    return found, found_support
