"""Volumes and tracks as layers of a viewer, as plain data; see `layers`.

napari has tracks as an array of points (ID, t, y, x), or (ID, t, z, y, x), and a graph from each track to its parents.
Tracks of several z-slices, which are numbered in each slice, are numbered on from slice to slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.results.tables import PlaneNuclei, PlaneRow
from nucseg_batch.results.tracks import ImageTracks

SHOWN_OF_VOLUMES = ("volume", "volume_um3", "slices", "confidence", "intensity_mean")
"""Columns of volumes.csv that a viewer shows of a volume."""


@dataclass(frozen=True, eq=False)
class TracksLayer:
    """The tracks of a movie."""

    points: NDArray[np.float64]
    """(n, 4) or (n, 5): track, then the place on the axes of the other layers; sorted by track and time."""
    graph: dict[int, list[int]]
    """The mother of each track that comes from a division."""
    numbers: list[NDArray[np.uint32]]
    """For each plane (nuclei + 1,): the track of each label, 0 for 0."""


def tracks_layer(rows: Sequence[PlaneRow], tracks: ImageTracks) -> TracksLayer:
    """The tracks of one image, of which all rows are given."""
    most: dict[str, int] = {}
    for row in rows:
        most[row.key[2]] = max(most.get(row.key[2], 0), int(tracks.ids.get(row.key, np.zeros(1, np.int64)).max()))
    first = dict(zip(most, np.cumsum([0, *most.values()]).tolist(), strict=False))
    points, numbers = list[NDArray[np.float64]](), list[NDArray[np.uint32]]()
    for row in rows:
        ids = tracks.ids.get(row.key, np.zeros(0, np.int64)) + first[row.key[2]]
        numbers.append(np.concatenate([[0], ids]).astype(np.uint32))
        place = [row.time] if row.z is None else [row.time, row.depth]
        own = np.empty((ids.size, 3 + len(place)))
        own[:, 0], own[:, 1:-2] = ids, place
        own[:, -2:] = tracks.centres.get(row.key, np.zeros((0, 2)))
        points.append(own)
    found = np.concatenate(points)
    graph = {track + first[z]: [mother + first[z]] for (z, track), mother in sorted(tracks.parents.items())}
    return TracksLayer(found[np.lexsort((found[:, 1], found[:, 0]))], graph, numbers)


def renumbered(mask: da.Array, numbers: NDArray[np.uint32]) -> da.Array:
    """A mask with other numbers, computed when it is looked at; labels beyond the last become 0."""
    known = np.append(numbers, np.uint32(0))
    return mask.map_blocks(lambda block: np.take(known, np.minimum(block, numbers.size)), dtype=np.uint32)


def volume_offsets(rows: Sequence[PlaneRow], volumes: Mapping[str, PlaneNuclei]) -> list[int]:
    """What is added to the labels of volumes of each plane, so that those of time points differ."""
    first: dict[str, int] = {}
    total = 0
    for row in rows:
        if row.key[1] not in first:
            first[row.key[1]] = total
            total += len(volumes.get(row.key[1], ()))
    return [first[row.key[1]] for row in rows]


def volume_features(
    rows: Sequence[PlaneRow], offsets: Sequence[int], volumes: Mapping[str, PlaneNuclei]
) -> dict[str, list[Any]]:
    """What is known of each volume, the background first; `index` is its number in the layer."""
    features: dict[str, list[Any]] = {"index": [0], "label": [0], **{name: [np.nan] for name in SHOWN_OF_VOLUMES}}
    for time, offset in {row.key[1]: offset for row, offset in zip(rows, offsets, strict=True)}.items():
        if time in volumes:
            own = volumes[time]
            features["index"] += (own.labels + offset).tolist()
            features["label"] += own.labels.tolist()
            for name in SHOWN_OF_VOLUMES:
                features[name] += own[name].tolist()
    return features
