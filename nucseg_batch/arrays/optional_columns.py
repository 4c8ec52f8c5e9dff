"""The columns of nuclei that are added when asked for; nothing is computed for those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import edges, intensity_columns, weighted_centroids
from nucseg_batch.arrays.neighbour_columns import neighbour_columns, touching_fraction
from nucseg_batch.arrays.radial_columns import radial_columns
from nucseg_batch.arrays.shape_columns import moments_hu, shape_columns
from nucseg_batch.arrays.texture_columns import texture_columns
from nucseg_batch.columns import Column, channel_columns, names


def optional_columns(
    columns: Iterable[Column],
    labels: NDArray[np.integer],
    channels: Mapping[str, NDArray[Any]],
    measures: Mapping[str, NDArray[Any]],
    everything: NDArray[np.integer] | None = None,
) -> dict[str, NDArray[Any]]:
    """Those of `columns.OPTIONAL` that are measured from pixels: (n,) each, for each nucleus of `measures`.

    columns: which ones. labels, channels: (height, width) each; the channel of the nuclei has the name "". measures:
    what `arrays.measure` returns for `labels`. everything: `labels` with nuclei that are not measured and have higher
    numbers, which count as neighbours; None where there are none.
    """
    groups = {column.group for column in columns}
    ids = measures["label"]

    def of_edges(pixels: Groups) -> dict[str, NDArray[Any]]:
        return intensity_columns(Groups.of(edges(labels), pixels.ids), channels, "edge_", ())

    functions: dict[str, Callable[[Groups], dict[str, NDArray[Any]]]] = {
        "shape": lambda pixels: shape_columns(pixels, measures["perimeter"]),
        "moments": moments_hu,
        "intensity": lambda pixels: intensity_columns(pixels, channels),
        "weighted": lambda pixels: weighted_centroids(pixels, channels),
        "edge": of_edges,
        "radial": lambda pixels: radial_columns(pixels, labels, channels),
        "texture": lambda pixels: texture_columns(pixels, channels),
        "neighbours": lambda pixels: {
            "touching_fraction": touching_fraction(pixels, labels if everything is None else everything)
        },
    }
    table: dict[str, NDArray[Any]] = {}
    if not groups.isdisjoint(functions):
        pixels = Groups.of(labels, ids)
        for group in functions.keys() & groups:
            table |= functions[group](pixels)
    wanted = names((*columns, *channel_columns(channels, columns)))
    return {name: table[name] for name in wanted if name in table}


def neighbours(
    columns: Iterable[Column], measures: Mapping[str, NDArray[Any]], radius: float
) -> dict[str, NDArray[Any]]:
    """Those that need the table of a whole plane: `neighbour_columns` of the centroids in `measures`, if asked for."""
    if not {"neighbour_distance", "neighbour_count"} & set(names(columns)):
        return {}
    return neighbour_columns(np.stack([measures["centroid-0"], measures["centroid-1"]], axis=1), radius)
