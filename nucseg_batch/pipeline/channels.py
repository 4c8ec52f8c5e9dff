"""What the network is shown of an image's channels, and which intensities are measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.colours import ColourSample, SingleColour, one_colour
from nucseg_batch.arrays.normalize import luminance
from nucseg_batch.arrays.sampling import sample_windows
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.plan import ImageInfo, Plane
from nucseg_batch.settings import SegmentSettings

COLOURS = {"red": 0, "green": 1, "blue": 2}
GREY, ALL = "grey", "rgb"
"""Values of `channel` for the luminance of a colour picture, and for all its three colours whatever they hold."""
MOST_WINDOWS = 64
"""Windows of a large plane that are read to see whether one of its colours is enough."""
Read = Callable[[slice, slice], NDArray[Any]]
"""Gives a window of a plane, rows and columns, as `Source.read` returns it."""


@dataclass(frozen=True)
class NetworkInput:
    """A plane, or a window of one, ready for the network and for measuring."""

    pixels: NDArray[Any]
    """What the network sees: (h, w) or (h, w, 3) of uint8, uint16 or float32."""
    intensity: NDArray[Any]
    """(h, w): what `intensity_mean` and the like are of."""
    channels: dict[str, NDArray[Any]] = field(default_factory=dict)
    """(h, w) each: the separate channels by name; none for grey and colour pictures."""
    recorded: NDArray[Any] | None = None
    """(h, w): `intensity` as the camera recorded it, where a flat field changed it."""


def is_open(info: ImageInfo, channel: str) -> bool:
    """Whether what the network is shown of an image depends on its pixels: a colour picture of which nothing is said.

    channel: `settings.channel`.
    """
    return info.channels == 3 and channel.lower() not in (*COLOURS, GREY, ALL)


def resolve_channel(images: ImageReader, plane: Plane, settings: SegmentSettings) -> str:
    """`settings.channel`, or the colour that takes its place for a plane that holds one colour only, such as `blue`.

    It is found from the whole plane, or of one that is done by regions from windows spread over it, so that all parts
    of a plane are treated alike, by every process. Raises ImageError where the pixels cannot be read.
    """
    info = plane.image
    if not is_open(info, settings.channel):
        return settings.channel
    return named(only_colour(images, plane, settings))


def only_colour(images: ImageReader, plane: Plane, settings: SegmentSettings) -> SingleColour | None:
    """The only informative colour of a plane of a colour picture; see `resolve_channel`."""
    with images.opened(plane.image) as source:
        chunk = source.header.chunk
    return colour_of(plane.image, lambda rows, columns: images.read(plane, rows, columns), settings.region, chunk)


def colour_of(info: ImageInfo, read: Read, region: int, chunk: tuple[int, int] | None = None) -> SingleColour | None:
    """The same of pixels from anywhere; chunk: the pieces in which they are stored."""
    shape = (info.height, info.width)
    if info.height * info.width <= region**2:
        return one_colour(read(slice(0, info.height), slice(0, info.width)))
    windows = sample_windows(shape, chunk)
    chosen = np.unique(np.linspace(0, len(windows) - 1, MOST_WINDOWS).round().astype(int))
    spread = [windows[number] for number in chosen]
    sample = ColourSample(sum((r.stop - r.start) * (c.stop - c.start) for r, c in spread))
    for rows, columns in spread:
        sample.add(read(rows, columns))
    return sample.decided()


def resolve_channel_of_pixels(pixels: NDArray[Any], info: ImageInfo, channel: str) -> str:
    """The same as `resolve_channel` where all pixels of the plane are at hand."""
    return named(one_colour(pixels)) if is_open(info, channel) else channel


def read_channels(
    images: ImageReader, plane: Plane, channel: str, rows: slice | None = None, columns: slice | None = None
) -> NetworkInput:
    """What is shown and measured of a plane or of a window of it, corrected by the flat fields of the run."""
    return corrected_channels(images, images.read(plane, rows, columns), plane.image, channel, rows, columns)


def corrected_channels(
    images: ImageReader,
    pixels: NDArray[Any],
    info: ImageInfo,
    channel: str,
    rows: slice | None = None,
    columns: slice | None = None,
) -> NetworkInput:
    """The same of pixels that were read from this window; all of a plane where there is none."""
    corrected = images.corrected(pixels, info, rows, columns)
    shown = select_channels(corrected, info, channel)
    return shown if corrected is pixels else replace(shown, recorded=select_channels(pixels, info, channel).intensity)


def select_channels(pixels: NDArray[Any], info: ImageInfo, channel: str) -> NetworkInput:
    """What is shown and measured of pixels as `Source.read` returns them; channel: as `resolve_channel` has it.

    Of separate channels the network sees that of the nuclei, and all are measured. Of a colour picture it sees all
    three unless `channel` is one of them or `grey`; what it is shown is measured, and of all three the luminance.
    """
    if info.names:
        planes = dict(zip(info.names, pixels, strict=True))
        nuclei = pixels[info.nuclei]
        return NetworkInput(_shown(nuclei), nuclei, planes)
    channel = channel.lower()
    if pixels.ndim == 3 and channel in COLOURS:
        pixels = np.ascontiguousarray(pixels[..., COLOURS[channel]])
    intensity = luminance(pixels) if pixels.ndim == 3 else pixels
    return NetworkInput(_shown(intensity if channel == GREY else pixels), intensity)


def network_channel_count(info: ImageInfo, channel: str) -> int:
    """How many channels the network is shown of an image, 1 or 3, which is what its scale depends on.

    channel: as `resolve_channel` has it; for `auto`, 3 stands for every colour picture.
    """
    return 3 if info.channels == 3 and channel.lower() not in (*COLOURS, GREY) else 1


def named(found: SingleColour | None) -> str:
    """What `channel` would be set to for it: a colour, or all three."""
    return ALL if found is None else list(COLOURS)[found.channel]


def _shown(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32)
