"""How far the compartments of an image reach, in its own pixels."""

from __future__ import annotations

from nucseg_batch.compartments import FARTHEST, OPTIONS
from nucseg_batch.errors import UsageError
from nucseg_batch.plan.images import ImageInfo
from nucseg_batch.plan.plan import Plan
from nucseg_batch.settings import SegmentSettings


def compartment_distances(image: ImageInfo, settings: SegmentSettings) -> dict[str, tuple[float, ...]]:
    """Gap and width of rings, and reach of cells, in pixels of an image, by label image; those that are asked for."""
    size = settings.pixel_size or image.pixel_size
    return {name: distances.pixels(size) for name, distances in settings.compartments.items()}


def check_compartments(plan: Plan, settings: SegmentSettings) -> None:
    """Raises UsageError where distances in micrometres do not say how many pixels these are, or too many."""
    names = [name for name, distances in settings.compartments.items() if distances.micrometres]
    images = (image for label_array in plan.label_arrays for image in (label_array.images if names else ()))
    for image in images:
        if not (settings.pixel_size or image.pixel_size):
            raise UsageError(
                f"{OPTIONS[names[0]]} is in micrometres, but {image.key} does not say how wide its pixels are; add "
                "--pixel-size UM, or give pixels."
            )
        for name in names:
            far = sum(compartment_distances(image, settings)[name])
            if far > FARTHEST:
                raise UsageError(
                    f"{OPTIONS[name]} reaches {far:.0f} pixels from the nuclei of {image.key}, but at most "
                    f"{FARTHEST:g} are allowed; give less, or its pixel size with --pixel-size UM."
                )
