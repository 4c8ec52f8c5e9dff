"""Images that were found, as arrays (t, c, z, y, x) that are read by windows with the readers of a run."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.opened import ImageReader
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.plan import ImageInfo, LabelArray, Plane
from nucseg_batch.settings import SegmentSettings

READERS = 8
"""Collections of which a process keeps images open."""


class ImageArray:
    """An image as an array with axes t, c, z, y and x, each of length 1 where the image has no such axis.

    Nothing is read before it is indexed, with integers and slices. Only the window that these span is read, for all
    channels of it. The three samples of a colour lie along c. Can be sent to other processes that see the same files.
    """

    ndim = 5

    def __init__(
        self,
        root: str,
        info: ImageInfo,
        settings: SegmentSettings,
        channels: tuple[ChannelInfo, ...] = (),
        chunk: tuple[int, int] | None = None,
    ) -> None:
        self._root, self._info, self._settings = root, info, settings
        self.channels = channels
        """What is known of the channels; empty for grey and colour images."""
        self.chunk = chunk
        """Height and width of the pieces in which a plane is stored; None where it is stored as a whole."""
        self.axes = "tszyx" if info.channels == 3 else "tczyx"
        """Letters of the axes; s stands for the samples of a colour."""
        count = max(info.channels, len(info.names))
        self.shape = (len(info.times), count, len(info.depths), info.height, info.width)
        """Lengths of the axes."""
        self.dtype = np.dtype(info.dtype)
        """As pixels are read: bool comes as uint8 of 0 and 255, floats come as float32."""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Lengths of the blocks in which a run reads it: whole planes, or regions of a large one."""
        info = self._info
        grid = LabelArray(info.height, info.width, (info,), self._settings.region).grid
        return 1, self.shape[1], 1, *grid.shard[-2:]

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """A part of the image; raises ImageError where it cannot be read, and IndexError where there is no such part.

        where: integers, slices and an ellipsis, as for a numpy array.
        """
        index = _complete(where if isinstance(where, tuple) else (where,), len(self.shape))
        ranges = [
            range(length)[one] if isinstance(one, slice) else range(length)[one : one + 1 or None]
            for one, length in zip(index, self.shape, strict=True)
        ]
        for one, found, length in zip(index, ranges, self.shape, strict=True):
            if not isinstance(one, slice) and not len(found):
                raise IndexError(f"the index {one} lies outside of an axis of length {length}.")
        times, channels, depths, rows, columns = ranges
        part = np.empty([len(one) for one in ranges], self.dtype)
        if part.size:
            for i, t in enumerate(times):
                for k, z in enumerate(depths):
                    part[i, :, k] = self._plane(t, z, rows, columns)[list(channels)]
        return part[tuple(slice(None) if isinstance(one, slice) else 0 for one in index)]

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """What its pixels depend on, for names of dask arrays; a changed file has another time."""
        return "nucseg_batch.ImageArray", self._root, repr(self._info), self._settings.axes, self._settings.region

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All of it."""
        return self[...].astype(dtype or self.dtype, copy=False)

    def _plane(self, t: int, z: int, rows: range, columns: range) -> NDArray[Any]:
        """Some rows and columns of a plane, (c, h, w)."""
        info = self._info
        plane = Plane(info, t if info.t is not None else None, z if info.z is not None else None)
        window = slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1)
        pixels = _reader(self._root, self._settings).read(plane, *window)
        if info.channels == 3:
            pixels = np.moveaxis(pixels, -1, 0)
        elif pixels.ndim == 2:
            pixels = pixels[None]
        return pixels[:, np.array(rows)[:, None] - window[0].start, np.array(columns) - window[1].start]


@lru_cache(maxsize=READERS)
def _reader(root: str, settings: SegmentSettings) -> ImageReader:
    """The reader of a collection in this process."""
    return ImageReader(root, settings)


def _complete(where: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """An index with an entry for each of so many axes; raises IndexError for what is none."""
    place = next((i for i, one in enumerate(where) if one is Ellipsis), len(where))
    before, after = where[:place], where[place + 1 :]
    good = len(before) + len(after) <= count and all(
        isinstance(one, slice | int | np.integer) and not isinstance(one, bool) for one in before + after
    )
    if not good:
        raise IndexError(f"an image of {count} axes is indexed with integers and slices, not with {where!r}.")
    return (*before, *[slice(None)] * (count - len(before) - len(after)), *after)
