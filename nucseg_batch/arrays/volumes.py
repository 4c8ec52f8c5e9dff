"""One id for each nucleus over the slices of a stack, from the areas of its labels and the pixels they share.

Slices are given one after the other, and only the last two are compared with a new one. Four rules, in this order:

1. Join. Labels of neighbouring slices may be one nucleus if their intersection over union is at least IOU, or if at
   least CONTAINED of the smaller one lies in the larger one: near its poles a nucleus shrinks so fast that its sections
   have a low IoU, but one contains the other. Joins are one to one. Where several are possible the highest IoU wins,
   to which that with the section before is added: a section that two nuclei share in one slice then does not exchange
   them.
2. Bridge. A label without a partner in the slice before is compared in the same way with labels two slices before
   that have no partner since: a nucleus that was missed in a single slice stays one.
3. Split. Nuclei that lie on top of each other are one chain by now, but with a neck: the pixels that successive
   sections share fall and rise again. A chain is cut where these are at most NECK of the most on either side. Sections
   two slices apart that share more than BRIDGE of it prevent that: then the section between them is too small, and no
   nucleus ends there.
4. Fragments. A volume of a single section of which CONTAINED lies in one other volume, in the slice before and in the
   slice after, is a part of that: the network cut a nucleus in two in one slice.

Joining by IoU is what Cellpose does (Stringer et al. 2021, Nat. Methods 18:100, doi:10.1038/s41592-020-01018-x); IOU
is the default of its `stitch3D`. Building volumes from finished 2D segmentations whose errors are corrected from the
slices around is the approach of LaTorre et al. 2013 (Front. Neuroanat. 7:49, doi:10.3389/fnana.2013.00049) and of
CellStitch (Liu et al. 2023, BMC Bioinformatics 24:480, doi:10.1186/s12859-023-05608-2). One-to-one joins and bridged
gaps are common in tracking (Jaqaman et al. 2008, Nat. Methods 5:695, doi:10.1038/nmeth.1237). CONTAINED, NECK and
BRIDGE were chosen on simulated stacks of `tests/stacks.py`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.label_overlaps import Overlaps

IOU = 0.25
"""Least intersection over union of two sections of one nucleus."""
CONTAINED = 0.5
"""Or least part of the smaller section that lies in the larger one."""
NECK = 0.6
"""A chain is cut where successive sections share at most this part of the most that any do on either side."""
BRIDGE = 0.8
"""And where sections two slices apart share no more than this part of it."""
LEAST = 2**16
"""Sections after which chains that have ended are looked for first."""
Ints = NDArray[np.int64]
_FIELDS = ("place", "linked", "shared", "bridged", "host", "after")
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class _Slice:
    """The labels 1..n of a slice, as sections of nuclei; all arrays are (n,)."""

    first: int
    """Sections of all slices before."""
    areas: Ints
    """Pixels."""
    before: Ints
    """Place of the predecessor in its slice, from 0; -1 for the first of a chain."""
    gap: NDArray[np.bool_]
    """Whether the predecessor is two slices before."""


@dataclass(frozen=True)
class _Sections:
    """Sections of chains that may go on, in the order of slices; all arrays are (n,)."""

    place: Ints
    """Place among the sections of all slices."""
    linked: Ints
    """That of the predecessor; -1 for none."""
    shared: Ints
    """Pixels shared with the predecessor."""
    bridged: Ints
    """And with that of the predecessor."""
    host: Ints
    """Place of the section in the slice before in which CONTAINED of it lies; -1 for none."""
    after: Ints
    """The same in the slice after."""


class VolumeLinker:
    """Joins the labels of a stack, slice by slice.

    Needs 8 bytes for each nucleus of each slice, and about 150 for those whose chains may still go on.
    """

    def __init__(self) -> None:
        self._recent: list[_Slice] = []
        self._counts: list[int] = []
        self._open: list[_Sections] = []
        self._resolve_at = LEAST
        self._volumes: list[NDArray[np.uint32]] = []
        self._single: list[tuple[Ints, Ints, Ints]] = []

    def add(self, areas: Ints, near: Overlaps | None = None, far: Overlaps | None = None) -> None:
        """Adds the next slice.

        areas: (n,), the pixels of its labels 1..n. near: overlaps of the slice before with this one; far: of the slice
        two before with this one; None where there is no such slice.
        """
        count, first = areas.size, sum(self._counts[-1:]) + (self._recent[-1].first if self._recent else 0)
        here = _Slice(first, areas, np.full(count, -1, np.int64), np.zeros(count, bool))
        linked, shared, bridged, host, after = (np.full(count, value, np.int64) for value in (-1, 0, 0, -1, -1))
        if near is not None:
            last = self._recent[-1]
            iou = _iou(near, last.areas, areas) + self._iou_before(near, far, areas)
            every = np.ones(last.areas.size, bool)
            self._join(here, 1, near, iou, every, linked, shared)
            host[:], self._open[-1].after[self._open[-1].after.size - last.areas.size :] = _hosts(near, last, here)
        if far is not None:
            earlier, last = self._recent
            free = np.ones(earlier.areas.size, bool)
            free[last.before[(last.before >= 0) & ~last.gap]] = False
            middle = here.before.copy()
            self._join(here, 2, far, _iou(far, earlier.areas, areas), free, linked, shared)
            pair = np.flatnonzero(middle[far.second - 1] >= 0)  # a nucleus in the slice between, which the first may be
            one, other = far.first[pair] - 1, far.second[pair] - 1
            same = (last.before[middle[other]] == one) & ~last.gap[middle[other]]
            bridged[other[same]] = far.pixels[pair[same]]
        self._recent = [*self._recent[-1:], here]
        self._counts.append(count)
        self._volumes.append(np.zeros(count, np.uint32))
        self._open.append(_Sections(first + np.arange(count), linked, shared, bridged, host, after))
        if sum(one.place.size for one in self._open) > self._resolve_at:
            self._resolve(self._recent[0].first)

    def ids(self) -> list[NDArray[np.uint32]]:
        """For each slice (n + 1,): the volume 1..m of each label, 0 for 0. No slice can be added afterwards.

        Volumes are numbered by their first slice, and in it by label.
        """
        if not self._counts:
            return []
        self._resolve(sum(self._counts))
        volume = np.concatenate(self._volumes)  # each is named by its first section
        self._volumes.clear()
        place, host, after = (np.concatenate([one[i] for one in self._single] or [_NONE]) for i in range(3))
        same = volume[host] == volume[after]
        volume[place[same]] = volume[host[same]]
        number = np.zeros(volume.size, np.uint32)
        for begin in range(0, volume.size, LEAST):
            part = slice(begin, begin + LEAST)
            number[part] = volume[part] == np.arange(begin, begin + volume[part].size)
        np.cumsum(number, out=number)
        ends = np.cumsum(self._counts, dtype=np.int64)
        return [
            np.append(np.zeros(1, np.uint32), number[volume[end - count : end]])
            for end, count in zip(ends.tolist(), self._counts, strict=True)
        ]

    def _resolve(self, before: int) -> None:
        """Finds the volumes of all chains whose last section is before some place: none of them goes on."""
        known = _Sections(*(np.concatenate([getattr(one, name) for one in self._open]) for name in _FIELDS))
        places = known.place
        linked = np.where(known.linked < 0, -1, np.searchsorted(places, known.linked))
        chain = _chains(linked)
        last = np.zeros(chain.size, np.int64)
        last[chain] = places  # the last one that is written is the largest
        done = last[chain] < before
        own, where = np.flatnonzero(done), np.cumsum(done) - 1
        volume = _volumes(np.where(linked[own] < 0, -1, where[linked[own]]), known.shared[own], known.bridged[own])
        alone = own[(np.bincount(volume, minlength=own.size)[volume] == 1) & (known.host[own] >= 0)]
        alone = alone[known.after[alone] >= 0]
        self._single.append((places[alone], known.host[alone], known.after[alone]))
        starts = np.cumsum([0, *self._counts[:-1]], dtype=np.int64)
        which = np.searchsorted(starts, places[own], side="right") - 1  # empty slices begin where the next one does
        bounds = [*np.flatnonzero(np.diff(which, prepend=-1)).tolist(), which.size]
        for begin, end in itertools.pairwise(bounds):
            z = int(which[begin])
            self._volumes[z][places[own[begin:end]] - starts[z]] = places[own[volume[begin:end]]]
        self._open = [_Sections(*(getattr(known, name)[~done] for name in _FIELDS))]
        self._resolve_at = max(LEAST, 2 * self._open[0].place.size)

    def _join(
        self,
        here: _Slice,
        steps: int,
        pairs: Overlaps,
        score: NDArray[np.float64],
        free: NDArray[np.bool_],
        linked: Ints,
        shared: Ints,
    ) -> None:
        """Joins labels of a slice that have no predecessor with free ones of a slice so many steps before."""
        earlier = self._recent[-steps]
        one, other, pixels = _joined(pairs, earlier.areas, here.areas, score, free, here.before < 0)
        here.before[other], here.gap[other] = one, steps == 2
        linked[other], shared[other] = earlier.first + one, pixels

    def _iou_before(self, near: Overlaps, far: Overlaps | None, areas: Ints) -> NDArray[np.float64]:
        """IoU of the predecessor of the first of each pair with the second, where that is two slices before; else 0."""
        found = np.zeros(near.pixels.size)
        if far is None or not far.pixels.size:
            return found
        earlier, last = self._recent
        before = np.where(last.gap, -1, last.before)[near.first - 1]
        wanted, known = ((before + 1) << 32) | near.second, (far.first << 32) | far.second
        place = np.minimum(np.searchsorted(known, wanted), known.size - 1)
        same = known[place] == wanted
        found[same] = _iou(far, earlier.areas, areas)[place[same]]
        return found


def _iou(pairs: Overlaps, first: Ints, second: Ints) -> NDArray[np.float64]:
    """Intersection over union of pairs of labels; first, second: areas of all labels."""
    found: NDArray[np.float64] = pairs.pixels / (first[pairs.first - 1] + second[pairs.second - 1] - pairs.pixels)
    return found


def _joined(
    pairs: Overlaps,
    first: Ints,
    second: Ints,
    score: NDArray[np.float64],
    first_free: NDArray[np.bool_],
    second_free: NDArray[np.bool_],
) -> tuple[Ints, Ints, Ints]:
    """The pairs of free labels that are joined, as places from 0 with the pixels they share.

    first, second: areas of the labels of two slices. Repeatedly takes all pairs that are the best of both their labels,
    which is the greedy choice by falling score; equal ones go by their labels.
    """
    one, other, pixels = pairs.first - 1, pairs.second - 1, pairs.pixels
    close = (_iou(pairs, first, second) >= IOU) | (pixels >= CONTAINED * np.minimum(first[one], second[other]))
    may = np.flatnonzero(close & first_free[one] & second_free[other])
    left = may[np.lexsort((other[may], one[may], -score[may]))]
    found = [left[:0]]
    while left.size:
        best_of_one, best_of_other = (np.unique(side[left], return_index=True)[1] for side in (one, other))
        chosen = left[np.intersect1d(best_of_one, best_of_other)]
        found.append(chosen)
        left = left[~np.isin(one[left], one[chosen]) & ~np.isin(other[left], other[chosen])]
    chosen = np.concatenate(found)
    return one[chosen], other[chosen], pixels[chosen]


def _hosts(near: Overlaps, last: _Slice, here: _Slice) -> tuple[Ints, Ints]:
    """Sections of the slice before in which CONTAINED of each label lies, and those here for labels there; else -1."""
    one, other = near.first - 1, near.second - 1
    host, after = np.full(here.areas.size, -1, np.int64), np.full(last.areas.size, -1, np.int64)
    order = np.argsort(near.pixels, kind="stable")  # the last one that is written has most pixels
    inside = order[near.pixels[order] >= CONTAINED * here.areas[other[order]]]
    host[other[inside]] = last.first + one[inside]
    inside = order[near.pixels[order] >= CONTAINED * last.areas[one[order]]]
    after[one[inside]] = here.first + other[inside]
    return host, after


def _chains(linked: Ints) -> Ints:
    """The first section of the chain of each section, from its predecessor; -1 for none."""
    chain = np.where(linked < 0, np.arange(linked.size), linked)
    while ((further := chain[chain]) != chain).any():  # pointer jumping: as many rounds as the logarithm of the slices
        chain = further
    return chain


def _volumes(linked: Ints, shared: Ints, bridged: Ints) -> Ints:
    """The first section of the volume of each section, from its predecessor and the pixels shared with that.

    Sections are in the order of slices; bridged: pixels shared with the predecessor of the predecessor.
    """
    if not linked.size:
        return linked
    chain = _chains(linked)
    order = np.argsort(chain, kind="stable")
    begins = _begins(chain[order], shared[order], bridged[order])
    volume = np.empty(chain.size, np.int64)
    volume[order] = order[begins][np.cumsum(begins) - 1]
    return volume


def _begins(chain: Ints, shared: Ints, bridged: Ints) -> NDArray[np.bool_]:
    """Which sections, given chain by chain, begin a volume: the first of each chain, and those after a neck."""
    begins = np.concatenate([[True], chain[1:] != chain[:-1]])
    across = np.maximum(bridged, np.append(bridged[1:], 0))  # both pairs two slices apart with the cut between them
    firsts = np.flatnonzero(begins)
    most = np.maximum.reduceat(shared, firsts)[np.cumsum(begins) - 1]
    narrow = np.flatnonzero(~begins & (shared <= NECK * most) & (across <= BRIDGE * most))
    lasts = np.append(firsts[1:], chain.size)
    for number in np.unique(np.searchsorted(firsts, narrow, side="right") - 1).tolist():
        first, last = int(firsts[number]), int(lasts[number])
        begins[[first + cut for cut in _cuts(shared[first:last], across[first:last])]] = True
    return begins


def _cuts(shared: Ints, across: Ints) -> list[int]:
    """The places at which a chain is cut: the narrowest neck first, then those of either part."""
    cuts, parts = list[int](), [(1, shared.size)]
    while parts:
        first, last = parts.pop()
        if last - first < 3:  # a neck has something on either side
            continue
        own = shared[first:last]
        left, right = np.maximum.accumulate(own)[:-2], np.maximum.accumulate(own[::-1])[::-1][2:]
        most = np.minimum(left, right)
        allowed = (own[1:-1] <= NECK * most) & (across[first + 1 : last - 1] <= BRIDGE * most)
        if allowed.any():
            cut = first + 1 + int(np.argmin(np.where(allowed, own[1:-1] / np.maximum(most, 1), np.inf)))
            cuts.append(cut)
            parts += [(first, cut), (cut + 1, last)]
    return cuts
