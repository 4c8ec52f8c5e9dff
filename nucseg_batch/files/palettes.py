"""Palettes: which of them hold colours, and which only tint intensities; one rule for all formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.plan import Assumption

TINTED = Assumption(
    kind="colour",
    what="its pixels are intensities, which its palette only tints",
    evidence="the palette is a ramp",
    option="save it as RGB",
)
"""What is assumed of a picture with a ramp for a palette."""


def is_ramp(table: NDArray[Any], bits: int) -> bool:
    """Whether the numbers of pixels are intensities: a full palette, (3, entries), whose colours all rise.

    Microscope software stores an image with the look-up table that it was displayed in. A palette with fewer entries
    than its pixels have values was made for the colours of one picture, and its numbers mean nothing by themselves.
    """
    return table.shape[1] >= 2**bits and bool((np.diff(table.astype(np.int64), axis=1) >= 0).all())


def is_grey(table: NDArray[Any]) -> bool:
    """Whether a palette, (3, entries), has no colours."""
    return bool((table[0] == table[1]).all() and (table[1] == table[2]).all())


def tinted(table: NDArray[Any]) -> tuple[Assumption, ...]:
    """What is to be said of a palette that is a ramp; nothing where it has no colours."""
    return () if is_grey(table) else (TINTED,)
