"""Tracks of nuclei over the time points of a movie, from their places, sizes and the pixels that their labels share.

Three rules, in this order:

1. Overlap. Labels of successive frames with an IoU above IOU are one nucleus. Each label has at most one such partner,
   since labels of a frame do not overlap.
2. Distance. All others are linked by laptrack, which solves the linear assignment problem of Jaqaman et al. 2008
   (Nat. Methods 5:695, doi:10.1038/nmeth.1237): frame to frame first, then over gaps of one frame. The cost is the
   squared distance of centroids plus that of radii, so that a nucleus prefers one of its size. It is at most the square
   of REACH widths of nuclei, the median over the movie: nuclei are assumed to move less than their width.
3. Division. A track that begins beside a nucleus of the frame before may be its daughter, if it is no larger than
   DAUGHTER of that: laptrack decides in the same assignment as for gaps. Both daughters together are at most SISTERS of
   their mother; otherwise the track goes on as the nearer one, and the other is new. The track of the mother ends, and
   both daughters begin tracks of their own. A daughter without a sister is the same nucleus.

Linking overlaps first and the rest by assignment is common in trackers of segmented cells; laptrack is Fukai and
Kawaguchi 2023 (Bioinformatics 39:btac799, doi:10.1093/bioinformatics/btac799).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import Overlaps
from nucseg_batch.errors import UsageError

IOU = 0.5
"""Labels of successive frames are one nucleus if their intersection over union is above this."""
REACH = 1.0
"""Nuclei move at most so many widths from frame to frame, or over a gap."""
GAP = 2
"""Frames from the last one before a gap to the first one after it, at most."""
DAUGHTER = 0.9
"""Largest area of a daughter, as a part of that of its mother."""
SISTERS = 1.5
"""Largest area of both daughters together likewise."""
Node = tuple[int, int]
"""A nucleus: its frame and its place in it, both from 0."""


@dataclass(frozen=True)
class Tracks:
    """The tracks of a movie, numbered from 1 by their first frame, and in it by label."""

    ids: list[NDArray[np.int64]]
    """For each frame (n,): the track of each of its labels 1..n."""
    parents: NDArray[np.int64]
    """(tracks + 1,): the track that each one comes from by division; 0 for none, and for place 0."""


def check_tracker() -> None:
    """Raises UsageError, with what to install, where laptrack is not installed."""
    if importlib.util.find_spec("laptrack") is None:
        raise UsageError("--link t needs laptrack, which is not installed: pip install 'nucseg-batch[tracks]'")


def track(places: Sequence[NDArray[np.float64]], near: Sequence[Overlaps]) -> Tracks:
    """Links the nuclei of a movie.

    places: for each frame (n, 3): row and column of the centroid and area of its labels 1..n, in pixels. near: for each
    frame but the first the pixels that labels of the frame before share with its own.
    """
    areas = [frame[:, 2] for frame in places]
    if not sum(map(len, areas)):
        return Tracks([np.zeros(0, np.int64) for _ in places], np.zeros(1, np.int64))
    coordinates = [np.column_stack([frame[:, :2], np.sqrt(frame[:, 2] / math.pi)]) for frame in places]
    sure = [
        ((t, int(one)), (t + 1, int(other)))
        for t, pairs in enumerate(near)
        for one, other in zip(*_surely(pairs, areas[t], areas[t + 1]), strict=True)
    ]
    return _numbered([len(frame) for frame in places], _checked(coordinates, _linked(coordinates, sure)))


def _surely(pairs: Overlaps, first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Pairs of labels, as places from 0, whose IoU is above IOU; first, second: areas of all labels."""
    one, other = pairs.first - 1, pairs.second - 1
    sure = pairs.pixels > IOU * (first[one] + second[other] - pairs.pixels)
    return one[sure].tolist(), other[sure].tolist()


def _linked(coordinates: list[NDArray[np.float64]], sure: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """Pairs of nuclei, each as frame and place, of which the second follows from the first."""
    from laptrack import LapTrack

    radius = float(np.median(np.concatenate([frame[:, 2] for frame in coordinates])))
    reach = (REACH * 2 * radius) ** 2
    tracker = LapTrack(
        metric="sqeuclidean",
        cutoff=reach,
        gap_closing_metric="sqeuclidean",
        gap_closing_cutoff=reach,
        gap_closing_max_frame_count=GAP,
        splitting_metric=_division_cost,
        splitting_cutoff=reach,
        merging_cutoff=False,
    )
    found = tracker.predict(coordinates, connected_edges=sure)
    return sorted(((int(a), int(b)), (int(c), int(d))) for (a, b), (c, d) in found.edges())


def _division_cost(daughter: NDArray[np.float64], mother: NDArray[np.float64]) -> float:
    """Squared distance of a nucleus from its possible mother; rows, columns and radii in pixels."""
    if daughter[2] ** 2 > DAUGHTER * mother[2] ** 2:
        return math.inf
    return float((daughter[0] - mother[0]) ** 2 + (daughter[1] - mother[1]) ** 2)


def _checked(coordinates: list[NDArray[np.float64]], links: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """The links without those of divisions after which both nuclei together are too large."""
    followers: dict[Node, list[Node]] = {}
    for first, second in links:
        followers.setdefault(first, []).append(second)
    kept = list[tuple[Node, Node]]()
    for (t, place), after in followers.items():
        mother = coordinates[t][place]
        found = [coordinates[at][other] for at, other in after]
        if len(after) > 1 and sum(one[2] ** 2 for one in found) > SISTERS * mother[2] ** 2:
            distances = [float(((one - mother) ** 2).sum()) for one in found]
            after = [after[distances.index(min(distances))]]
        kept += [((t, place), one) for one in after]
    return kept


def _numbered(counts: Sequence[int], links: Sequence[tuple[Node, Node]]) -> Tracks:
    """Tracks from links: a track continues while a nucleus has one successor, and ends when it has two."""
    before: dict[Node, Node] = {}
    followers: dict[Node, int] = {}
    for first, second in links:
        before[second] = first
        followers[first] = followers.get(first, 0) + 1
    ids, parents = [np.zeros(count, np.int64) for count in counts], [0]
    for t, frame in enumerate(ids):
        for place in range(frame.size):
            earlier = before.get((t, place))
            if earlier is not None and followers[earlier] == 1:
                frame[place] = ids[earlier[0]][earlier[1]]
                continue
            parents.append(0 if earlier is None else int(ids[earlier[0]][earlier[1]]))
            frame[place] = len(parents) - 1
    return Tracks(ids, np.array(parents, np.int64))
