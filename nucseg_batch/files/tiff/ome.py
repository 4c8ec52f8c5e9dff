"""The planes of an OME-TIFF, which can lie in several files: what its OME-XML says, held against what is there.

The file that is named stands for the whole set. Which of the document's images is meant is told by whose planes the
named file holds. All that is said must be there: planes and files that are missing are refused, never filled up.
Other files of a set are opened when one of their planes is read.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from nucseg_batch.errors import ImageError
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.file import OpenTiff
from nucseg_batch.files.tiff.layout import SLIDE_EXTRAS, PlaneLayout
from nucseg_batch.files.tiff.ome_xml import MAX_XML, Ome, OmeImage, PlaneData, looks_like_ome, parse_ome
from nucseg_batch.files.tiff.pixels import TiffFrame

MAX_PLANES = 2**22
"""Planes of one image above which its OME-XML is not believed."""
Place = tuple[Path, int]
"""A file and the number of a page in it."""


def lay_out_ome(tiff: OpenTiff) -> PlaneLayout:
    """The image of an OME-TIFF; raises ImageError where its OME-XML does not fit what is there."""
    own = parse_ome(tiff.description)
    ome = own if own.metadata_file is None else _companion(tiff.path, own)
    names = _Names(tiff, own, ome)
    image = _image_of(ome, names)
    samples = max(1, int(tiff.first.samplesperpixel))
    together = samples > 1 and image.sizes["C"] % samples == 0
    sizes = {**image.sizes, "C": image.sizes["C"] // samples if together else image.sizes["C"]}
    order = [axis for axis in reversed(image.order) if axis in "TCZ"]
    strides = {axis: math.prod(sizes[later] for later in order[place + 1 :]) for place, axis in enumerate(order)}
    places = _places(image, sizes, strides, names)
    _check_all_there(tiff, places)
    frames = _Frames(tiff, places)
    key = frames.key
    if (sizes["Y"], sizes["X"]) != (key.imagelength, key.imagewidth) or key.imagedepth > 1:
        raise ImageError(
            f"its OME-XML says {sizes['Y']} x {sizes['X']} pixels, but its pages have "
            f"{key.imagelength} x {key.imagewidth}."
        )
    apart = together and sizes["C"] == 1 and max(image.samples, default=1) == 1
    lengths = {axis: sizes[axis] for axis in "TCZ" if sizes[axis] > 1}
    return PlaneLayout(
        key,
        {**lengths, "C": samples} if apart else lengths,
        {axis: strides[axis] for axis in lengths},
        frames.__getitem__,
        len(places),
        apart=apart,
        levels=1 + len(key.subifds or ()),
        kind="ome",
        parts=_parts(places),
        part_channels=_part_channels(places, strides["C"], sizes["C"]),
        channels=_channels(image, samples if apart else sizes["C"]),
        pixel_size=image.pixel_size,
        z_step=image.z_step,
    )


def files_of_set(path: Path) -> tuple[Path, ...]:
    """All files of the image that a TIFF is part of, sorted, as its OME-XML names them; empty where it is the only one.

    They need not be there. Also empty for what is no OME-TIFF, and where its OME-XML cannot be understood.
    """
    try:
        with OpenTiff(path) as tiff:
            if not looks_like_ome(tiff.description):
                return ()
            own = parse_ome(tiff.description)
            ome = own if own.metadata_file is None else _companion(tiff.path, own)
            names = _Names(tiff, own, ome)
            files = {names(data) for data in _image_of(ome, names).planes}
    except Exception:  # decoders raise their own classes; who opens the file to read it is told what is wrong
        return ()
    return tuple(sorted(files)) if len(files) > 1 else ()


def first_file(path: Path) -> Path:
    """The file that holds the first plane that a companion file describes; raises ImageError without one."""
    with open(path, "rb") as file:
        ome = parse_ome(file.read(MAX_XML + 1).decode("utf-8-sig", "replace"))
    names = [data.file for image in ome.images for data in image.planes if data.file]
    if not names:
        raise ImageError("this OME-XML names no TIFF that holds its pixels.")
    return _beside(path, names[0])


class _Names:
    """Which file each name and UUID of an OME-XML document stands for."""

    def __init__(self, tiff: OpenTiff, own: Ome, ome: Ome) -> None:
        self.path = tiff.path
        self.uuid = own.uuid
        self._pages = len(tiff.pages)
        said = {(data.file, data.uuid) for image in ome.images for data in image.planes}
        renamed = own is ome and len(said) == 1  # all is in one file, so it is this one, whatever it was called before
        self.only = said.pop() if renamed else None

    def __call__(self, data: PlaneData) -> Path:
        """The file of some planes, which need not be there."""
        said = (data.file, data.uuid)
        if said in ((None, None), self.only) or (data.uuid is not None and data.uuid == self.uuid):
            return self.path
        return _beside(self.path, data.file) if data.file else self.path

    def pages(self, path: Path) -> int:
        """How many pages one of the files has; none where it is not there."""
        if path == self.path:
            return self._pages
        if not path.is_file():
            return 0
        with OpenTiff(path) as tiff:
            return len(tiff.pages)


def _beside(path: Path, name: str) -> Path:
    """A file of a set lies in the folder of the others, whatever path was written into it."""
    return path.with_name(PurePosixPath(name.replace("\\", "/")).name or "_")


def _companion(path: Path, own: Ome) -> Ome:
    """The document that one that says only where the rest is points to."""
    other = _beside(path, own.metadata_file or "")
    try:
        if other.stat().st_size <= 16 or not other.is_file():
            raise ImageError(f"its OME-XML is in {other.name}, which is empty.")
        with open(other, "rb") as file:
            start = file.read(16)
            text = start + file.read(MAX_XML) if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") else None
    except OSError as error:
        raise ImageError(f"its OME-XML is in {other.name}, which is not beside it; put it there.") from error
    if text is not None:
        ome = parse_ome(text.decode("utf-8-sig", "replace"))
    else:
        with OpenTiff(other) as tiff:
            ome = parse_ome(tiff.description)
    if ome.metadata_file is not None:
        raise ImageError(f"its OME-XML is in {other.name}, which only points on to {ome.metadata_file}.")
    return ome


def _image_of(ome: Ome, names: _Names) -> OmeImage:
    """The one image whose planes the named file holds."""
    here = [
        image for image in ome.images if not image.planes or any(names(data) == names.path for data in image.planes)
    ]
    here = [image for image in here if image.name.lower() not in SLIDE_EXTRAS] or here
    if not ome.images:
        raise ImageError("its OME-XML describes no image with pixels; save it again.")
    if not here:
        raise ImageError("its OME-XML describes other files and not this one, which may have been renamed.")
    if len(here) > 1:
        text = ", ".join(repr(image.name) for image in here[:4])
        raise ImageError(f"it holds {len(here)} separate images ({text}); save the one to segment as a separate file.")
    return here[0]


def _places(image: OmeImage, sizes: dict[str, int], strides: dict[str, int], names: _Names) -> dict[int, Place]:
    """Where each plane is, by its number; raises ImageError unless every plane is said to be in one place."""
    total = math.prod(sizes[axis] for axis in "TCZ")
    if total > MAX_PLANES:
        raise ImageError(f"its OME-XML describes {total} planes, more than the {MAX_PLANES} that are read.")
    places: dict[int, Place] = {}
    for data in image.planes or (PlaneData(dict.fromkeys("TCZ", 0), None, None, None, None),):
        if any(data.first[axis] >= sizes[axis] for axis in "TCZ"):
            if sizes["C"] <= data.first["C"] < image.sizes["C"]:
                continue  # further samples of a page that is already known
            raise ImageError(f"its OME-XML places a plane at {data.first}, beyond its sizes.")
        start = sum(data.first[axis] * strides[axis] for axis in "TCZ")
        for number, place in _run(data, start, total, names):
            if places.setdefault(number, place) != place:
                raise ImageError(f"its OME-XML gives two different places for plane {number}.")
    if len(places) < total:
        raise ImageError(f"its OME-XML describes {total} planes, of which {total - len(places)} are stored nowhere.")
    return places


def _run(data: PlaneData, start: int, total: int, names: _Names) -> Iterator[tuple[int, Place]]:
    """The planes of one TiffData, by number, with their places."""
    path, first = names(data), data.ifd or 0
    count = data.count or (1 if data.ifd is not None else None)
    if count is None:
        count = max(0, names.pages(path) - first)
    for step in range(min(count, total - start)):
        yield start + step, (path, first + step)


def _parts(places: dict[int, Place]) -> tuple[Path, ...]:
    files = {path for path, _ in places.values()}
    return tuple(sorted(files)) if len(files) > 1 else ()


def _part_channels(places: dict[int, Place], stride: int, count: int) -> dict[Path, frozenset[int]]:
    found: dict[Path, set[int]] = defaultdict(set)
    for number, (path, _) in places.items():
        found[path].add(number // stride % count)
    return {path: frozenset(channels) for path, channels in found.items()}


def _check_all_there(tiff: OpenTiff, places: dict[int, Place]) -> None:
    """Raises ImageError where files or pages are missing, or where pages of this file are left over."""
    files = {path for path, _ in places.values()}
    if missing := sorted(path.name for path in files if not path.is_file()):
        raise ImageError(
            f"it is part of a set of {len(files)} files, of which {len(missing)} are not beside it "
            f"({', '.join(missing[:2])}{', ...' if len(missing) > 2 else ''})."
        )
    own = {ifd for path, ifd in places.values() if path == tiff.path}
    if max(own) >= len(tiff.pages):
        raise ImageError(f"its OME-XML describes page {max(own)}, but it has {len(tiff.pages)} pages: it was cut.")
    like = tiff.pages[min(own)]
    left = [
        number
        for number, page in enumerate(tiff.pages)
        if number not in own and not page.reduced and (page.height, page.width) == (like.height, like.width)
    ]
    if left:
        raise ImageError(
            f"its OME-XML describes {len(own)} of its pages, but not page {left[0]}, which is of the same size."
        )


class _Frames:
    """The frames of planes by number: those of the named file at once, those of others when they are asked for."""

    def __init__(self, tiff: OpenTiff, places: dict[int, Place]) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._found: dict[Place, TiffFrame] = {}
        own = sorted({place for place in places.values() if place[0] == tiff.path})
        self.key = tiff.frame(own[0][1]).key
        self._load(tiff, own)

    def __getitem__(self, number: int) -> TiffFrame:
        """The frame of a plane; raises ImageError where its file is not as its OME-XML says."""
        place = self._places[number]
        with self._lock:
            if place not in self._found:
                with OpenTiff(place[0]) as tiff:
                    self._load(tiff, sorted({other for other in self._places.values() if other[0] == place[0]}))
            return self._found[place]

    def _load(self, tiff: OpenTiff, places: list[Place]) -> None:
        for place in places:
            frame = tiff.frame(place[1])
            if _look(frame.key) != _look(self.key):
                raise ImageError(f"page {place[1]} of {tiff.path.name} differs from the others in size or type.")
            self._found[place] = frame


def _look(key: Any) -> tuple[Any, ...]:
    """What pages of one image share."""
    return key.shaped, key.dtype, key.photometric, key.samplesperpixel, key.bitspersample, key.extrasamples


def _channels(image: OmeImage, count: int) -> tuple[ChannelInfo, ...]:
    """The channels as they are named; numbers where the names do not fit them."""
    if len(image.channels) == count:
        return image.channels
    return tuple(ChannelInfo(str(number)) for number in range(count))
