"""Which pixels belong to which label, for statistics of all labels at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", bound=np.generic)


@dataclass(frozen=True)
class Groups:
    """The pixels of each label of a plane."""

    ids: NDArray[np.int64]
    """(n,): the labels, ascending."""
    place: NDArray[np.int64]
    """(pixels,): where pixels lie in the flat plane, label after label, each label in raster order."""
    count: NDArray[np.int64]
    """(n,): pixels of each label; 0 for one that does not occur."""
    shape: tuple[int, int]
    """Height and width of the plane."""

    @classmethod
    def of(cls, labels: NDArray[np.integer], ids: NDArray[np.integer] | None = None) -> Groups:
        """Groups the pixels of a plane (height, width), where 0 and below are background.

        ids: (n,), ascending, the labels that are asked for; other pixels are left out. All that occur, without it.
        Raises ValueError where labels are no plane.
        """
        if labels.ndim != 2:
            raise ValueError(f"labels must be a plane, but their shape is {labels.shape}.")
        flat = labels.ravel()
        place = np.flatnonzero(flat > 0)
        present, group = present_labels(flat[place])
        wanted = present if ids is None else np.asarray(ids, np.int64)
        if ids is not None:
            known = np.isin(present, wanted)
            kept = known[group]
            place, group = place[kept], np.searchsorted(wanted, present)[group[kept]]
        order = np.argsort(group.astype(np.uint16 if wanted.size <= 2**16 else np.int64, copy=False), kind="stable")
        return cls(wanted, place[order], np.bincount(group, minlength=wanted.size), labels.shape)

    @cached_property
    def present(self) -> NDArray[np.int64]:
        """Places in `ids` of labels that have pixels."""
        return np.flatnonzero(self.count)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(n,): place in `place` of each label's first pixel."""
        return np.cumsum(self.count) - self.count

    def reduce(self, ufunc: np.ufunc, values: NDArray[np.number], empty: float = 0) -> NDArray[np.float64]:
        """(n,): one value for each label from one for each pixel, in the order of `place`."""
        found = np.full(self.ids.size, empty, np.float64)
        if self.present.size:
            found[self.present] = ufunc.reduceat(values, self.first[self.present])
        return found

    def spread(self, values: NDArray[Value]) -> NDArray[Value]:
        """(pixels,): the value of its label for each pixel."""
        return np.repeat(values, self.count)

    def offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(n,) place of each label's first pixel, and (pixels,) how far below and to the right of it each pixel lies.

        A label without pixels is given the place 0.
        """
        origin = np.zeros(self.ids.size, np.int64)
        origin[self.present] = self.place[self.first[self.present]]
        y, x = np.divmod(self.place, self.shape[1])
        return origin, y - self.spread(origin // self.shape[1]), x - self.spread(origin % self.shape[1])

    def runs(self) -> Runs:
        """Their stretches along rows, in the order of `place`."""
        y, x = np.divmod(self.place, self.shape[1] or 1)
        starts = np.ones(self.place.size + 1, bool)
        starts[1:-1] = (np.diff(self.place) != 1) | (x[1:] == 0)
        starts[self.first[self.present]] = True
        begin = np.flatnonzero(starts)
        length, begin = np.diff(begin), begin[:-1]
        return Runs(self.spread(np.arange(self.ids.size))[begin], y[begin], x[begin], length)


class Runs(NamedTuple):
    """Stretches of pixels of one label along a row: int64, (runs,) each."""

    group: NDArray[np.int64]
    """Place of the label in `Groups.ids`, ascending."""
    y: NDArray[np.int64]
    """Row, ascending within a label."""
    x: NDArray[np.int64]
    """First column, ascending within a row of a label."""
    length: NDArray[np.int64]
    """Pixels."""


def present_labels(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels of some pixels, all above 0, in ascending order, and the place there of each pixel's."""
    highest = int(labels.max(initial=0))
    if highest > max(4 * labels.size, 2**16):
        ids, places = np.unique(labels, return_inverse=True)
        return ids.astype(np.int64), places
    seen = np.zeros(highest + 1, bool)
    seen[labels] = True
    return np.flatnonzero(seen), (np.cumsum(seen) - 1)[labels]
