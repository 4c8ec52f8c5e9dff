"""What of an image is segmented: which channel shows its nuclei, which time points and depths; and what is refused.

A channel is chosen by `--channel`, in this order, and case never counts:
1. its whole name, so that of channels named 1, 2 and 3 `1` is the first;
2. its number from 0; a whole number beyond the channels, from 200 on, is a wavelength in nanometres, and means the
   channel nearest to it within 15 nm;
3. a part of its name, where only one channel has it.
Where that means two channels, or none, the image is refused and its channels are named.

`auto` takes the only channel, or the only one whose name is that of a stain of DNA (see `is_dna_stain`). A wavelength
alone, such as 405, is never taken for one: it also excites other dyes. Of a colour picture `auto` is all three colours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nucseg_batch.errors import ImageError, SettingError, nearest
from nucseg_batch.files.images import MAX_EXPANSION, SMALL
from nucseg_batch.files.source import ChannelInfo, Header
from nucseg_batch.plan import ImageInfo
from nucseg_batch.settings import SegmentSettings

COLOURS = ("red", "green", "blue", "grey", "rgb")
"""Channels of a colour picture; grey is their luminance, rgb all three."""
WAVELENGTHS_FROM = 200
"""Numbers from here on are nanometres where they are no channel's number."""
NEAR_NM = 15
"""How far in nanometres a channel may be from the wavelength that is asked for."""
SHOWN_CHANNELS = 12
"""Channels that a line for the user names."""
ONLY_CHANNEL = "Leave --channel out, and choose files by name with --pattern."
"""What to do where a channel is asked for of a file that has only one."""
EACH = "each"
"""Value of --channel with which every file is an image by itself, whatever channel its name says."""
_DNA_WORDS = ("dapi", "hoechst", "draq5", "draq7", "nucblue", "nuclight", "h2b", "propidium")
"""Beginnings of words that say in any name that DNA was stained."""
_DNA_PHRASE = re.compile(r"\b(?:draq [57]|sir dna|to ?pro ?[135])\b")
_DNA_ALONE = frozenset({"dna", "nuclei", "nucleus", "nuclear"})
_TRANSMITTED = frozenset({"brightfield", "bf", "tl", "transmitted", "trans", "phase", "dic"})
"""Words for transmitted light: in `TL-Brightfield - DAPI` the rest is the filter that was in place."""
_FILLER = re.compile(r"\d+|stain|channel|(?:ch|c|w|spy|sir)\d*")
"""Words that may stand beside one of _DNA_ALONE."""


def image_info(
    key: str,
    header: Header,
    settings: SegmentSettings,
    *,
    files: Sequence[str] = (),
    nuclei: int | None = None,
    group: str | None = None,
) -> ImageInfo:
    """What is planned for an image with this header.

    files: keys of the files that hold its channels, where these are apart, and nuclei: which of them is segmented, by
    now; group: its path in a store. Raises ImageError where no channel or plane can be chosen, or where decoding it
    would be unsafe, and SettingError for `settings.t` and `settings.z` that are no selection.
    """
    guard(header, settings.max_pixels)
    names = channel_names(header) if "C" in header.axes else ()
    projected = settings.z == "max" and "Z" in header.axes
    return ImageInfo(
        key=key,
        size=header.size,
        mtime_ns=header.mtime_ns,
        height=header.length("Y"),
        width=header.length("X"),
        channels=3 if "S" in header.axes else 1,
        dtype=header.dtype,
        pixel_size=header.pixel_size,
        names=names,
        nuclei=nuclei_channel(header, settings.channel) if nuclei is None else nuclei,
        t=_places("t", settings.t, header),
        z=None if projected else _places("z", None if settings.z == "max" else settings.z, header),
        projected=projected,
        files=tuple(files),
        group=group,
        levels=header.levels,
        z_step=header.z_step,
    )


def guard(header: Header, max_pixels: int) -> None:
    """Raises ImageError for an image without pixels, or of which more must be decoded at once than is allowed."""
    if 0 in header.shape:
        raise ImageError(f"it has no pixels ({shape_text(header)}).")
    height, width = header.chunk or (header.length("Y"), header.length("X"))
    what = "a plane" if header.chunk is None else "each of its chunks"
    if height * width > max_pixels:
        raise ImageError(
            f"{what} is {height} x {width} = {height * width} pixels, which must be decoded at once, more than the "
            f"{max_pixels} allowed; raise --max-pixels if that is meant."
        )
    stored = header.stored_bytes if header.stored_bytes is not None else header.size
    decoded = header.bytes // (header.length("T") * header.length("Z"))
    if header.chunk is None and decoded > SMALL and decoded > MAX_EXPANSION * stored:
        raise ImageError(f"{stored} bytes would decode to {decoded}: refused as a decompression bomb.")


def shape_text(header: Header) -> str:
    """Axes and shape for the user, such as `T=3 C=2 Y=512 X=511`."""
    return " ".join(f"{axis}={length}" for axis, length in zip(header.axes, header.shape, strict=True))


def channel_names(header: Header) -> tuple[str, ...]:
    """Names of axis C, each different: channels without a name are numbered from 0, a repeated name too."""
    given = [channel.name.strip() for channel in header.channels]
    given += [""] * (header.length("C") - len(given))
    names: list[str] = []
    for number, name in enumerate(given):
        name = name or str(number)
        names.append(name if given.count(name) < 2 and name not in names else f"{name}-{number}")
    return tuple(names)


def nuclei_channel(header: Header, wanted: str, if_only_one: str = ONLY_CHANNEL) -> int:
    """Which of axis C shows the nuclei, 0 where there is no such axis; raises ImageError where that is not clear.

    if_only_one: what to do where a name is asked for of an image with one channel that has none.
    """
    wanted = "auto" if wanted.lower() == EACH else wanted
    plain = wanted.lower() in ("auto", *COLOURS)
    if "S" in header.axes:
        if "C" in header.axes:
            raise ImageError(f"it is a colour picture with an axis of channels besides ({shape_text(header)}).")
        if not plain:
            raise ImageError(
                f"it is a colour picture, without a channel {wanted!r}; --channel is one of {', '.join(COLOURS)}, auto."
            )
        return 0
    if header.length("C") == 1 and plain:
        return 0  # grey images in a folder with colour ones: there is nothing to choose
    if "C" not in header.axes and not header.channels:
        if wanted == "0":
            return 0
        raise ImageError(f"there is no channel {wanted!r}: the image has one channel, without a name. {if_only_one}")
    nm = [channel.wavelength for channel in header.channels] + [None] * header.length("C")
    return choose_channel(wanted, [ChannelInfo(name, nm[i]) for i, name in enumerate(channel_names(header))])


def choose_channel(wanted: str, channels: Sequence[ChannelInfo], aliases: Sequence[Sequence[str]] = ()) -> int:
    """The place of the channel that is meant, by the rules above; raises ImageError where that is none or several.

    aliases: other names that each channel goes by.
    """
    if wanted.lower() == "auto":
        return _automatic(channels)
    names = [[channel.name.lower()] for channel in channels]
    for own, others in zip(names, aliases, strict=False):
        own.extend(other.lower() for other in others)
    text = wanted.strip().lower()
    found = [i for i, own in enumerate(names) if text in own] or _numbered(text, channels)
    found = found or [i for i, own in enumerate(names) if text and any(text in name for name in own)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ImageError(f"--channel {wanted!r} means {len(found)} of its channels: {_listed(channels, found)}.")
    close = nearest(text, [name for own in names for name in own])
    meant = next((channels[i].name for i, own in enumerate(names) if close in own), None)
    hint = f" Did you mean {meant!r}?" if meant else ""
    raise ImageError(f"it has no channel {wanted!r}, but {_listed(channels)}.{hint}")


def is_dna_stain(name: str) -> bool:
    """Whether a channel's name says that DNA was stained, and so that it shows whole nuclei.

    True for names with DAPI, Hoechst, DRAQ5 or 7, SiR-DNA, NucBlue, Nuclight, TO-PRO, propidium iodide or H2B in them,
    and for those that are DNA, nuclei, nucleus or nuclear, and a number or the word stain or channel at most. Not for
    SYTO dyes, which also stain RNA, for proteins such as DNA-PK, for transmitted light, and for wavelengths.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    if not _TRANSMITTED.isdisjoint(words):
        return False
    if any(word.startswith(_DNA_WORDS) for word in words) or _DNA_PHRASE.search(" ".join(words)):
        return True
    others = [word for word in words if not _FILLER.fullmatch(word)]
    return bool(others) and set(others) <= _DNA_ALONE


def _automatic(channels: Sequence[ChannelInfo]) -> int:
    if len(channels) == 1:
        return 0
    stained = [i for i, channel in enumerate(channels) if is_dna_stain(channel.name)]
    if len(stained) == 1:
        return stained[0]
    why = "none is named as a stain of DNA is" if not stained else f"{len(stained)} are named as stains of DNA are"
    raise ImageError(f"it has channels {_listed(channels)}, and {why}; say with --channel which shows the nuclei.")


def _numbered(text: str, channels: Sequence[ChannelInfo]) -> list[int]:
    """Channels of that number, or else nearest to that wavelength."""
    if not re.fullmatch(r"\d+( ?nm)?", text):
        return []
    number = int(text.removesuffix("nm"))
    if number < len(channels) and not text.endswith("nm"):
        return [number]
    if number < WAVELENGTHS_FROM:
        return []
    away = {i: abs(channel.wavelength - number) for i, channel in enumerate(channels) if channel.wavelength is not None}
    nearest = min(away.values(), default=NEAR_NM + 1)
    return [i for i, distance in away.items() if distance == nearest <= NEAR_NM]


def _listed(channels: Sequence[ChannelInfo], places: Sequence[int] | None = None) -> str:
    """Channels for the user, such as `0 DAPI (461 nm), 1 GFP`."""
    places = range(len(channels)) if places is None else places
    parts = []
    for i in places[:SHOWN_CHANNELS]:
        name = f" {channels[i].name}" if channels[i].name != str(i) else ""
        nm = channels[i].wavelength
        parts.append(f"{i}{name}" + (f" ({nm:g} nm)" if nm is not None else ""))
    more = f", ... ({len(places)} in all)" if len(places) > SHOWN_CHANNELS else ""
    return ", ".join(parts) + more


def _places(axis: str, text: str | None, header: Header) -> tuple[int, int, int] | None:
    """Start, stop and step along an axis; None where the image has no such axis, and then only 0 may be asked for."""
    length = header.length(axis.upper())
    chosen = range(length) if text is None else chosen_places(axis, text, length)
    if axis.upper() not in header.axes:
        return None
    return chosen.start, chosen.stop, chosen.step


def chosen_places(axis: str, text: str, length: int) -> range:
    """Places along an axis of some length that `3`, `-1`, `0:10`, `:-2` or `0:10:2` means, as for a Python list.

    Raises SettingError for other text, and ImageError where nothing, or a single place beyond the end, is chosen.
    """
    if not re.fullmatch(r"-?\d+|(-?\d+)?:(-?\d+)?(:([1-9]\d*)?)?", text.strip()):
        also = " or max" if axis == "z" else ""
        raise SettingError(
            axis, f"must be an index such as 3, or a range such as 0:10 or 0:10:2{also}, but is {text!r}."
        )
    parts = [int(part) if part.strip() else None for part in text.split(":")]
    if len(parts) == 1:
        assert parts[0] is not None
        start = parts[0] + length if parts[0] < 0 else parts[0]
        chosen = range(start, start + 1) if 0 <= start < length else range(0)
    else:
        chosen = range(*slice(*parts).indices(length))
    if not chosen:
        raise ImageError(f"--{axis} {text} selects nothing: axis {axis} has length {length}, counted from 0.")
    return range(chosen.start, chosen.start + chosen.step * len(chosen), chosen.step)
