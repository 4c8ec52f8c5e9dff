"""What is segmented: images as their headers describe them, and their planes; and why one cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

FLOAT_BYTES = 4
"""Bytes of a pixel that was divided by a flat field."""


class PlaneStatus(StrEnum):
    """What became of a plane: column `status` of images.csv."""

    OK = "ok"
    """It has a mask."""
    FAILED = "failed"
    """It could not be segmented; failures.csv says why."""
    MISSING = "missing"
    """Not done yet."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image that can be segmented, as its header describes it."""

    key: str
    """Path relative to the input folder, with `/` and suffix: the image's name everywhere."""
    size: int
    """Bytes of the file; of a zarr group, of its metadata."""
    mtime_ns: int
    """Time of its last change, in nanoseconds: with the size it tells whether the file is still the planned one."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    channels: int
    """1 for grey, 3 for colour (RGB in one picture; separate channels are `names`)."""
    dtype: str
    """Type of its pixels, such as `uint16`."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres, where the file says so."""
    names: tuple[str, ...] = ()
    """Names of its separate channels, in order; empty where it has no channel axis."""
    nuclei: int = 0
    """Which of the channels shows the nuclei."""
    t: tuple[int, int, int] | None = None
    """Time points that are segmented, as start, stop and step of a range; None without such an axis."""
    z: tuple[int, int, int] | None = None
    """Depths likewise; None without such an axis, or where depths are projected."""
    projected: bool = False
    """Whether the maximum over all depths is taken for its plane."""
    files: tuple[str, ...] = ()
    """Keys of the files that hold its channels, one each, where a microscope wrote them apart."""
    group: str | None = None
    """Path of its group in a store whose structure the output keeps; None for an image that is a file."""
    levels: int = 1
    """Levels of its pyramid."""
    z_step: float | None = None
    """Distance of its z-slices in micrometres, where the file says so."""

    @property
    def plane_bytes(self) -> int:
        """Bytes of the decoded pixels of one of its planes, of all channels."""
        return self.height * self.width * self.channels * max(1, len(self.names)) * np.dtype(self.dtype).itemsize

    def held_bytes(self, *, corrected: bool) -> int:
        """Bytes that such a plane takes while it waits; corrected: whether there is a copy of it as float32, too."""
        pixels = self.plane_bytes // np.dtype(self.dtype).itemsize
        return self.plane_bytes + (pixels * FLOAT_BYTES if corrected else 0)

    @property
    def times(self) -> range:
        """Time points that are segmented; one where there is no such axis."""
        return range(*self.t) if self.t is not None else range(1)

    @property
    def depths(self) -> range:
        """Depths that are segmented; one where there is no such axis, or it is projected."""
        return range(*self.z) if self.z is not None else range(1)

    @property
    def axes(self) -> str:
        """The axes along which it has planes: some of `t` and `z`, in this order."""
        return ("t" if self.t is not None else "") + ("z" if self.z is not None else "")

    @property
    def plane_count(self) -> int:
        """Planes that are segmented."""
        return len(self.times) * len(self.depths)


class KnownImages(Sequence[ImageInfo]):
    """Images of which more is known than their records, each of which would have to be looked at to find it out."""

    channel_names: tuple[str, ...]
    """Names of the separate channels of all of them, each once, in the order in which images have them."""
    pixel_sizes: frozenset[float | None]
    """Their widths of a pixel."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of an image: what a mask and a row of images.csv are for."""

    image: ImageInfo
    """The image."""
    t: int | None = None
    """Its time point, as the image counts them; None without such an axis."""
    z: int | None = None
    """Its depth likewise."""

    @property
    def name(self) -> str:
        """What to call it in a line for the user."""
        places = [f"{axis}={place}" for axis, place in (("t", self.t), ("z", self.z)) if place is not None]
        return f"{self.image.key} ({', '.join(places)})" if places else self.image.key


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one image has no mask."""

    image: str
    """Key of the image."""
    stage: str
    """`plan`, `read`, `segment` or `measure`."""
    error: str
    """Class of the error."""
    message: str
    """One line for the user."""
