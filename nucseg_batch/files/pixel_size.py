"""The size of a pixel in micrometres, as OME-XML or ImageJ wrote it into a TIFF."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from typing import Any

MICROMETRES = {"pm": 1e-6, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Units that are understood, in micrometres; µ has two code points."""
PLAUSIBLE = (0.02, 10.0)
"""Sizes outside this range are somebody's default, not a microscope's, and count as unknown."""


def tiff_pixel_size(tiff: Any) -> float | None:
    """Width of a pixel of a tifffile.TiffFile in micrometres; None where it is not known.

    A resolution in inches or centimetres without a word of a microscope is that of a screen or printer.
    """
    try:
        size = _ome(tiff.ome_metadata) if tiff.is_ome else _imagej(tiff) if tiff.is_imagej else None
    except (ValueError, TypeError, KeyError, ZeroDivisionError, ElementTree.ParseError):
        return None
    return size if size is not None and math.isfinite(size) and PLAUSIBLE[0] <= size <= PLAUSIBLE[1] else None


def _ome(text: str | None) -> float | None:
    if not text:
        return None
    for element in ElementTree.fromstring(text).iter():
        if element.tag.endswith("}Pixels") or element.tag == "Pixels":
            size = element.get("PhysicalSizeX")
            factor = MICROMETRES.get(element.get("PhysicalSizeXUnit", "µm"))
            return None if size is None or factor is None else float(size) * factor
    return None


def _imagej(tiff: Any) -> float | None:
    unit = str((tiff.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ").strip()
    factor = {**MICROMETRES, "micron": 1.0, "microns": 1.0, "micrometer": 1.0}.get(unit)
    tag = tiff.pages[0].tags.get("XResolution")
    if factor is None or tag is None:
        return None
    pixels, units = tag.value
    return units / pixels * factor
