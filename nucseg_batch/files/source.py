"""What every kind of input looks like to the rest of the program: a header, and pixels by plane and window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.plan import Assumption

AXES = "TCZYX"
"""Letters of the axes that an image can have, S for the samples of a colour apart."""


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """What is known of one channel of axis C."""

    name: str
    """As the file names it; `0`, `1`, ... where it has no name."""
    wavelength: float | None = None
    """Of its emission, else its excitation, in nanometres; None where it is not known."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an image says of itself before any pixel is read."""

    axes: str
    """Letters of `shape`: each of TCZYX at most once, Y and X always, and S last where it is a colour picture."""
    shape: tuple[int, ...]
    """Lengths of the axes; S is always 3: palettes are looked up and alpha is dropped."""
    dtype: str
    """Of the pixels as `read` returns them: bool comes as uint8 of 0 and 255, floats come as float32."""
    size: int
    """Bytes of the file; of a zarr array or group, of its metadata."""
    mtime_ns: int
    """Time of its last change in nanoseconds; 0 where there is none, as for what lies behind a URL."""
    channels: tuple[ChannelInfo, ...] = ()
    """Of axis C, in order; empty without one."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres, where it is known."""
    z_step: float | None = None
    """Distance of its z-slices in micrometres, where it is known."""
    levels: int = 1
    """Levels of its pyramid, the full resolution included."""
    chunk: tuple[int, int] | None = None
    """Height and width of the pieces in which a plane is stored, where a window can be read without the rest."""
    stored_bytes: int | None = None
    """Bytes on disk of all its pixels, where that is known without reading them."""
    assumptions: tuple[Assumption, ...] = ()
    """What its reader assumed, without `images` and `example`."""
    unused_axes: bool = False
    """Whether axes were given, and others are known."""

    def length(self, axis: str) -> int:
        """Length of an axis; 1 where it has none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def bytes(self) -> int:
        """Size of all decoded pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class Source(Protocol):
    """An image that is open for reading. Threads may read at once."""

    @property
    def header(self) -> Header:
        """What it said of itself when it was opened."""
        ...

    def read(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """A window of one plane: (h, w) grey, (h, w, 3) colour, or (c, h, w) where it has axis C.

        t, z: places along these axes, 0 where it has none. rows, columns: within the plane, step 1. Raises ImageError,
        whose text says what is wrong, for pixels that cannot be decoded or are missing.
        """
        ...

    def close(self) -> None:
        """Lets go of files; reading again afterwards is not allowed."""
        ...
