"""Which pixels of a float image hold no measurement, and what stands for them.

Missing are NaN and infinities; values of EXTREME and beyond, where they are few or all alike, such as the largest
float32 that NetCDF and GDAL fill gaps with; and NODATA, where no other value of the plane is negative. A gap of such
values would otherwise be the darkest or brightest part of the image, and all else flat. Missing pixels take the lowest
value of their plane and channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXTREME = 1e30
"""Absolute values from here on are hardly measurements."""
FEW = 0.01
"""Up to this share of a plane's finite values, values of EXTREME and beyond are missing, whatever they are."""
ALIKE = 2
"""So many different values of EXTREME and beyond are missing, however many pixels have them."""
NODATA = (-9999.0, -32768.0, -99999.0)
"""Values that other programs write for "no data"."""
FILLINGS = (float(np.finfo(np.float32).max), float(np.finfo(np.float64).max), float(np.float32(9.96921e36)), 1e30, 1e34)
"""Absolute values with which other programs fill gaps, and which nothing else is."""


def suspicious(pixels: NDArray[Any]) -> bool:
    """Whether floats of any shape hold a value that may be missing."""
    low, high = float(pixels.min()), float(pixels.max())  # NaN where there is any
    return not (low > -EXTREME and high < EXTREME) or low in NODATA


def is_filling(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where floats of any shape are NaN, infinite or one of FILLINGS, which needs no other pixel of the plane."""
    fillings = np.array([sign * value for value in FILLINGS for sign in (1, -1)])
    with np.errstate(over="ignore"):
        return ~np.isfinite(pixels) | _is_one_of(pixels, fillings.astype(pixels.dtype))


@dataclass(frozen=True)
class PlaneMinimum:
    """The lowest values of a plane: (c,) where it has channels, else (); infinity where there is none."""

    finite: NDArray[Any]
    """Of all finite values."""
    plausible: NDArray[Any]
    """Of those below EXTREME."""
    certain: NDArray[Any]
    """Of those that are not NODATA either."""
    count: int
    """Finite values, of all channels."""
    extremes: int
    """Of these EXTREME and beyond."""
    kinds: frozenset[float]
    """Different values among `extremes`, at least ALIKE + 1 where there are more."""

    @classmethod
    def of(cls, pixels: NDArray[Any], *, channels: bool) -> PlaneMinimum:
        """Those of (h, w), (h, w, 3) or, with channels, (c, h, w)."""
        finite = np.isfinite(pixels)
        extreme = finite & _extreme(pixels)
        plausible = finite & ~extreme
        certain = plausible & ~_is_one_of(pixels, NODATA)
        axes = (1, 2) if channels else None
        low, middle, high = (np.where(good, pixels, np.inf).min(axis=axes) for good in (finite, plausible, certain))
        kinds = frozenset(np.unique(pixels[extreme])[: ALIKE + 1].tolist())
        counts = int(finite.sum()), int(extreme.sum())
        return cls(np.asarray(low), np.asarray(middle), np.asarray(high), *counts, kinds)

    def joined(self, other: PlaneMinimum) -> PlaneMinimum:
        """Those of two parts of a plane together."""
        return PlaneMinimum(
            np.minimum(self.finite, other.finite),
            np.minimum(self.plausible, other.plausible),
            np.minimum(self.certain, other.certain),
            self.count + other.count,
            self.extremes + other.extremes,
            self.kinds | other.kinds,
        )

    def fill(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Pixels of the plane, or of a part of it, with the lowest value where they are missing.

        Every channel must have a finite value.
        """
        odd = self.extremes <= FEW * self.count or len(self.kinds) <= ALIKE
        drop = odd & np.isfinite(self.plausible)
        nodata = np.isfinite(self.certain) & (self.certain >= 0) & (drop | (self.finite == self.plausible))
        lowest = np.where(nodata, self.certain, np.where(drop, self.plausible, self.finite))
        if self.finite.ndim:
            lowest, nodata, drop = (values.reshape(-1, *[1] * (pixels.ndim - 1)) for values in (lowest, nodata, drop))
        missing = ~np.isfinite(pixels) | (_extreme(pixels) & drop) | (_is_one_of(pixels, NODATA) & nodata)
        return np.where(missing, lowest, pixels).astype(pixels.dtype, copy=False)


def _is_one_of(pixels: NDArray[Any], values: Any) -> NDArray[np.bool_]:
    """Where pixels have one of some values; signalling NaN, as in damaged files, are compared without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isin(pixels, values))


def _extreme(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Where float16, which has no such values, or another float is EXTREME or beyond."""
    return np.zeros(pixels.shape, np.bool_) if pixels.dtype.itemsize < 4 else np.abs(pixels) >= EXTREME
