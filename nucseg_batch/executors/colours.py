"""What is assumed of colour pictures: whether one of their colours is the image, seen in a sample of them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from nucseg_batch.errors import ImageError
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.pipeline.channels import ALL, is_open, named, only_colour
from nucseg_batch.plan import Assumption, ImageInfo, Plan, Plane
from nucseg_batch.settings import SegmentSettings

SAMPLE = 12
"""Colour pictures that are read."""


def colour_assumptions(plan: Plan, root: str, settings: SegmentSettings) -> tuple[Assumption, ...]:
    """What is assumed of the colour pictures of a plan; none where there are none, or a channel was chosen.

    Each picture is judged by its own pixels when it is segmented; here a sample of them is, spread evenly.
    """
    pictures = sorted(
        (
            image
            for label_array in plan.label_arrays
            for image in label_array.images
            if is_open(image, settings.channel)
        ),
        key=lambda image: image.key,
    )
    if not pictures:
        return ()
    chosen = [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, SAMPLE).round().astype(int))]
    found: dict[tuple[str, bool, bool], list[str]] = defaultdict(list)
    with ImageReader(root, settings) as images:
        for info in chosen:
            try:
                one = only_colour(images, _first(info), settings)
            except (ImageError, OSError):
                continue  # it becomes a failure when it is segmented
            if one is not None:
                found[named(one), one.exact, one.white > 0].append(info.key)
    return tuple(
        Assumption(
            kind="colour",
            what=f"{colour} is the image, and the other two colours are ignored",
            evidence=f"{_evidence(exact, marked)}; seen in {len(keys)} of {len(chosen)} colour pictures",
            option=f"--channel {ALL}, which uses all three",
            doubtful=marked or not exact,
            images=len(keys),
            example=keys[0],
        )
        for (colour, exact, marked), keys in sorted(found.items())
    )


def _evidence(exact: bool, marked: bool) -> str:
    others = "the others are constant" if exact else "the others hold only noise or a fainter copy of it"
    return others + (", but for white marks such as a scale bar" if marked else "")


def _first(info: ImageInfo) -> Plane:
    return Plane(info, info.times[0] if info.t is not None else None, info.depths[0] if info.z is not None else None)
