"""OME-XML as OME-TIFF files and companions hold it: axes, channels, pixel size, and which plane is stored where.

The text comes with the image, so it is not trusted: its length is capped, and documents that declare entities or a
document type are refused before they are parsed. Only what planning needs is kept.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

from nucseg_batch.errors import ImageError
from nucseg_batch.files.pixel_size import micrometres, plausible, plausible_step
from nucseg_batch.files.source import ChannelInfo

MAX_XML = 64 * 2**20
"""Characters of OME-XML above which it is not parsed."""
_ROOT = re.compile(r"<(\w+:)?OME[\s>]")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_ANGSTROM = "Å"


@dataclass(frozen=True)
class PlaneData:
    """One TiffData element: a run of planes and the place where it is stored."""

    first: dict[str, int]
    """Places of its first plane along T, C and Z."""
    ifd: int | None
    """Page of its first plane; None where it is not said."""
    count: int | None
    """Planes; None where it is not said."""
    file: str | None
    """Name of the file; None for the file that holds the XML."""
    uuid: str | None
    """UUID of that file."""


@dataclass(frozen=True)
class OmeImage:
    """One Image element with Pixels."""

    name: str
    """As the software called it; may be empty."""
    order: str
    """DimensionOrder, such as `XYZCT`: the letter after XY changes fastest."""
    sizes: dict[str, int]
    """Lengths of T, C, Z, Y and X; C counts samples."""
    channels: tuple[ChannelInfo, ...]
    """In order; one for all samples of a colour channel."""
    samples: tuple[int, ...]
    """SamplesPerPixel of each channel."""
    pixel_size: float | None
    """Width of a pixel in micrometres."""
    z_step: float | None
    """Distance of z-slices in micrometres."""
    planes: tuple[PlaneData, ...]
    """Where its planes are stored."""


@dataclass(frozen=True)
class Ome:
    """An OME-XML document."""

    uuid: str | None
    """Of the file that holds it."""
    images: tuple[OmeImage, ...]
    """In order."""
    metadata_file: str | None
    """Name of the file that holds the rest, where this one says nothing but that."""


def looks_like_ome(text: str) -> bool:
    """Whether a description is meant as OME-XML, broken or not."""
    return text.rstrip()[-4:] == "OME>" or _ROOT.search(text[:4096]) is not None


def parse_ome(text: str) -> Ome:
    """Reads OME-XML; raises ImageError for what is too long, declares entities, or is not well-formed."""
    if len(text) > MAX_XML:
        raise ImageError(f"its OME-XML has {len(text)} characters, more than the {MAX_XML} that are read.")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError("its OME-XML declares a document type or entities, which OME-XML never needs.")
    try:
        root = _tree(text)
        images = tuple(_image(element) for element in _children(root, "Image"))
        only = next(_children(root, "BinaryOnly"), None)
        metadata_file = None if only is None else only.get("MetadataFile")
    except (ElementTree.ParseError, ValueError, TypeError, KeyError) as error:
        raise ImageError(f"its OME-XML is broken ({' '.join(str(error).split())[:120]}); save it again.") from error
    return Ome(root.get("UUID"), tuple(image for image in images if image is not None), metadata_file)


def _tree(text: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return ElementTree.fromstring(_NOT_XML.sub("", text))  # some software copies stray control characters


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Its children of a name, whatever their namespace."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def _image(element: ElementTree.Element) -> OmeImage | None:
    pixels = next(_children(element, "Pixels"), None)
    if pixels is None:
        return None
    order = pixels.attrib["DimensionOrder"].upper()
    if sorted(order) != sorted("XYZCT") or order[:2] != "XY":
        raise ValueError(f"DimensionOrder {order[:20]}")
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "TCZYX"}
    if min(sizes.values()) < 1:
        raise ValueError(f"sizes {sizes}")
    elements = tuple(_children(pixels, "Channel"))
    size = micrometres(pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeXUnit", "µm"))
    step = micrometres(pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm"))
    return OmeImage(
        element.get("Name", ""),
        order,
        sizes,
        tuple(_channel(channel, number) for number, channel in enumerate(elements)),
        tuple(int(channel.get("SamplesPerPixel", "1")) for channel in elements),
        plausible(size),
        plausible_step(step),
        tuple(_plane_data(data) for data in _children(pixels, "TiffData")),
    )


def _channel(element: ElementTree.Element, number: int) -> ChannelInfo:
    name = (element.get("Name") or element.get("Fluor") or "").strip()
    wavelengths = (_nanometres(element, kind) for kind in ("Emission", "Excitation"))
    return ChannelInfo(name or str(number), next((length for length in wavelengths if length is not None), None))


def _nanometres(element: ElementTree.Element, kind: str) -> float | None:
    value, unit = element.get(f"{kind}Wavelength"), element.get(f"{kind}WavelengthUnit", "nm")
    length = micrometres(value, "nm" if unit == _ANGSTROM else unit)
    if length is None or not math.isfinite(length) or length <= 0:
        return None
    return round(length * (100 if unit == _ANGSTROM else 1000), 6)


def _plane_data(element: ElementTree.Element) -> PlaneData:
    first = {axis: int(element.get(f"First{axis}", "0")) for axis in "TCZ"}
    ifd, count = element.get("IFD"), element.get("PlaneCount", element.get("NumPlanes"))
    if min(first.values()) < 0 or (ifd is not None and int(ifd) < 0) or (count is not None and int(count) < 0):
        raise ValueError("a TiffData of negative numbers")
    uuid = next(_children(element, "UUID"), None)
    return PlaneData(
        first,
        None if ifd is None else int(ifd),
        None if count is None else int(count),
        None if uuid is None else uuid.get("FileName"),
        None if uuid is None or not uuid.text else uuid.text.strip(),
    )
