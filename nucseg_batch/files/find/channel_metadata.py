"""What microscopes write of the channels that they keep in files of their own: names, stains and wavelengths.

Read are MetaXpress' `.HTD`, Yokogawa's `.mes`, Harmony's `Index.xml`, and else the header of one file of each channel.
None of it is needed: what is missing or cannot be understood leaves channels with the token that their file names have.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nucseg_batch.files.images import open_file

MAX_TEXT_BYTES = 4 * 2**20
"""Settings files that are larger are not read; an `Index.xml` is, as far as its channels reach."""
MAX_PIXELS = 2**31
"""Files with more pixels are not asked for their channel."""
MAX_ELEMENTS = 200_000
"""Elements of an `Index.xml` after which its channels are taken as complete."""


@dataclass(frozen=True)
class KnownChannel:
    """What is known of one channel of a plate."""

    name: str = ""
    """What it is called; empty where that is not known."""
    wavelength: float | None = None
    """Of its emission, else its excitation, in nanometres."""
    aliases: tuple[str, ...] = ()
    """What else it may be asked for by, such as the laser."""


def known_channels(folder: Path, samples: Mapping[str, Path]) -> dict[str, KnownChannel]:
    """What is known of the channels of a plate, by the token of its file names.

    folder: that of the plate. samples: a file of each channel, by token.
    """
    found: dict[str, KnownChannel] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = []
    for name in names:
        read = _READERS.get(os.path.splitext(name)[1].lower())
        if name.lower() in ("index.xml", "index.idx.xml"):
            read = _harmony
        if read is not None and not found:
            found = _quietly(read, folder / name)
    known = {}
    for token, path in samples.items():
        number = re.search(r"\d+", token)
        told = found.get(str(int(number[0]))) if number and found else None
        if told is None or told.wavelength is None:
            own = _quietly(_file, path).get("", KnownChannel())
            told = own if told is None else replace(told, wavelength=own.wavelength)
        known[token] = told
    return known


def _quietly(read: Any, path: Path) -> dict[str, KnownChannel]:
    """What a reader finds; nothing where the file is not what its name says."""
    try:
        return dict(read(path))
    except Exception:  # foreign files, which raise their decoders' own classes; nothing here is needed
        return {}


def _text(path: Path) -> str:
    with open(path, "rb") as file:
        return file.read(MAX_TEXT_BYTES).decode("utf-8-sig", "replace")


def _htd(path: Path) -> Iterator[tuple[str, KnownChannel]]:
    for number, name in re.findall(r'^"WaveName(\d+)",\s*"([^"]*)"', _text(path), re.MULTILINE):
        yield number, KnownChannel(name.strip())


def _mes(path: Path) -> Iterator[tuple[str, KnownChannel]]:
    for element in ElementTree.fromstring(_text(path)).iter():
        if element.tag.rpartition("}")[2] != "Channel":
            continue
        values = {key.rpartition("}")[2]: value.strip() for key, value in element.attrib.items()}
        band = re.match(r"[A-Z]*(\d{3})", values.get("Acquisition", ""))
        wavelength = float(band[1]) if band else _number(values.get("Target"))
        aliases = tuple(value for key in ("Target", "Acquisition") if (value := values.get(key)))
        yield values["Ch"], KnownChannel(values.get("Fluorophore", ""), wavelength, aliases)


def _harmony(path: Path) -> Iterator[tuple[str, KnownChannel]]:
    seen: set[str] = set()
    for count, (_, element) in enumerate(ElementTree.iterparse(path)):
        tag = element.tag.rpartition("}")[2]
        if count > MAX_ELEMENTS:
            return
        if tag not in ("Entry", "Image"):
            continue
        values = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
        channel = values.get("ChannelID") or element.get("ChannelID")
        element.clear()
        if not channel or not values.get("ChannelName") or channel in seen:
            continue
        seen.add(channel)
        wavelength = _number(values.get("MainEmissionWavelength")) or _number(values.get("MainExcitationWavelength"))
        yield channel, KnownChannel(values["ChannelName"], wavelength)


_READERS = {".htd": _htd, ".mes": _mes}


def _file(path: Path) -> Iterator[tuple[str, KnownChannel]]:
    """What the header of a file says of its only channel."""
    channels = open_file(path, max_pixels=MAX_PIXELS).header.channels
    if len(channels) == 1:
        name = "" if channels[0].name == "0" else channels[0].name
        yield "", KnownChannel(name, channels[0].wavelength)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 200 <= number <= 2000 else None
