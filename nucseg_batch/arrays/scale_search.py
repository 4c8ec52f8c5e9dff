"""At which scale does an image fit the network? Decided from what is found in it at several.

Where nuclei are too large for the network they fall to pieces, where they are too small they run together. The scale at
which what is found is as wide as what the network was trained on is the one that fits, if the network is as certain
there as elsewhere: from afar whole cells look like nuclei, but not quite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.scale import MAX_SCALE, nuclei_areas, step_scale, typical_diameter

TRIED_SCALES = (1.0, 0.5, 0.25)
"""Scales at which an image is looked at when nothing is known of it, times that at which the look begins."""
COVER = 0.02
"""A look counts only if the nuclei found in it cover this share of the most that any look finds."""
CERTAIN = 8.0
"""How much a look's certainty counts: a tenth less outweighs nuclei that are wrong by a factor of two."""
TOLERANCE = 1.4
"""Nuclei so many times wider or narrower than nominal are worth another look."""
ENLARGED_LESS = 2**0.5
"""How much less grey images are enlarged than to the nominal width.

Measured on the 71 grey validation images with estimated sizes, AP on fluorescence of `dsb2018` and megapixels of all
images at the network's scale: 1 gave .623 and 28.9, 2**0.25 .625 and 22.3, 2**0.5 .626 and 18.0, 2**0.75 .611 and 15.5.
Other collections of fluorescence did not change. Likewise of 20 colour images (histology of `dsb2018`): 2**-0.25 gave
.442 and 16.6, 1 .431 and 11.9, 2**0.25 .397 and 8.3; the gain of the first is one image's, so they are left at 1.
"""


@dataclass(frozen=True)
class ScaleTrial:
    """What one look at an image found."""

    labels: NDArray[np.int32] | NDArray[np.uint16]
    """(height, width): 0 is background, 1..n are nuclei."""
    scale: float
    """By how much the image was enlarged for the network."""
    certainty: float = 1.0
    """Mean probability of the pixels that were taken for nuclei, where it was asked for."""
    support: NDArray[np.uint8] | None = None
    """(height, width): how far each pixel supports its nucleus, see `arrays.confidence`; None where nobody says."""

    @cached_property
    def width(self) -> float | None:
        """Typical width of the nuclei in the image's pixels; None without any."""
        return typical_diameter(nuclei_areas(self.labels))

    def misfit(self, diameter: float) -> float:
        """How far the width is from `diameter` as the network saw it, as a logarithm; infinite without any nuclei."""
        width = self.width
        return math.inf if width is None else abs(math.log(width * self.scale / diameter))


def another_scale(found: ScaleTrial, diameter: float) -> float | None:
    """The scale at which an image should be segmented again, where its nuclei are far from `diameter`."""
    width = found.width
    if width is None or found.misfit(diameter) < math.log(TOLERANCE):
        return None
    scale = step_scale(diameter / width)
    return None if scale == found.scale else scale


def paying_diameter(width: float, diameter: float, *, grey: bool) -> float:
    """The width in pixels to which nuclei of `width` pixels are brought: `diameter`, or less where that costs nothing.

    Grey images are enlarged by ENLARGED_LESS less than to `diameter`, but never reduced for it.
    """
    if not grey:
        return diameter
    return min(diameter, max(width, diameter / ENLARGED_LESS))


def larger_scale(looks: Sequence[ScaleTrial], diameter: float) -> float | None:
    """A scale above all looks, where the smallest width that they found asks for one."""
    widths = [width for width in (look.width for look in looks) if width is not None]
    most = max(look.scale for look in looks)
    if not widths or most >= MAX_SCALE:
        return None
    scale = step_scale(diameter / min(widths))
    return scale if scale > most else None


def fitting_scale(looks: Sequence[ScaleTrial], diameter: float) -> float:
    """The scale that fits, from looks at several; that of the first look where nothing was found."""
    cover = [np.count_nonzero(look.labels) for look in looks]
    counted = [look for look, area in zip(looks, cover, strict=True) if area and area >= COVER * max(cover)]
    if not counted:
        return looks[0].scale
    best = max(counted, key=lambda look: CERTAIN * look.certainty - look.misfit(diameter))
    width = best.width
    assert width is not None
    return step_scale(diameter / width)


def searched_scales(
    look: Callable[[Sequence[float | None]], Mapping[int, ScaleTrial]], count: int, begin: float, diameter: float
) -> list[float]:
    """The scales that fit `count` images, each found by looks at several of which `begin` is the first.

    look: takes a scale for each image, or None to skip it, and returns what it finds, by the image's place.
    """
    looks: list[list[ScaleTrial]] = [[] for _ in range(count)]

    def seen(scales: Sequence[float | None]) -> None:
        for i, new in look(scales).items():
            looks[i].append(new)

    for factor in TRIED_SCALES:
        seen([step_scale(begin * factor)] * count)
    seen([larger_scale(trials, diameter) for trials in looks])
    return [fitting_scale(trials, diameter) for trials in looks]
