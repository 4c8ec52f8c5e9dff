"""How many pixels a batch should have: as few as keep the device busy, since more only take memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

GAIN = 1.05
"""A batch twice as large must be this much faster to be worth its memory."""
BATCH_PIXELS = 2**20
"""Pixels in a batch where nothing was measured, and the fewest that are tried: enough to fill a processor."""
MOST = 2**26
"""Pixels of the largest batch that is tried."""


@dataclass(frozen=True)
class Tried:
    """A size of batches, and what came of it."""

    pixels: int
    """Pixels in a batch."""
    speed: float | None
    """Megapixels a second; None where the device had no room for it."""


def grown(speed: Callable[[int], float], first: int = BATCH_PIXELS, most: int = MOST) -> tuple[int, list[Tried]]:
    """Doubles batches until that gains nothing or memory runs out; the best size, and all that were tried.

    speed: measures batches of so many pixels, in megapixels a second; raises MemoryError where they do not fit. Raises
    this where not even the first does.
    """
    tried: list[Tried] = []
    best: Tried | None = None
    pixels, since_gain = first, 0
    while pixels <= most and since_gain < 2:  # one size without gain may be noise
        try:
            one = Tried(pixels, speed(pixels))
        except MemoryError:
            if best is None:
                raise
            tried.append(Tried(pixels, None))
            break
        tried.append(one)
        assert one.speed is not None
        if best is None or one.speed > GAIN * (best.speed or 0):
            best, since_gain = one, 0
        else:
            since_gain += 1
        pixels *= 2
    assert best is not None
    return best.pixels, tried
