"""To what size images are brought for the network: scales, and the shapes that they are padded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Adapt = Literal["no", "outliers", "each", "sized"]
"""Which images get a scale of their own: none, those whose nuclei do not fit that of the others, all by segmenting them
at several scales (`each`), or all by the model's size network, and of these again those that do not fit (`sized`)."""
TILE = 1536
"""Images with a longer padded side go through the network in tiles of this side."""


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
    """Shape that an image is padded to: multiples of 32 up to 512 pixels a side, of 64 up to 1024, of 128 beyond."""
    return _padded(height), _padded(width)


def _padded(length: int) -> int:
    step = 32 if length <= 512 else 64 if length <= 1024 else 128
    return -(-length // step) * step
