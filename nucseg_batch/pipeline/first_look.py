"""How large are the nuclei? A first look at a sample of the images, before any of them is segmented for good."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.looks import Segmented
from nucseg_batch.arrays.scale import step_scale
from nucseg_batch.errors import ImageError
from nucseg_batch.files.inputs import load, open_image
from nucseg_batch.pipeline.stream import choose_channel
from nucseg_batch.plan import Adapt, ImageInfo, Plan, Scales
from nucseg_batch.settings import SegmentSettings

SAMPLE = 12
"""Images of each kind, grey and colour, that are looked at."""
SAMPLE_SIDE = 1024
"""Of larger images only the middle is looked at, so many pixels a side at the scale at which the look begins."""
MIXED = 1.6
"""Where widths of the sample, but for the least and the largest, differ by more than this, each image is looked at."""
NUCLEUS_MICROMETRES = 13.0
"""Width of a mammalian nucleus, where the size of pixels is all that is known."""
SAME = 1.05
"""A diameter that is given and so near to the model's needs no rescaling."""

Look = Callable[[NDArray[Any], float], Segmented]
"""Segments an image at the scale that fits it, beginning at one that is given."""


def choose_scales(
    plan: Plan, folder: Path, look: Look, diameter: float, settings: SegmentSettings, tell: Callable[[str], None]
) -> Scales:
    """The scales of a run: from the settings' diameter, else from a first look at images of each kind.

    `diameter` is the width in pixels that nuclei have where the network knows them best.
    """
    if settings.diameter is not None:
        scale = diameter / settings.diameter
        scale = 1.0 if abs(math.log(scale)) < math.log(SAME) else scale
        return Scales(scale, scale, "no", f"--diameter {settings.diameter:g}: scale {scale:.3g}")
    kinds: dict[str, float] = {}
    mixed = False
    reasons = []
    for name, channels in (("grey", 1), ("colour", 3)):
        images = [image for stack in plan.stacks for image in stack.images if image.channels == channels]
        if not images:
            continue
        tell(f"looking at {min(SAMPLE, len(images))} of {len(images)} {name} images to see how wide nuclei are")
        widths = sample_widths(images, folder, look, diameter, settings)
        kinds[name] = step_scale(diameter / float(np.median(widths))) if widths else 1.0
        mixed |= is_mixed(widths)
        found = f"nuclei {widths[0]:.0f} to {widths[-1]:.0f} pixels wide" if widths else "no nuclei"
        reasons.append(f"{name} images: {found}, scale {kinds[name]:.3g}")
    adapt: Adapt = "each" if mixed else "outliers"
    reasons.append("each image gets the scale that fits it" if mixed else "outliers get their own")
    return Scales(kinds.get("grey", 1.0), kinds.get("colour", 1.0), adapt, "; ".join(reasons))


def sample_widths(
    images: Sequence[ImageInfo], folder: Path, look: Look, diameter: float, settings: SegmentSettings
) -> list[float]:
    """Typical widths of nuclei, in pixels and ascending, in a sample spread evenly over `images`; those with nuclei."""
    ordered = sorted(images, key=lambda image: image.key)
    chosen = [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, SAMPLE).round().astype(int))]
    widths = []
    for info in chosen:
        try:
            pixels = load(open_image(folder, info, max_pixels=settings.max_pixels))
        except ImageError:
            continue  # it will be one of the failures
        pixel_size = settings.pixel_size or info.pixel_size
        begin = 1.0 if pixel_size is None else step_scale(diameter * pixel_size / NUCLEUS_MICROMETRES)
        shown = _middle(choose_channel(pixels, settings.channel)[0], round(SAMPLE_SIDE / begin))
        width = look(shown, begin).width
        if width is not None:
            widths.append(width)
    return sorted(widths)


def is_mixed(widths: Sequence[float]) -> bool:
    """Whether a sample's ascending widths, but for the least and the largest, say that one scale does not fit all."""
    inner = widths[1:-1] if len(widths) > 4 else widths
    return bool(inner) and inner[-1] > MIXED * inner[0]


def _middle(pixels: NDArray[Any], side: int) -> NDArray[Any]:
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])
