"""Statistics of every nucleus of a plane.

Names, definitions and values are those of `skimage.measure.regionprops_table`, which measures one region at a time and
would be the slowest stage of a run. Here the loops over pixels are compiled, see `arrays.kernels.measuring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.confidence import mean_support
from nucseg_batch.arrays.kernels.arguments import as_labels, as_pixels, is_whole
from nucseg_batch.columns import MEASURED, names

TABLE = 2**16
"""Labels up to this, or to four times the number of runs, are looked up in a table of all."""
_WHOLE, _REAL, _INTENSITY = (
    names(column for column in MEASURED[1:] if chosen(column))
    for chosen in (
        lambda column: column.type.startswith("int"),
        lambda column: not column.type.startswith("int") and not column.per_channel,
        lambda column: column.per_channel,
    )
)


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
    from nucseg_batch.arrays.kernels import measuring as kernels

    channels = channels or {}
    _check(labels, intensity, channels, support)
    plane = as_labels(labels)
    runs, highest = kernels.find_runs(plane)
    if highest > max(TABLE, 4 * len(runs)):
        ids, runs[:, kernels.NUCLEUS] = np.unique(runs[:, kernels.NUCLEUS], return_inverse=True)
    else:
        ids = kernels.number(runs, highest)
    whole, real = kernels.shapes(runs, ids.size, plane.shape[1])
    found: dict[str, NDArray[Any]] = {"label": ids}
    found |= zip(_WHOLE, whole, strict=True)
    found |= zip(_REAL, real, strict=True)
    intensities = [("", intensity), *((f"-{name}", pixels) for name, pixels in channels.items())]
    for suffix, pixels in intensities:
        given = as_pixels(pixels)
        statistics = kernels.whole_intensities if is_whole(given) else kernels.real_intensities
        values = statistics(given, runs, whole[0])
        found |= ((f"{name}{suffix}", one) for name, one in zip(_INTENSITY, values, strict=True))
    if support is not None:
        found["confidence"] = mean_support(*kernels.support_sums(as_pixels(support), runs, ids.size))
    return found


def _check(
    labels: NDArray[np.integer],
    intensity: NDArray[Any],
    channels: Mapping[str, NDArray[Any]],
    support: NDArray[np.uint8] | None,
) -> None:
    """Raises ValueError where planes differ in shape or are none; kernels would read beyond their ends."""
    shape = labels.shape
    if len(shape) != 2 or shape != intensity.shape:
        raise ValueError(f"labels and intensity must be planes of one shape, but are {shape}, {intensity.shape}.")
    for name, plane in channels.items():
        if plane.shape != shape:
            raise ValueError(f"channel {name} is {plane.shape}, but labels are {shape}.")
    if support is not None and support.shape != shape:
        raise ValueError(f"support is {support.shape}, but labels are {shape}.")
