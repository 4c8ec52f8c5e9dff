"""How far apart pixels, depths and time points of a plane are, as the store and the tables say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from nucseg_batch.files.masks.ngff import axes_of, scale_of
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

MICROMETRE = "micrometer"
"""How OME-Zarr writes it."""


@dataclass(frozen=True)
class Spacing:
    """Distances of neighbours in an image."""

    pixel: float | None = None
    """Of pixels, in micrometres; None where not known."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Of the axes t, z, y and x of the masks, in their own units; 1 where nothing is known."""
    depth: float | None = None
    """Of depths, in micrometres; None where not known."""


def spacing_of(run: FinishedRun, row: PlaneRow) -> Spacing:
    """The distances in the image of a plane that has a mask."""
    attributes = read_attributes(run.store / row.mask)
    scale, units = scale_of(attributes)
    pixel = row.values.get("pixel_size")
    steps = {axis: scale.get(axis, 1.0) for axis in axes_of(attributes) if axis in "tzyx"}
    if units.get("x") != MICROMETRE and pixel is not None:  # images of one shape that differ in their pixels
        steps |= dict.fromkeys("yx", pixel)
    depth = scale.get("z") if units.get("z") == MICROMETRE else None
    return Spacing(pixel, steps, depth if depth is not None and math.isfinite(depth) else None)
