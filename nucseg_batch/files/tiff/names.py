"""Names and wavelengths of channels, as software other than OME's writes them into a TIFF.

ImageJ labels its planes, Zeiss LSM names its tracks, MetaMorph and MetaXpress name the one channel of a file, and
PerkinElmer and Micro-Manager list theirs. What is not understood is not guessed: such channels are numbered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.layout import PlaneLayout

_PROPERTY = re.compile(r'<prop id="(_IllumSetting_|image-name|wavelength)"[^>]*value="([^"]*)"')
_THUMBNAIL = "HTSThumbHTS"
_PLACE_LABEL = re.compile(r"\b[czt]:\d+/\d+")
_QPTIFF_NAME = re.compile(r"<Name>([^<]*)</Name>")
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#38;": "&"}
_LONGEST = 100


def channel_names(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    """The channels of a tifffile.TiffFile that is no OME-TIFF, in order.

    count: how many there are. Empty where there is one and it has no name.
    """
    read = _READERS.get(layout.kind)
    if read is None and str(tiff.pages.first.description).startswith("<MetaData>"):
        read = _metaseries
    try:
        found = () if read is None else read(tiff, layout, count)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        found = ()
    if len(found) == count and all(channel.name for channel in found):
        return tuple(found)
    return tuple(ChannelInfo(str(number)) for number in range(count)) if count > 1 else ()


def _imagej(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    """Labels of planes, where all planes of a channel share theirs and it is no place in the stack."""
    labels = [str(label).strip() for label in (tiff.imagej_metadata or {}).get("Labels", ())]
    if "C" not in layout.strides or len(labels) != layout.frames:
        return ()
    stride = layout.strides["C"]
    names: list[set[str]] = [set() for _ in range(count)]
    for number, label in enumerate(labels):
        names[number // stride % count].add(label)
    flat = [next(iter(found)) for found in names if len(found) == 1]
    if len(set(flat)) < count or any(_PLACE_LABEL.search(label) for label in flat):
        return ()
    return tuple(ChannelInfo(_name(label)) for label in flat)


def _metaseries(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    said = dict(_PROPERTY.findall(tiff.pages.first.description))
    name = said.get("_IllumSetting_") or said.get("image-name", "")
    for entity, sign in _ENTITIES.items():
        name = name.replace(entity, sign)
    wavelength = float(said.get("wavelength", "0"))
    known = wavelength if math.isfinite(wavelength) and wavelength > 0 else None
    return (ChannelInfo(_name(name), known),) if count == 1 and name and name != _THUMBNAIL else ()


def _lsm(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    names = tiff.lsm_metadata["ChannelColors"]["ColorNames"]
    return tuple(ChannelInfo(_name(name)) for name in names)


def _qptiff(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    pages = tiff.pages
    found = (_QPTIFF_NAME.search(pages.get(number, aspage=True).description) for number in range(count))
    return tuple(ChannelInfo(_name(match[1])) for match in found if match)


def _micromanager(tiff: Any, layout: PlaneLayout, count: int) -> tuple[ChannelInfo, ...]:
    return tuple(ChannelInfo(_name(name)) for name in tiff.micromanager_metadata["Summary"]["ChNames"])


def _name(text: str) -> str:
    return " ".join(str(text).split())[:_LONGEST]


_READERS: dict[str, Callable[[Any, PlaneLayout, int], tuple[ChannelInfo, ...]]] = {
    "lsm": _lsm,
    "qpi": _qptiff,
    "imagej": _imagej,
    "mmstack": _micromanager,
}
