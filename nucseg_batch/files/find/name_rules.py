"""Files that are images but not what is to be segmented, told by their names and those beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Set

ANNOTATION_ENDINGS = ("_masks", "_mask", "_labels", "_label", "_cp_masks", "_seg")
"""Endings of a label image's name after that of its image; of several label images the first of these counts."""
IMAGE_ENDING = "_img"
"""Ending that the image's own name may have instead, as in `000_img.png` and `000_masks.png`."""
GUID = r"[0-9A-F]{8}-(?:[0-9A-F]{4}-){3}[0-9A-F]{12}"
"""What MetaXpress appends to the names of its files."""
_THUMBNAIL = re.compile(rf"_thumb(?P<guid>{GUID})?(?P<suffix>\.tiff?)$", re.IGNORECASE)
_YOKOGAWA = re.compile(r"(?:MeasurementData\.mlf|.*\.mes)", re.IGNORECASE)
_CORRECTION = re.compile(r"(?:DC|SC)_.+\.tiff?", re.IGNORECASE)


def label_images(names: Iterable[str]) -> set[str]:
    """Those of a folder's image files that are label images of others beside them."""
    stems = {name: _stem(name) for name in names}
    images = set(stems.values())
    return {name for name, stem in stems.items() if any(image in images for image in _image_stems(stem))}


def _image_stems(stem: str) -> list[str]:
    """What the image of a label image may be called; nothing where the ending does not show that it is one."""
    cut = [stem.removesuffix(ending) for ending in ANNOTATION_ENDINGS if stem.endswith(ending)]
    return [image for start in cut if start for image in (start, start + IMAGE_ENDING)]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].removesuffix(".ome")


def byproduct(name: str, names: Set[str]) -> str | None:
    """What a microscope wrote this file for, where that is not the sample; None for images.

    names: all names of its folder.
    """
    thumbnail = _THUMBNAIL.search(name)
    if thumbnail and (thumbnail["guid"] or name[: thumbnail.start()] + thumbnail["suffix"] in names):
        return "thumbnail"
    if _CORRECTION.fullmatch(name) and any(_YOKOGAWA.fullmatch(other) for other in names):
        return "correction image of the microscope"
    return None
