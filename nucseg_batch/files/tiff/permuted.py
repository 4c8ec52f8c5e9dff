"""Planes of a TIFF whose pages are not its planes: such as channels in the last axis, of which each page is a row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.tiff.pixels import TiffFrame, read_window

_PAGE = ("samples", "rows", "columns", "samples")
"""What the axes of `keyframe.shaped` are, without depth."""


@dataclass(frozen=True)
class AxisOrder:
    """Which axis of an image lies where in a TIFF."""

    outer: tuple[tuple[str, int], ...]
    """Letters and lengths of the axes over the pages."""
    inner: dict[str, str]
    """Letters of the axes of a page, by what they are for the page: `samples`, `rows` and `columns`."""
    lengths: dict[str, int]
    """Of those of the axes T, Z, C, Y, X and S that it has, in this order; S is always 3."""

    @classmethod
    def of(cls, outer: list[tuple[str, int]], inner: list[tuple[str, int]], key: Any) -> AxisOrder:
        """The same from axes in the file's order; key: a page. Raises ImageError for pages that are volumes."""
        if key.imagedepth > 1:
            raise ImageError("its pages are volumes, whose axes cannot be changed; save its planes as pages.")
        separate, _, rows, columns, together = key.shaped
        kinds = [kind for kind, length in zip(_PAGE, (separate, rows, columns, together), strict=True) if length > 1]
        within = [letter for letter, length in inner if length > 1]
        sizes = {letter: length for letter, length in (*outer, *inner) if letter in "TZCYXS"}
        if not {"Y", "X"} <= sizes.keys():
            raise ImageError(f"its axes {''.join(sizes)} are not those of an image: Y or X is missing.")
        lengths = {axis: sizes[axis] for axis in "TZCYXS" if axis in sizes and (sizes[axis] > 1 or axis in "YX")}
        if "S" in lengths:
            lengths["S"] = 3
        return cls(tuple(outer), dict(zip(kinds, within, strict=True)), lengths)

    @property
    def plane(self) -> tuple[int, int]:
        """Height and width."""
        return self.lengths["Y"], self.lengths["X"]

    def window(
        self,
        key: Any,
        frame: Callable[[int], TiffFrame],
        descriptor: Callable[[TiffFrame], int],
        at: dict[str, int],
        rows: slice,
        columns: slice,
    ) -> NDArray[Any]:
        """A window of a plane: (h, w), (c, h, w) or (h, w, 3).

        frame: gives the pages by number; descriptor: the open file of one; at: the place along T and Z.
        """
        parts = {
            "T": slice(at.get("T", 0), at.get("T", 0) + 1),
            "Z": slice(at.get("Z", 0), at.get("Z", 0) + 1),
            "C": slice(0, self.lengths.get("C", 1)),
            "S": slice(0, self.lengths.get("S", 1)),
            "Y": rows,
            "X": columns,
        }
        counts = [length for _, length in self.outer]
        strides = [math.prod(counts[place + 1 :]) for place in range(len(counts))]
        chosen = [range(length)[parts.get(letter, slice(0, 1))] for letter, length in self.outer]
        sides = {
            kind: parts[self.inner[kind]] if kind in self.inner else slice(0, 1)
            for kind in ("samples", "rows", "columns")
        }
        pages = []
        for place in itertools.product(*chosen):
            one = frame(sum(i * stride for i, stride in zip(place, strides, strict=True)))
            pixels = read_window(
                descriptor(one),
                one,
                depth=0,
                samples=sides["samples"].stop,
                rows=sides["rows"],
                columns=sides["columns"],
            )
            pages.append(pixels[sides["samples"]])
        stacked = np.stack(pages).reshape(*map(len, chosen), *pages[0].shape)
        letters = [letter for letter, _ in self.outer]
        letters += [self.inner.get(kind, "") for kind in ("samples", "rows", "columns")]
        wanted = [axis for axis in "CYXS" if axis in self.lengths]
        missing = [axis for axis in wanted if axis not in letters]  # a side of one pixel
        stacked = stacked.reshape(*stacked.shape, *[1] * len(missing))
        letters += missing
        order = [letters.index(axis) for axis in wanted]
        rest = [place for place in range(len(letters)) if place not in order]
        moved = stacked.transpose(rest + order)
        return np.ascontiguousarray(moved.reshape(moved.shape[len(rest) :]))
