"""One id for each nucleus of a plane that was labelled in parts.

A part labels its core and a rim around it. It knows every nucleus by its root, a place in the plane, and owns those
whose root lies in its core; it also sees nuclei of its neighbours. Where two parts speak of the same root they speak of
the same nucleus, so that ids follow from the roots alone. Where they disagree, because a device's arithmetic depends on
the shape of a window or a network looks further than it says, the pixels that both have labelled decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Rect = tuple[slice, slice]
"""Rows and columns of a plane."""
RIM = 16
"""Pixels around a core whose labels are kept until ids are joined; nuclei are compared in what two parts share."""
SAME = 0.5
"""Intersection over union above which labels of two parts are one nucleus."""


@dataclass(frozen=True)
class RegionSeams:
    """What one part of a plane says of the nuclei that it owns or that reach into its core: its labels 1..n."""

    core: Rect
    """What it is responsible for."""
    keys: NDArray[np.int64]
    """(n,): the root of each, as one number for each place of the plane."""
    owned: NDArray[np.bool_]
    """(n,): whether the root lies in this part."""
    pixels: NDArray[np.int64]
    """(n,): pixels in the core."""
    areas: NDArray[np.int64]
    """(n,): pixels in all, as far as this part sees."""
    spans: NDArray[np.int64]
    """(n,): into how many of the up to eight neighbouring cores it reaches, as `spans` counts it in the rim."""


@dataclass(frozen=True)
class MergedIds:
    """Ids 1..n that hold for all parts together."""

    ids: list[NDArray[np.uint32]]
    """For each part, the new id of each of its labels; entry 0 is 0, and so are those of labels without a nucleus."""
    part: NDArray[np.int64]
    """(n,): which part has measured each nucleus."""
    label: NDArray[np.int64]
    """(n,): its label there."""
    keys: NDArray[np.int64]
    """(n,): its root."""
    owned: NDArray[np.bool_]
    """(n,): whether its root lies in one of the parts."""
    pixels: NDArray[np.int64]
    """(n,): its pixels in all cores."""
    lost: int
    """Labels on whose nucleus their neighbours do not agree and that hold less than half of it: background now."""
    lost_pixels: int
    """Pixels of these."""

    def of(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels that one part has measured for all, and their new ids, which ascend."""
        (places,) = np.nonzero(self.part == part)
        return self.label[places], places + 1


def grown(core: Rect, shape: tuple[int, int], rim: int = RIM) -> Rect:
    """A core with its rim, inside a plane of this shape."""
    rows, columns = (slice(max(0, s.start - rim), min(n, s.stop + rim)) for s, n in zip(core, shape, strict=True))
    return rows, columns


def spans(labels: NDArray[np.integer], core: Rect, shape: tuple[int, int], count: int) -> NDArray[np.int64]:
    """On how many of the eight sides and corners of a core each label 1..count has pixels; labels: over `grown`."""
    bands = [
        [slice(0, c.start - g.start), slice(c.start - g.start, c.stop - g.start), slice(c.stop - g.start, None)]
        for c, g in zip(core, grown(core, shape), strict=True)
    ]
    found = np.zeros(count + 1, np.int64)
    for i, rows in enumerate(bands[0]):
        for j, columns in enumerate(bands[1]):
            if (i, j) != (1, 1):
                found += np.bincount(labels[rows, columns].ravel(), minlength=count + 1) > 0
    return found[1:]


def join(
    parts: Sequence[RegionSeams],
    labels_of: Callable[[int], NDArray[np.integer]],
    shape: tuple[int, int],
    *,
    beyond: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
) -> MergedIds:
    """Gives each nucleus one id: ordered by the part that owns it, then as that part numbers them.

    ```text
    core of part 0 | core of part 1
             (-----|--)               a nucleus in both; both name its root x, so their labels are one group
             (  x  |  )               part 0 owns x: it measures the nucleus, which gets its id in the order of part 0
             (-----|--)
           (-------|---)              part 0 names the root y, part 1 the root z
           (     y | z )              labels on whose root parts disagree are compared pixel by pixel within the rims,
           (-------|---)              and groups of what is the same there are united
    ```

    A group without an owner is kept if the cores hold half of its nucleus, and lost otherwise.

    labels_of: the labels of a part over `grown(core, shape)`; asked for only where parts disagree. shape: of the plane.
    beyond: says which roots lie outside all parts, where these are not the whole plane; their nuclei get ids as well,
    and all are then ordered by their roots.
    """
    every = _Labels.of(parts)
    outside = beyond(every.keys) if beyond is not None else np.zeros(every.keys.size, bool)
    group = _groups(parts, labels_of, shape, every, outside)
    best = _measuring(every, group)
    total = np.bincount(group, weights=every.pixels)[group[best]].astype(np.int64)
    kept = every.owned[best] | outside[best] | (2 * total >= every.areas[best])
    if beyond is None:
        kept &= total > 0
    chosen, total = best[kept], total[kept]
    order = np.argsort(every.keys[chosen] if beyond is not None else chosen, kind="stable")
    chosen, total = chosen[order], total[order]
    number = np.zeros(group.size, np.uint32)
    number[group[chosen]] = np.arange(1, chosen.size + 1)
    ids = number[group]
    return MergedIds(
        [np.concatenate([[0], ids[a:b]]).astype(np.uint32) for a, b in pairwise(every.first.tolist())],
        every.part[chosen],
        every.label[chosen],
        every.keys[chosen],
        every.owned[chosen] | ~outside[chosen],
        total,
        int(np.count_nonzero((ids == 0) & (every.pixels > 0))),
        int(every.pixels[ids == 0].sum()),
    )


@dataclass(frozen=True)
class _Labels:
    """The labels of all parts, one part after the other; other fields as those of `RegionSeams`."""

    first: NDArray[np.int64]
    """(parts + 1,): where the labels of each part begin."""
    part: NDArray[np.int64]
    """(n,): the part of each label."""
    label: NDArray[np.int64]
    """(n,): its number there."""
    keys: NDArray[np.int64]
    owned: NDArray[np.bool_]
    pixels: NDArray[np.int64]
    areas: NDArray[np.int64]
    spans: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[RegionSeams]) -> _Labels:
        counts = [part.keys.size for part in parts]
        first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        part = np.repeat(np.arange(len(parts)), counts)
        keys, owned, pixels, areas, reach = (
            np.concatenate([getattr(one, name) for one in parts] or [np.zeros(0, np.int64)])
            for name in ("keys", "owned", "pixels", "areas", "spans")
        )
        return cls(first, part, np.arange(first[-1]) - first[part] + 1, keys, owned.astype(bool), pixels, areas, reach)


def _groups(
    parts: Sequence[RegionSeams],
    labels_of: Callable[[int], NDArray[np.integer]],
    shape: tuple[int, int],
    every: _Labels,
    outside: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """The nucleus of each label, as a number: that of its root and, where parts disagree on roots, of its pixels."""
    _, group, members = np.unique(every.keys, return_inverse=True, return_counts=True)
    has_owner = np.bincount(group[every.owned], minlength=members.size) > 0
    unknown = members[group] <= every.spans  # to a part into whose core it reaches
    unsure = np.where(every.owned, unknown, ~has_owner[group] & ~outside)
    return _united(group, list(_same(parts, labels_of, shape, every.first, np.flatnonzero(unsure))))


def _measuring(every: _Labels, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each nucleus the label that is measured for all: an owned one, then the one with the most pixels."""
    order = np.lexsort((every.label, every.part, -every.pixels, ~every.owned, group))
    return order[np.unique(group[order], return_index=True)[1]]


def _same(
    parts: Sequence[RegionSeams],
    labels_of: Callable[[int], NDArray[np.integer]],
    shape: tuple[int, int],
    first: NDArray[np.int64],
    unsure: NDArray[np.int64],
) -> Iterator[tuple[int, int]]:
    """Pairs of labels of different parts that share most of their pixels, one of each pair from `unsure`.

    Labels are named by their place among those of all parts; those of part i begin at first[i].
    """
    owner = np.searchsorted(first, unsure, side="right") - 1
    for i in np.unique(owner).tolist():
        mine = grown(parts[i].core, shape)
        labels = labels_of(i)
        places = unsure[owner == i]
        for j, part in enumerate(parts):
            theirs = grown(part.core, shape)
            zone = _overlap(mine, theirs)
            if j == i or zone is None:
                continue
            here, there = labels[_within(zone, mine)], labels_of(j)[_within(zone, theirs)]
            for place in places.tolist():
                match = _match(here, there, place - int(first[i]) + 1)
                if match:
                    yield place, int(first[j]) + match - 1


def _match(here: NDArray[np.integer], there: NDArray[np.integer], label: int) -> int:
    """The label of `there` that is the same nucleus as `label` of `here`, two views of one window; 0 without any."""
    mask = here == label
    found = np.bincount(there[mask])
    found[:1] = 0
    if not found.any():
        return 0
    best = int(found.argmax())
    union = np.count_nonzero(mask) + np.count_nonzero(there == best) - found[best]
    return best if found[best] > SAME * union else 0


def _overlap(a: Rect, b: Rect) -> Rect | None:
    """What two windows share."""
    rows, columns = (slice(max(s.start, t.start), min(s.stop, t.stop)) for s, t in zip(a, b, strict=True))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _within(zone: Rect, window: Rect) -> Rect:
    """A part of a window, counted from where the window begins."""
    rows, columns = (slice(z.start - w.start, z.stop - w.start) for z, w in zip(zone, window, strict=True))
    return rows, columns


def _united(group: NDArray[np.int64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The groups of all labels after those of each pair have become one."""
    if not pairs:
        return group
    parent = np.arange(group.max() + 1)

    def top(one: int) -> int:
        while parent[one] != one:
            one = int(parent[one])
        return one

    for a, b in pairs:
        low, high = sorted((top(int(group[a])), top(int(group[b]))))
        parent[high] = low
    for one in range(parent.size):  # parents come first
        parent[one] = parent[parent[one]]
    return parent[group]
