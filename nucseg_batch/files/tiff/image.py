"""A TIFF of any kind as an image with axes: what its header promises, and windows of its planes.

A TIFF can hold nearly anything. `chain` walks its pages, `layout` and `ome` find the image among them,
`colours` says what its samples mean and `pixels` decodes them; here they meet. What means something else than
light, or is not all there, is refused in words, because a part of it read in silence would look like success.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError
from nucseg_batch.files.pixel_size import tiff_pixel_size, tiff_z_step
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.axes import is_narrow, narrow_claim
from nucseg_batch.files.tiff.colours import Samples, samples_of
from nucseg_batch.files.tiff.file import OpenTiff
from nucseg_batch.files.tiff.layout import PlaneLayout, lay_out
from nucseg_batch.files.tiff.names import channel_names
from nucseg_batch.files.tiff.noted import KnownHeaders
from nucseg_batch.files.tiff.ome import lay_out_ome
from nucseg_batch.files.tiff.ome_xml import looks_like_ome
from nucseg_batch.files.tiff.orientation import turned
from nucseg_batch.files.tiff.pixels import decoded_at_once, read_window
from nucseg_batch.plan import Assumption

_ALIKE = frozenset({"generic", "uniform", "shaped", "imagej"})
"""Kinds of TIFF of which all is said by the file itself, none of it by its name or by files beside it."""
_KNOWN = KnownHeaders()


@dataclass(frozen=True)
class _Head:
    """What was parsed of a file."""

    layout: PlaneLayout
    samples: Samples
    channels: tuple[ChannelInfo, ...]
    pixel_size: float | None
    z_step: float | None
    assumptions: tuple[Assumption, ...]

    def of(self, path: Path) -> _Head:
        """The same of another file whose header has the same bytes."""
        frame = self.layout.frame
        return replace(self, layout=replace(self.layout, frame=lambda number: replace(frame(number), path=path)))


class TiffImage:
    """The image of a TIFF. Threads may read at once; its files are open only while they are read."""

    def __init__(self, path: Path, axes: str | None = None) -> None:
        """Reads the header; axes: of a file that does not say them, such as `YXC`.

        Raises ImageError, or what tifffile raises, for what cannot or should not be read.
        """
        status, head = _head_of(path, axes)
        self._layout, self._samples = head.layout, head.samples
        self.channels, self.pixel_size, self.z_step = head.channels, head.pixel_size, head.z_step
        self._known = {path: (status.st_size, status.st_mtime_ns)}
        self.assumptions = head.assumptions
        self.unused_axes = self._layout.unused_axes
        self._lock = threading.Lock()

    @property
    def lengths(self) -> dict[str, int]:
        """Of those of the axes T, Z, C, Y, X and S that it has, in this order."""
        if self._layout.permuted is not None:
            return dict(self._layout.permuted.lengths)
        key, places = self._layout.key, self._layout.lengths
        stacked = {axis: places[axis] for axis in "TZC" if axis in places}
        colour = {"S": 3} if self._samples.kind == "colour" else {}
        return {**stacked, "Y": int(key.imagelength), "X": int(key.imagewidth), **colour}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels as `window` gives them."""
        return self._samples.dtype

    @property
    def levels(self) -> int:
        """Levels of its pyramid."""
        return self._layout.levels

    @property
    def parts(self) -> tuple[Path, ...]:
        """All files of the set that it is part of, sorted; empty where it is the whole image."""
        return self._layout.parts

    @property
    def part_channels(self) -> Mapping[Path, frozenset[int]]:
        """Of a set, the places along axis C of which each of its files holds planes."""
        return self._layout.part_channels

    @property
    def piece(self) -> tuple[int, int]:
        """Height and width of what must be decoded for one pixel; a corrupt file's may reach far beyond the plane."""
        if self._layout.permuted is not None:
            return self._layout.permuted.plane
        return decoded_at_once(self._layout.key)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all its pixels in the file; of a set, bytes of all its files."""
        if self.parts:
            return sum(path.stat().st_size for path in self.parts)
        return sum(self._layout.frame(number).stored for number in range(self._layout.frames))

    def window(self, t: int, z: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Pixels of a part of a plane, as `Source.read` lays them out, in the file's own type."""
        layout, samples = self._layout, self._samples
        at = {"T": t, "Z": z}
        if layout.permuted is not None:
            with _Files(self) as files:
                pixels = layout.permuted.window(
                    layout.key, layout.frame, lambda frame: files.descriptor(frame.path), at, rows, columns
                )
            return samples.inverted(pixels)
        depth = next((at[axis] for axis in "TZ" if axis in layout.lengths and axis not in layout.strides), 0)
        base = sum(place * layout.strides.get(axis, 0) for axis, place in at.items())
        stride = layout.strides.get("C")
        places = [base] if stride is None else [base + stride * c for c in range(layout.lengths["C"])]
        with _Files(self) as files:
            planes = [
                samples.apply(
                    read_window(
                        files.descriptor(frame.path),
                        frame,
                        depth=depth,
                        samples=samples.count,
                        rows=rows,
                        columns=columns,
                    )
                )
                for frame in map(layout.frame, places)
            ]
        return planes[0] if stride is None else np.stack(planes)

    def check_unchanged(self, path: Path, status: os.stat_result) -> None:
        """Raises ImageError where one of its files is not what it was when it was first opened."""
        found = (status.st_size, status.st_mtime_ns)
        with self._lock:
            if self._known.setdefault(path, found) != found or not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path.name} was changed while it was read; run the same command again.")


class _Files:
    """Files that are open during one read."""

    def __init__(self, image: TiffImage) -> None:
        self._image = image
        self._open: dict[Path, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def descriptor(self, path: Path) -> int:
        """The open file of a path."""
        if path not in self._open:
            fd = os.open(path, os.O_RDONLY)
            self._stack.callback(os.close, fd)
            self._image.check_unchanged(path, os.fstat(fd))
            self._open[path] = fd
        return self._open[path]


def _head_of(path: Path, axes: str | None) -> tuple[os.stat_result, _Head]:
    """State and header of a file, parsed unless one with the same header was."""
    look = _KNOWN.is_worth_looking()
    known = _KNOWN.find(path, axes) if look else None
    if known is not None:
        return known[0], known[1].of(path)
    with OpenTiff(path, noting=look) as tiff:
        ome = looks_like_ome(tiff.description)
        layout = _lay_out_ome(tiff, axes) if ome else lay_out(tiff, axes)
        told = ome and layout.kind == "ome" and layout.permuted is None
        samples = _samples(layout)
        if samples.kind == "channels" and layout.permuted is None:
            layout.lengths["C"] = samples.count
        count = layout.lengths.get("C", 1)
        head = _Head(
            layout,
            samples,
            _told(layout.channels, count) if told else channel_names(tiff.file, layout, count),
            layout.pixel_size if told else tiff_pixel_size(tiff.file, layout.kind),
            layout.z_step if told else tiff_z_step(tiff.file, layout.kind),
            (*layout.assumptions, *samples.assumptions, *turned(layout.key)),
        )
        noted = tiff.noted
    if noted is not None and not ome and layout.kind in _ALIKE and not layout.parts:
        _KNOWN.note(path, tiff.size, noted, head, axes)
    return tiff.status, head


def _samples(layout: PlaneLayout) -> Samples:
    channelled = "C" in layout.strides
    planes = layout.frames
    apart = layout.apart or layout.permuted is not None
    return samples_of(layout.key, apart=apart, channelled=channelled, planes=planes, measured=layout.kind == "imagej")


def _lay_out_ome(tiff: OpenTiff, given: str | None) -> PlaneLayout:
    """The image of an OME-TIFF; by the axes that are given where those of its OME-XML are not plausible."""
    layout = lay_out_ome(tiff)
    sizes = {**layout.lengths, "Y": int(layout.key.imagelength), "X": int(layout.key.imagewidth)}
    letters, shape = "".join(sizes), tuple(sizes.values())
    if is_narrow(letters, shape):
        if given is not None:
            return lay_out(tiff, given)
        return replace(layout, assumptions=(narrow_claim(letters, shape),))
    unused = given is not None and sorted(given.upper()) != sorted(letters)
    return replace(layout, unused_axes=unused)


def _told(channels: tuple[ChannelInfo, ...], count: int) -> tuple[ChannelInfo, ...]:
    """The channels of OME-XML; none where there is one of which nothing is said."""
    if count == 1 and (not channels or channels[0] == ChannelInfo("0")):
        return ()
    return channels if len(channels) == count else tuple(ChannelInfo(str(number)) for number in range(count))
