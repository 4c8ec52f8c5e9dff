"""Tracks of nuclei over the time points of a movie, from their places, sizes and the pixels that their labels share.

Frames are given one after the other, and tracks come out one frame later. For each frame, in this order:

1. Parts. Labels that share most pixels with one label both in the frame before and in the frame after, and together
   are about as large as each of these, are parts of one nucleus that was cut in this frame only. The largest part has
   the track, and each other part a track of its own.
2. Overlap. Labels of successive frames with an IoU above IOU are one nucleus. Each label has at most one such partner,
   since labels of a frame do not overlap.
3. Merged labels. If at least two labels lie in one label of the next frame, which is about as large as all of them, it
   goes on as one of them, and remembers the others, their places and their sizes for up to MERGED frames.
4. Distance. Nuclei without a partner, those missing for a frame and those remembered by merged labels are linked to
   labels that have no track yet by laptrack, which solves the linear assignment problem of Jaqaman et al. 2008 (Nat.
   Methods 5:695, doi:10.1038/nmeth.1237). The cost is the squared distance of centroids plus that of radii, so that a
   nucleus prefers one of its size. It is at most the square of REACH widths of nuclei, the median of both frames:
   nuclei are assumed to move less than their width.
5. Division. A label that is left may be a daughter of a nucleus beside it in the frame before: both daughters are at
   most DAUGHTER of their mother, and both together at most SISTERS. laptrack assigns them to mothers by distance. The
   track of the mother ends, and both daughters begin tracks of their own.

All costs and limits are those of two frames. So the time grows with the number of frames and not faster, memory does
not grow with it, and the start of a movie has the same tracks however long it is.

Linking overlaps first and the rest by assignment is common in trackers of segmented cells; laptrack is Fukai and
Kawaguchi 2023 (Bioinformatics 39:btac799, doi:10.1093/bioinformatics/btac799). Labels that several nuclei share, and
nuclei that several labels share, are the errors that Schiegg et al. 2013 (ICCV, doi:10.1109/ICCV.2013.364) correct in
the same way: by what lies in them in the frames around.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.assignment import assigned
from nucseg_batch.arrays.label_overlaps import Overlaps
from nucseg_batch.errors import UsageError

IOU = 0.5
"""Labels of successive frames are one nucleus if their intersection over union is above this."""
REACH = 1.0
"""Nuclei move at most so many widths from frame to frame, or over a gap."""
GAP = 2
"""Frames from the last one before a gap to the first one after it, at most."""
MERGED = 10
"""The same of a nucleus that is part of a merged label in between."""
INSIDE = 0.5
"""A label lies in another one if more than this part of its pixels does."""
WHOLE = 0.75
"""Least area of a merged label, as a part of the areas of all nuclei in it; and of a label that is still merged."""
DAUGHTER = 0.9
"""Largest area of a daughter, as a part of that of its mother."""
SISTERS = 1.5
"""Largest area of both daughters together likewise."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_NO_PAIRS = Overlaps(*(np.zeros(0, np.int64) for _ in range(3)))


@dataclass(frozen=True)
class FrameTracks:
    """The tracks of the labels 1..n of a frame; tracks are numbered from 1 by their first frame, and in it by label."""

    ids: Ints
    """(n,): the track of each label."""
    parents: Ints
    """(n,): the track that this one comes from by division; 0 for none."""


@dataclass(frozen=True)
class _Absent:
    """A nucleus without a label of its own: it is missing, or part of a merged label."""

    track: int
    parent: int
    place: Floats
    """(3,): row, column and radius where it should be."""
    last: int
    """The last frame in which it had a label."""


@dataclass
class _Frame:
    """The nuclei of a frame whose tracks are known."""

    nuclei: Floats
    """(n, 3): row, column and area, of nuclei that were cut those of all parts together."""
    main: Ints
    """(n,): for each label, as places from 0, the one that has the track: another one for parts."""
    ids: Ints
    parents: Ints
    inside: dict[int, list[_Absent]] = field(default_factory=dict)
    """For merged labels all nuclei in them, of which the first has the track."""


def check_tracker() -> None:
    """Raises UsageError, with what to install, where laptrack is not installed."""
    if importlib.util.find_spec("laptrack") is None:
        raise UsageError("--link t needs laptrack, which is not installed: pip install 'nucseg-batch[tracks]'")


def tracks(frames: Iterable[tuple[Floats, Overlaps | None]]) -> Iterator[FrameTracks]:
    """Links the nuclei of a movie.

    frames: for each (n, 3), row and column of the centroid and area of its labels 1..n, in pixels; and the pixels that
    labels of the frame before share with its own, None for the first. Two of them are held. Yields the tracks of each.
    """
    linker, waiting = _Linker(), None
    for frame in frames:
        if waiting is not None:
            yield linker.add(*waiting, after=frame)
        waiting = frame
    if waiting is not None:
        yield linker.add(*waiting, after=None)


class _Linker:
    """What is known of a movie up to a frame."""

    def __init__(self) -> None:
        self._time = -1
        self._count = 0
        none = np.zeros(0, np.int64)
        self._last = _Frame(np.zeros((0, 3)), none, none, none)
        self._missing: list[_Absent] = []

    def add(self, nuclei: Floats, near: Overlaps | None, after: tuple[Floats, Overlaps | None] | None) -> FrameTracks:
        """The tracks of the next frame; after: the one that follows it."""
        self._time += 1
        last, near = self._last, near or _NO_PAIRS
        near = _renamed(near, last.main, np.arange(len(nuclei)))
        main = _parts(last, nuclei, near, after)
        near, nuclei = _renamed(near, np.arange(len(last.nuclei)), main), _united(nuclei, main)
        here = _Frame(nuclei, main, np.zeros(len(nuclei), np.int64), np.zeros(len(nuclei), np.int64))
        follower, before = self._overlapping(near, here)
        merged = self._merged(near, here, follower, before)
        returned = self._linked_by_distance(here, follower, before, merged)
        mothers = self._divisions(here, follower, before)
        linked = np.flatnonzero(before >= 0)
        here.ids[linked], here.parents[linked] = last.ids[before[linked]], last.parents[before[linked]]
        for label, absent in returned.items():
            here.ids[label], here.parents[label] = absent.track, absent.parent
        for label, mother in mothers.items():
            here.ids[label], here.parents[label] = 0, last.ids[mother]
        new = np.flatnonzero(here.ids == 0)
        here.ids[new] = self._count + 1 + np.arange(new.size)
        self._count += new.size
        self._remember(here, follower, merged, {absent.track for absent in returned.values()})
        self._last = here
        return FrameTracks(here.ids, here.parents)

    def _overlapping(self, near: Overlaps, here: _Frame) -> tuple[Ints, Ints]:
        """The successor of each label of the last frame, and the predecessor of each one here, by IoU; -1 for none."""
        follower, before = np.full(len(self._last.nuclei), -1), np.full(len(here.nuclei), -1)
        one, other = near.first - 1, near.second - 1
        first, second = self._last.nuclei[one, 2], here.nuclei[other, 2]
        sure = near.pixels > IOU * (first + second - near.pixels)
        if self._last.inside:  # after a merged label splits again, distance decides which nucleus is which
            sure &= ~np.isin(one, list(self._last.inside)) | (second >= WHOLE * first)
        follower[one[sure]], before[other[sure]] = other[sure], one[sure]
        return follower, before

    def _merged(self, near: Overlaps, here: _Frame, follower: Ints, before: Ints) -> set[int]:
        """Labels of the last frame that are part of a merged label now; sets what that holds, and its predecessor."""
        one, other = near.first - 1, near.second - 1
        areas = self._last.nuclei[:, 2]
        lies = (near.pixels > INSIDE * areas[one]) & ((follower[one] < 0) | (follower[one] == other))
        several = np.bincount(other[lies], minlength=len(here.nuclei)) > 1
        gone = set[int]()
        for label in np.flatnonzero(several).tolist():
            own = np.flatnonzero(lies & (other == label))
            if here.nuclei[label, 2] < WHOLE * areas[one[own]].sum():
                continue
            if before[label] < 0:
                before[label] = one[own[np.argmax(near.pixels[own])]]
                follower[before[label]] = label
            owner = int(before[label])
            rest = [int(place) for place in one[own] if place != owner]
            held = [absent for place in (owner, *rest) for absent in self._nuclei_of(place)]
            weights = np.array([absent.place[2] ** 2 for absent in held])
            centre = (np.array([absent.place[:2] for absent in held]) * weights[:, None]).sum(axis=0) / weights.sum()
            here.inside[label] = [_moved(absent, here.nuclei[label, :2] - centre) for absent in held]
            gone.update(rest)
        return gone

    def _nuclei_of(self, place: int) -> list[_Absent]:
        """The nuclei of a label of the last frame: itself, and where it is a merged one those that are in it."""
        last = self._last
        return last.inside.get(place) or [
            _Absent(int(last.ids[place]), int(last.parents[place]), _shape(last.nuclei[place]), self._time - 1)
        ]

    def _linked_by_distance(self, here: _Frame, follower: Ints, before: Ints, merged: set[int]) -> dict[int, _Absent]:
        """Links what is left, and returns the nuclei that have labels again, by label."""
        last, labels = self._last, np.arange(len(here.nuclei))
        left = np.flatnonzero((before < 0) & (here.main == labels))
        free = np.flatnonzero((follower < 0) & (last.main == np.arange(len(last.nuclei))))
        free = free[~np.isin(free, list(merged))]
        absent = [*self._missing, *(one for held in last.inside.values() for one in held[1:])]
        known = {one.track for held in here.inside.values() for one in held}  # merged labels that went into others
        absent = [one for one in absent if one.track not in known]
        rows = [self._nuclei_of(place)[0].place for place in free.tolist()] + [one.place for one in absent]
        found = dict[int, _Absent]()
        if not rows or not left.size:
            return found
        pairs = assigned(np.array(rows), _shape(here.nuclei[left]), _reach(last, here))
        for row, column in pairs:
            label = int(left[column])
            if row < free.size:
                follower[free[row]], before[label] = label, free[row]
            else:
                found[label] = absent[row - free.size]
                before[label] = -2
        return found

    def _divisions(self, here: _Frame, follower: Ints, before: Ints) -> dict[int, int]:
        """The mother of each daughter, as places in the last frame."""
        last = self._last
        left = np.flatnonzero((before == -1) & (here.main == np.arange(len(here.nuclei))))
        one = np.flatnonzero(follower >= 0)
        one = one[~np.isin(one, list(last.inside)) & ~np.isin(follower[one], list(here.inside))]
        one = one[here.nuclei[follower[one], 2] <= DAUGHTER * last.nuclei[one, 2]]
        if not left.size or not one.size:
            return {}
        mothers, sisters, daughters = last.nuclei[one], here.nuclei[follower[one], 2], here.nuclei[left]

        def may(row: Ints, column: Ints) -> NDArray[np.bool_]:
            daughter, mother = daughters[column, 2], mothers[row, 2]
            return (daughter <= DAUGHTER * mother) & (daughter + sisters[row] <= SISTERS * mother)

        found = dict[int, int]()
        for row, column in assigned(mothers[:, :2], daughters[:, :2], _reach(last, here), may):
            found[int(left[column])] = found[int(follower[one[row]])] = int(one[row])
        return found

    def _remember(self, here: _Frame, follower: Ints, merged: set[int], returned: set[int]) -> None:
        """Nuclei that have no label in this frame."""
        last, gone = self._last, list[_Absent]()
        for place in np.flatnonzero((follower < 0) & (last.main == np.arange(len(last.nuclei)))).tolist():
            if place not in merged:
                gone += [dataclasses.replace(one, last=self._time - 1) for one in self._nuclei_of(place)]
        for place, held in last.inside.items():
            label = int(follower[place])
            if label < 0 or label in here.inside:
                continue
            step = here.nuclei[label, :2] - last.nuclei[place, :2]
            rest = [_moved(one, step) for one in held[1:] if one.track not in returned]
            if here.nuclei[label, 2] < WHOLE * last.nuclei[place, 2]:
                gone += [dataclasses.replace(one, last=self._time - 1) for one in rest]
            elif rest := [one for one in rest if self._time + 1 - one.last <= MERGED]:
                here.inside[label] = [_moved(held[0], step), *rest]
        self._missing = [
            one for one in (*self._missing, *gone) if one.track not in returned and self._time + 1 - one.last <= GAP
        ]


def _shape(nuclei: Floats) -> Floats:
    """Rows, columns and radii of nuclei, (3,) or (n, 3), from their areas."""
    found = nuclei.copy()
    found[..., 2] = np.sqrt(nuclei[..., 2] / math.pi)
    return found


def _moved(absent: _Absent, step: Floats) -> _Absent:
    return dataclasses.replace(absent, place=absent.place + np.append(step, 0.0))


def _reach(last: _Frame, here: _Frame) -> float:
    """How far a nucleus moves at most, in pixels."""
    area = float(np.median(np.concatenate([last.nuclei[:, 2], here.nuclei[:, 2]])))
    return REACH * 2 * math.sqrt(area / math.pi)


def _renamed(pairs: Overlaps, first: Ints, second: Ints) -> Overlaps:
    """The overlaps of labels of which several, as places from 0, are one."""
    if all(np.array_equal(names, np.arange(names.size)) for names in (first, second)):
        return pairs
    return Overlaps.counted(first[pairs.first - 1] + 1, second[pairs.second - 1] + 1, pairs.pixels)


def _parts(last: _Frame, nuclei: Floats, near: Overlaps, after: tuple[Floats, Overlaps | None] | None) -> Ints:
    """For each label, as places from 0, the one that stands for it: the largest part of a nucleus that was cut."""
    main = np.arange(len(nuclei))
    if after is None or after[1] is None or not near.pixels.size:
        return main
    host = _most(near.second, near.first, near.pixels, len(nuclei))
    heir = _most(after[1].first, after[1].second, after[1].pixels, len(nuclei))
    both = np.flatnonzero((host >= 0) & (heir >= 0) & ~np.isin(host, list(last.inside)))
    keys, which, counts = np.unique(
        np.column_stack([host[both], heir[both]]), axis=0, return_inverse=True, return_counts=True
    )
    for number in np.flatnonzero(counts > 1).tolist():
        parts = both[which.ravel() == number]
        areas = last.nuclei[keys[number, 0], 2], after[0][keys[number, 1], 2]
        if min(areas) >= WHOLE * max(areas) and nuclei[parts, 2].sum() * WHOLE <= min(areas):
            main[parts] = parts[np.argmax(nuclei[parts, 2])]
    return main


def _most(one: Ints, other: Ints, pixels: Ints, count: int) -> Ints:
    """The label with which each of 1..n shares most pixels, all as places from 0; -1 for none."""
    found = np.full(count, -1)
    order = np.argsort(pixels, kind="stable")  # the last one that is written has most
    found[one[order] - 1] = other[order] - 1
    return found


def _united(nuclei: Floats, main: Ints) -> Floats:
    """The nuclei with those that were cut as a whole, at the places of their largest parts."""
    found = nuclei.copy()
    for place in np.unique(main[main != np.arange(main.size)]).tolist():
        parts = nuclei[main == place]
        area = parts[:, 2].sum()
        found[place] = (*((parts[:, :2] * parts[:, 2:]).sum(axis=0) / area), area)
    return found
