"""How large are the nuclei? A first look at a sample of the images, before any of them is segmented for good."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.scale import step_scale
from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.errors import ImageError
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.pipeline.channels import network_channel_count, read_channels, resolve_channel
from nucseg_batch.plan import Adapt, ImageInfo, Plan, Plane, Scales
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

Look = Callable[[NDArray[Any], float], ScaleTrial]
"""Segments an image at the scale that fits it, beginning at one that is given."""


def choose_scales(
    plan: Plan, images: ImageReader, look: Look, diameter: float, settings: SegmentSettings, tell: Callable[[str], None]
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
    found_widths: dict[int, list[float]] = {}
    for name, channels in (("grey", 1), ("colour", 3)):
        kind = [
            image for label_array in plan.label_arrays for image in label_array.images if image.channels == channels
        ]
        if not kind:
            continue
        tell(f"looking at {min(SAMPLE, len(kind))} of {len(kind)} {name} images to see how wide nuclei are")
        sampled = sample_widths(kind, images, look, diameter, settings) or {channels: []}
        for shown, widths in sampled.items():
            found_widths[shown] = sorted([*found_widths.get(shown, []), *widths])
    for name, channels in (("grey", 1), ("colour", 3)):
        if channels not in found_widths:
            continue
        widths = found_widths[channels]
        kinds[name] = step_scale(diameter / float(np.median(widths))) if widths else 1.0
        mixed |= is_mixed(widths)
        found = f"nuclei {widths[0]:.0f} to {widths[-1]:.0f} pixels wide" if widths else "no nuclei"
        reasons.append(f"{name} images: {found}, scale {kinds[name]:.3g}")
    adapt: Adapt = "each" if mixed else "outliers"
    reasons.append("each image gets the scale that fits it" if mixed else "outliers get their own")
    known = list(kinds.values()) or [1.0]  # images of a kind that the sample lacks are as the others
    return Scales(kinds.get("grey", known[0]), kinds.get("colour", known[0]), adapt, "; ".join(reasons))


def sample_widths(
    kind: Sequence[ImageInfo], images: ImageReader, look: Look, diameter: float, settings: SegmentSettings
) -> dict[int, list[float]]:
    """Typical widths of nuclei in pixels, in a sample spread evenly over a kind of images, by `network_channel_count`.

    Of an image with several planes the middle one is looked at. Images without nuclei are left out.
    """
    ordered = sorted(kind, key=lambda image: image.key)
    chosen = [ordered[i] for i in np.unique(np.linspace(0, len(ordered) - 1, SAMPLE).round().astype(int))]
    widths: dict[int, list[float]] = {}
    for info in chosen:
        pixel_size = settings.pixel_size or info.pixel_size
        begin = 1.0 if pixel_size is None else step_scale(diameter * pixel_size / NUCLEUS_MICROMETRES)
        side = round(SAMPLE_SIDE / begin)
        middle = Plane(
            info,
            info.times[len(info.times) // 2] if info.t is not None else None,
            info.depths[len(info.depths) // 2] if info.z is not None else None,
        )
        try:
            channel = resolve_channel(images, middle, settings)
            window = (_middle(length, side) for length in (info.height, info.width))
            shown = read_channels(images, middle, channel, *window)
        except ImageError:
            continue  # it will be one of the failures
        of_kind = widths.setdefault(network_channel_count(info, channel), [])
        try:
            width = look(np.ascontiguousarray(shown.pixels), begin).width
        except MemoryError:
            continue  # the run goes on in smaller batches, or it fails there and is told
        if width is not None:
            of_kind.append(width)
    return widths


def is_mixed(widths: Sequence[float]) -> bool:
    """Whether a sample's ascending widths, but for the least and the largest, say that one scale does not fit all."""
    inner = widths[1:-1] if len(widths) > 4 else widths
    return bool(inner) and inner[-1] > MIXED * inner[0]


def _middle(length: int, side: int) -> slice:
    start = max(0, (length - side) // 2)
    return slice(start, min(length, start + side))
