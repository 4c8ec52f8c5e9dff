"""What is measured of volumes, added up from the rows of their sections: no pixel is read for it.

A standard deviation is combined from those of sections and the distances of their means from a mean that the volume
has already, so that no digits are lost to large means (Chan, Golub & LeVeque 1983, Am. Stat. 37:242).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BOX = ("bbox-0", "bbox-1", "bbox-2", "bbox-3")
"""Columns of nuclei with the bounding box of a section: first row and column, and those after the last."""
CENTRE = ("centroid-0", "centroid-1")
"""And with its centroid."""


class VolumeSums:
    """Sums over the volumes 1..n of a stack, to which slices are added in order.

    Needs about 200 bytes for each volume that `finished` did not give yet. intensities: names of the channels as
    columns end in them, such as "" and "-GFP"; each has the columns `intensity_mean`, `_min`, `_max` and `_std`.
    """

    def __init__(self, intensities: tuple[str, ...] = ("",)) -> None:
        self._names = intensities
        self._given = 0
        self._sums = self._empty(0)

    @property
    def count(self) -> int:
        """Volumes in the slices so far."""
        return self._given + self._sums["pixels"].size

    def add(self, z: int, ids: NDArray[np.integer], sections: Mapping[str, Floats]) -> None:
        """Adds the sections of a slice.

        z: place of the slice in the stack. ids: (n,), the volume of each section. sections: (n,) of each column of
        nuclei.csv that is needed; NaN where a value is not known.
        """
        self._make_room(int(ids.max(initial=0)))
        place, sums = ids.astype(np.int64) - 1 - self._given, self._sums
        pixels = sections["area"]
        here = np.unique(place)
        first = sums["pixels"][place] == 0
        sums["slices"][here] += 1
        np.add.at(sums["pixels"], place, pixels.astype(np.int64))
        box = [sections[name].astype(np.int64) for name in BOX]
        for axis, (low, high) in enumerate(((np.full(place.size, z), np.full(place.size, z + 1)), box[::2], box[1::2])):
            np.minimum.at(sums["low"][axis], place, low)
            np.maximum.at(sums["high"][axis], place, high)
        for axis, centre in enumerate((np.full(place.size, float(z)), *(sections[name] for name in CENTRE))):
            np.add.at(sums["centre"][axis], place, pixels * centre)
        np.add.at(sums["confidence"], place, pixels * sections["confidence"])
        for channel, name in enumerate(self._names):
            mean, deviation = (sections[f"intensity_{one}{name}"] for one in ("mean", "std"))
            sums["reference"][channel][place[first]] = mean[first]
            apart = mean - sums["reference"][channel][place]
            np.add.at(sums["sum"][channel], place, pixels * apart)
            np.add.at(sums["square"][channel], place, pixels * (deviation**2 + apart**2))
            np.minimum.at(sums["min"][channel], place, sections[f"intensity_min{name}"])
            np.maximum.at(sums["max"][channel], place, sections[f"intensity_max{name}"])

    def finished(self, before: int | None = None) -> dict[str, NDArray[np.int64] | Floats]:
        """The columns of the next volumes, (n,) each, named as `skimage.measure.regionprops_table` does for a stack.

        before: those without a section in this slice or later, up to the first that has one; all without it. Each
        volume is given once.
        """
        going_on = np.zeros(0, np.int64) if before is None else np.flatnonzero(self._sums["high"][0] > before)
        count = int(going_on[0]) if going_on.size else self._sums["pixels"].size
        sums = {name: one[..., :count] for name, one in self._sums.items()}
        self._sums = {name: one[..., count:].copy() for name, one in self._sums.items()}
        pixels = np.maximum(sums["pixels"], 1)
        found: dict[str, NDArray[np.int64] | Floats] = {
            "label": self._given + np.arange(1, count + 1),
            "volume": sums["pixels"],
            "slices": sums["slices"],
            **{f"bbox-{axis}": low for axis, low in enumerate(sums["low"])},
            **{f"bbox-{axis + 3}": high for axis, high in enumerate(sums["high"])},
            **{f"centroid-{axis}": centre / pixels for axis, centre in enumerate(sums["centre"])},
            "confidence": sums["confidence"] / pixels,
        }
        for channel, name in enumerate(self._names):
            apart = sums["sum"][channel] / pixels
            found[f"intensity_mean{name}"] = sums["reference"][channel] + apart
            found[f"intensity_min{name}"], found[f"intensity_max{name}"] = sums["min"][channel], sums["max"][channel]
            found[f"intensity_std{name}"] = np.sqrt(np.maximum(sums["square"][channel] / pixels - apart**2, 0))
        self._given += count
        return found

    def _empty(self, count: int) -> dict[str, NDArray[Any]]:
        """The sums of volumes that have nothing yet."""
        whole, channels = (count,), (len(self._names), count)
        return {
            "pixels": np.zeros(whole, np.int64),
            "slices": np.zeros(whole, np.int64),
            "low": np.full((3, count), np.iinfo(np.int64).max),
            "high": np.zeros((3, count), np.int64),
            "centre": np.zeros((3, count)),
            "confidence": np.zeros(whole),
            "reference": np.zeros(channels),
            "sum": np.zeros(channels),
            "square": np.zeros(channels),
            "min": np.full(channels, np.inf),
            "max": np.full(channels, -np.inf),
        }

    def _make_room(self, count: int) -> None:
        """Adds volumes that are new."""
        if count > self.count:
            new = self._empty(count - self.count)
            self._sums = {name: np.concatenate([one, new[name]], axis=-1) for name, one in self._sums.items()}
