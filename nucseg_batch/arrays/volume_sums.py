"""What is measured of volumes, added up from the rows of their sections: no pixel is read for it.

A standard deviation is combined from those of sections and the distances of their means from a mean that the volume
has already, so that no digits are lost to large means (Chan, Golub & LeVeque 1983, Am. Stat. 37:242).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BOX = ("bbox-0", "bbox-1", "bbox-2", "bbox-3")
"""Columns of nuclei with the bounding box of a section: first row and column, and those after the last."""
CENTRE = ("centroid-0", "centroid-1")
"""And with its centroid."""


class VolumeSums:
    """Sums over the volumes 1..count of a stack, to which slices are added in order.

    intensities: names of the channels as columns end in them, such as "" and "-GFP"; each has the columns
    `intensity_mean`, `_min`, `_max` and `_std`.
    """

    def __init__(self, count: int, intensities: tuple[str, ...] = ("",)) -> None:
        self._count = count
        self._names = intensities
        self._pixels = np.zeros(count, np.int64)
        self._slices = np.zeros(count, np.int64)
        self._low = np.full((3, count), np.iinfo(np.int64).max)
        self._high = np.zeros((3, count), np.int64)
        self._centre = np.zeros((3, count))
        self._confidence = np.zeros(count)
        self._reference, self._sum, self._square = (np.zeros((len(intensities), count)) for _ in range(3))
        self._min = np.full((len(intensities), count), np.inf)
        self._max = np.full((len(intensities), count), -np.inf)

    def add(self, z: int, ids: NDArray[np.integer], sections: Mapping[str, Floats]) -> None:
        """Adds the sections of a slice.

        z: place of the slice in the stack. ids: (n,), the volume of each section. sections: (n,) of each column of
        nuclei.csv that is needed; NaN where a value is not known.
        """
        place = ids.astype(np.int64) - 1
        pixels = sections["area"]
        here = np.unique(place)
        first = self._pixels[place] == 0
        self._slices[here] += 1
        np.add.at(self._pixels, place, pixels.astype(np.int64))
        box = [sections[name].astype(np.int64) for name in BOX]
        for axis, (low, high) in enumerate(((np.full(place.size, z), np.full(place.size, z + 1)), box[::2], box[1::2])):
            np.minimum.at(self._low[axis], place, low)
            np.maximum.at(self._high[axis], place, high)
        for axis, centre in enumerate((np.full(place.size, float(z)), *(sections[name] for name in CENTRE))):
            np.add.at(self._centre[axis], place, pixels * centre)
        np.add.at(self._confidence, place, pixels * sections["confidence"])
        for channel, name in enumerate(self._names):
            mean, deviation = (sections[f"intensity_{one}{name}"] for one in ("mean", "std"))
            self._reference[channel][place[first]] = mean[first]
            apart = mean - self._reference[channel][place]
            np.add.at(self._sum[channel], place, pixels * apart)
            np.add.at(self._square[channel], place, pixels * (deviation**2 + apart**2))
            np.minimum.at(self._min[channel], place, sections[f"intensity_min{name}"])
            np.maximum.at(self._max[channel], place, sections[f"intensity_max{name}"])

    def measures(self) -> dict[str, NDArray[np.int64] | Floats]:
        """The columns of volumes, (count,) each, with the names of `skimage.measure.regionprops_table` for a stack."""
        pixels = np.maximum(self._pixels, 1)
        found: dict[str, NDArray[np.int64] | Floats] = {
            "label": np.arange(1, self._count + 1),
            "volume": self._pixels,
            "slices": self._slices,
            **{f"bbox-{axis}": low for axis, low in enumerate(self._low)},
            **{f"bbox-{axis + 3}": high for axis, high in enumerate(self._high)},
            **{f"centroid-{axis}": centre / pixels for axis, centre in enumerate(self._centre)},
            "confidence": self._confidence / pixels,
        }
        for channel, name in enumerate(self._names):
            apart = self._sum[channel] / pixels
            found[f"intensity_mean{name}"] = self._reference[channel] + apart
            found[f"intensity_min{name}"], found[f"intensity_max{name}"] = self._min[channel], self._max[channel]
            found[f"intensity_std{name}"] = np.sqrt(np.maximum(self._square[channel] / pixels - apart**2, 0))
        return found
