"""What the network is shown of an image's channels, and which intensities are measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import luminance
from nucseg_batch.plan import ImageInfo

COLOURS = {"red": 0, "green": 1, "blue": 2}


@dataclass(frozen=True)
class Shown:
    """A plane, or a window of one, ready for the network and for measuring."""

    pixels: NDArray[Any]
    """What the network sees: (h, w) or (h, w, 3) of uint8, uint16 or float32."""
    intensity: NDArray[Any]
    """(h, w): what `intensity_mean` and the like are of."""
    channels: dict[str, NDArray[Any]] = field(default_factory=dict)
    """(h, w) each: the separate channels by name; none for grey and colour pictures."""


def show(pixels: NDArray[Any], info: ImageInfo, channel: str) -> Shown:
    """What is shown and measured of pixels as `Source.read` returns them.

    Of separate channels the network sees that of the nuclei, and all are measured. Of a colour picture it sees all
    three unless `channel` is one of them or `grey`; what it is shown is measured, and of all three the luminance.
    """
    if info.names:
        planes = dict(zip(info.names, pixels, strict=True))
        nuclei = pixels[info.nuclei]
        return Shown(_shown(nuclei), nuclei, planes)
    if pixels.ndim == 3 and channel in COLOURS:
        pixels = np.ascontiguousarray(pixels[..., COLOURS[channel]])
    intensity = luminance(pixels) if pixels.ndim == 3 else pixels
    return Shown(_shown(intensity if channel == "grey" else pixels), intensity)


def _shown(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32)
