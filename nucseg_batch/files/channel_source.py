"""Files that hold the channels of one image, read as one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.source import AXES, ChannelInfo, Header, Source


class ChannelFiles:
    """An image whose channels are files of their own, as one `Source` with axis C."""

    def __init__(self, sources: Sequence[Source], channels: Sequence[ChannelInfo] = ()) -> None:
        """Takes opened files, one a channel, and what is known of these; ImageError where they do not go together."""
        self._sources = tuple(sources)
        channels = channels or [ChannelInfo(str(number)) for number in range(len(self._sources))]
        self._header = _joint_header([source.header for source in sources], channels)

    @property
    def header(self) -> Header:
        """That of the first file, with axis C, all files' sizes added, and the latest of their times."""
        return self._header

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane of all channels, (c, h, w), in a type that holds the values of each.

        Raises ImageError where a file cannot be read, and names its channel.
        """
        planes = []
        for source, channel in zip(self._sources, self._header.channels, strict=True):
            try:
                plane = source.read(t, z, rows, columns)
            except ImageError as error:
                raise ImageError(f"the file of its channel {channel.name}: {error}") from error
            planes.append(plane[0] if plane.ndim == 3 else plane)
        return np.stack([plane.astype(self._header.dtype, copy=False) for plane in planes])

    def close(self) -> None:
        """Closes all files."""
        for source in self._sources:
            source.close()


def _joint_header(headers: Sequence[Header], channels: Sequence[ChannelInfo]) -> Header:
    first = headers[0]
    for header, channel in zip(headers, channels, strict=True):
        if "S" in header.axes or header.length("C") > 1:
            raise ImageError(f"the file of its channel {channel.name} holds colours or channels of its own.")
        for axis in "TZYX":
            if header.length(axis) != first.length(axis):
                raise ImageError(
                    f"the files of its channels differ: {axis} is {first.length(axis)} in {channels[0].name}, but "
                    f"{header.length(axis)} in {channel.name}."
                )
    axes = "".join(axis for axis in AXES if axis in first.axes or axis == "C")
    lengths = {axis: first.length(axis) for axis in axes} | {"C": len(headers)}
    return Header(
        axes=axes,
        shape=tuple(lengths[axis] for axis in axes),
        dtype=np.result_type(*(header.dtype for header in headers)).name,
        size=sum(header.size for header in headers),
        mtime_ns=max(header.mtime_ns for header in headers),
        channels=tuple(channels),
        pixel_size=next((header.pixel_size for header in headers if header.pixel_size is not None), None),
        z_step=next((header.z_step for header in headers if header.z_step is not None), None),
        chunk=first.chunk if all(header.chunk == first.chunk for header in headers) else None,
        assumptions=first.assumptions,
        unused_axes=any(header.unused_axes for header in headers),
    )
