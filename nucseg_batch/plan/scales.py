"""To what size images are brought for the network: scales, and the shapes that they are padded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Adapt = Literal["no", "outliers", "each", "sized"]
"""Which images get a scale of their own: none, those whose nuclei do not fit that of the others, all by segmenting them
at several scales (`each`), or all by the model's size network, and of these again those that do not fit (`sized`)."""
STEP = 32
"""Padded sides are multiples of this many pixels."""
TILE = 1536
"""Images with a longer padded side go through the network in tiles of this side."""
COARSE_SIDES = (256, 384, 512, 768, 1024, TILE)
"""Padded sides of images on devices that compile a program for each shape: these, and beyond as elsewhere."""


@dataclass(frozen=True)
class Scales:
    """By how much images are enlarged for the network, so that nuclei come out as large as it knows them."""

    grey: float = 1.0
    """Factor for images of one channel."""
    colour: float = 1.0
    """Factor for images of three channels."""
    adapt: Adapt = "no"
    """Which images get a factor of their own."""
    reason: str = "none given"
    """Where the factors come from, for the log."""

    def of(self, channels: int) -> float:
        """The factor for images of so many channels."""
        return self.grey if channels == 1 else self.colour


def bucket_shape(height: int, width: int) -> tuple[int, int]:
    """Shape that an image is padded to: multiples of STEP."""
    return _padded(height), _padded(width)


def coarse_bucket_shape(height: int, width: int) -> tuple[int, int]:
    """The same from a much shorter list of shapes, for devices that compile a program for each: see COARSE_SIDES.

    The shorter side is padded to the longer one unless that is more than one and a half times as long.
    """
    sides = _coarse(height), _coarse(width)
    return sides if 2 * max(sides) > 3 * min(sides) else (max(sides), max(sides))


def _coarse(length: int) -> int:
    return next((side for side in COARSE_SIDES if side >= length), _padded(length))


def _padded(length: int) -> int:
    return -(-length // STEP) * STEP
