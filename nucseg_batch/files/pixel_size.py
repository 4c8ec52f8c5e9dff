"""The size of a pixel and the distance of z-slices in micrometres, as microscope software wrote them into a TIFF.

OME-XML is read in `ome_xml`; here are the units, the range that can be meant, and the other places where software keeps
it: ImageJ, MetaMorph and MetaXpress, Aperio slides, Zeiss LSM and STK.
"""

from __future__ import annotations

import math
import re
from typing import Any

MICROMETRES = {"pm": 1e-6, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Units that are understood, in micrometres; µ has two code points."""
PLAUSIBLE = (0.02, 10.0)
"""Sizes outside this range are somebody's default, not a microscope's, and count as unknown."""
PLAUSIBLE_STEP = (0.01, 1000.0)
"""Distances of z-slices outside this range count as unknown."""
_SPELLED = {**MICROMETRES, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0}
_METASERIES_SIZE = re.compile(r'id="spatial-calibration-x"[^>]*value="([^"]*)"')
_METASERIES_UNIT = re.compile(r'id="spatial-calibration-units"[^>]*value="([^"]*)"')
_APERIO_SIZE = re.compile(r"\|\s*MPP\s*=\s*([0-9.]+)")


def plausible(size: float | None) -> float | None:
    """The size where a microscope can have it, else None."""
    return size if size is not None and math.isfinite(size) and PLAUSIBLE[0] <= size <= PLAUSIBLE[1] else None


def plausible_step(step: float | None) -> float | None:
    """The distance of z-slices where a microscope can have it, else None."""
    good = step is not None and math.isfinite(step) and PLAUSIBLE_STEP[0] <= step <= PLAUSIBLE_STEP[1]
    return step if good else None


def micrometres(size: str | float | None, unit: str) -> float | None:
    """A length in a unit, in micrometres; None where either is not understood."""
    factor = _SPELLED.get(unit.replace("\\u00B5", "µ").strip())
    try:
        return None if size is None or factor is None else float(size) * factor
    except (TypeError, ValueError):
        return None


def tiff_pixel_size(tiff: Any, kind: str) -> float | None:
    """Width of a pixel of a tifffile.TiffFile that is no OME-TIFF, in micrometres; None where it is not known.

    kind: what tifffile calls this kind of TIFF. A resolution in inches or centimetres without a word of a microscope is
    that of a screen or printer.
    """
    read = _READERS.get(kind)
    if read is None and str(tiff.pages.first.description).startswith("<MetaData>"):
        read = _metaseries
    try:
        return None if read is None else plausible(read(tiff))
    except (ValueError, TypeError, KeyError, ZeroDivisionError, IndexError):
        return None


def tiff_z_step(tiff: Any, kind: str) -> float | None:
    """Distance of z-slices of a tifffile.TiffFile that is no OME-TIFF, in micrometres; None where it is not known.

    kind: what tifffile calls this kind of TIFF. ImageJ and Zeiss LSM write it.
    """
    try:
        if kind == "lsm":
            return plausible_step(float((tiff.lsm_metadata or {})["VoxelSizeZ"]) * MICROMETRES["m"])
        metadata = (tiff.imagej_metadata or {}) if kind == "imagej" else {}
        return plausible_step(micrometres(metadata.get("spacing"), str(metadata.get("unit", ""))))
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _imagej(tiff: Any) -> float | None:
    tag = tiff.pages.first.tags.get("XResolution")
    if tag is None:
        return None
    pixels, units = tag.value
    return micrometres(units / pixels, str((tiff.imagej_metadata or {}).get("unit", "")))


def _metaseries(tiff: Any) -> float | None:
    size, unit = (pattern.search(tiff.pages.first.description) for pattern in (_METASERIES_SIZE, _METASERIES_UNIT))
    return micrometres(size[1], unit[1]) if size and unit else None


def _aperio(tiff: Any) -> float | None:
    found = _APERIO_SIZE.search(tiff.pages.first.description)
    return float(found[1]) if found else None


def _lsm(tiff: Any) -> float | None:
    return float((tiff.lsm_metadata or {})["VoxelSizeX"]) * MICROMETRES["m"]


def _stk(tiff: Any) -> float | None:
    settings = tiff.stk_metadata or {}
    return micrometres(settings.get("XCalibration"), str(settings.get("CalibrationUnits", "")))


_READERS = {"imagej": _imagej, "svs": _aperio, "lsm": _lsm, "stk": _stk}
