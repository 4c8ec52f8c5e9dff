"""Which pages of a TIFF are the image, and which plane of it each of them is.

Most kinds of TIFF are told apart and put in order by tifffile. What it makes of a file is checked here: that there is
one image besides its thumbnails and smaller copies, that each of its axes is known, and that all its planes are there.
OME-TIFF has its own file, `ome`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nucseg_batch.errors import ImageError
from nucseg_batch.files.source import ChannelInfo
from nucseg_batch.files.tiff.axes import UnknownAxesError, choose_axes
from nucseg_batch.files.tiff.file import OpenTiff
from nucseg_batch.files.tiff.permuted import AxisOrder
from nucseg_batch.files.tiff.pixels import TiffFrame, calibration_of, is_plain, run_of
from nucseg_batch.plan import Assumption

SLIDE_EXTRAS = frozenset({"thumbnail", "label", "macro", "map", "overview", "label image", "macro image"})
"""Names of the pictures that come with a slide."""
_STACK_AXES = "TZC"
_CLAIMS = {"shaped": "tifffile", "imagej": "ImageJ", "lsm": "LSM", "stk": "STK"}
"""Kinds of TIFF that say how many planes they hold."""
_RUNS = frozenset({"imagej", "shaped", "stk"})
"""Kinds of TIFF of which one page can stand for many planes that follow each other."""


@dataclass(frozen=True, eq=False)
class PlaneLayout:
    """Where each plane of an image is."""

    key: Any
    """A tifffile.TiffPage that all planes are like."""
    lengths: dict[str, int]
    """Of the axes T, Z and C that it has, without those of one place."""
    strides: dict[str, int]
    """How many frames lie between neighbours along each of these axes; no entry for axes within a page."""
    frame: Callable[[int], TiffFrame]
    """The frame of a number; reads it from its file at first where it lies in another one."""
    frames: int
    """How many there are."""
    apart: bool = False
    """Whether the samples of a pixel are channels."""
    levels: int = 1
    """Levels of its pyramid, the full resolution included."""
    kind: str = "generic"
    """What tifffile calls this kind of TIFF."""
    parts: tuple[Path, ...] = ()
    """All files of a set, sorted; empty where the file is the whole image."""
    part_channels: Mapping[Path, frozenset[int]] = field(default_factory=dict)
    """Of a set, the places along axis C of which each file holds planes."""
    channels: tuple[ChannelInfo, ...] = ()
    """Of axis C, or of the whole image where it names its only channel."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres."""
    z_step: float | None = None
    """Distance of z-slices in micrometres."""
    permuted: AxisOrder | None = None
    """Where its axes lie if its pages are not its planes."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of its axes."""
    unused_axes: bool = False
    """Whether axes were given, and the file says others."""


def lay_out(tiff: OpenTiff, given: str | None = None) -> PlaneLayout:
    """The image of a TIFF; given: letters of its axes for a file that does not say them.

    Raises ImageError where it holds none or several, or where its axes are not known.
    """
    if tiff.pages[0].maker == "flex" and len(tiff.pages) > 1:
        raise ImageError("the pages of an Opera FLEX file are its fields and channels; export it as OME-TIFF.")
    series = _image_series(tiff)
    frames = _frames(tiff, series)
    key = series.keyframe
    if series.kind == "imagej":
        _check_imagej(tiff, len(frames) * int(key.samplesperpixel))
    chosen = choose_axes(
        series.axes,
        series.shape,
        given,
        bilevel=key.bitspersample == 1,
        claimed=series.kind not in ("generic", "uniform"),
    )
    outer, inner = _split(series, chosen.letters, len(frames))
    fields: dict[str, Any] = {
        "levels": _levels(tiff.file, series),
        "kind": series.kind,
        "parts": tuple(sorted({frame.path for frame in frames})) if series.is_multifile else (),
        "assumptions": chosen.assumptions,
        "unused_axes": chosen.unused,
    }
    if _is_permuted(outer, inner) and (given is not None or series.kind == "shaped"):
        permuted = AxisOrder.of(outer, inner, key)
        lengths = {axis: permuted.lengths[axis] for axis in "TZC" if axis in permuted.lengths}
        return PlaneLayout(key, lengths, {}, frames.__getitem__, len(frames), permuted=permuted, **fields)
    _check_page_axes(outer, inner, key)
    stacked = [(axis, length) for axis, length in (*outer, *inner) if length > 1 and axis not in "YXS"]
    ours = _our_letters("".join(axis for axis, _ in stacked))
    strides, step = {}, 1
    for axis, length in reversed(outer):
        if length > 1:
            strides[ours[axis]] = step
        step *= length
    return PlaneLayout(
        key,
        {ours[axis]: length for axis, length in stacked},
        strides,
        frames.__getitem__,
        len(frames),
        apart=any(axis == "C" and length > 1 for axis, length in inner),
        **fields,
    )


def _image_series(tiff: OpenTiff) -> Any:
    """The one series that is the image; thumbnails, labels, masks and smaller copies are not it."""
    every = list(tiff.file.series)
    if not every:
        raise ImageError("the TIFF holds no image.")
    _check_claims(tiff.file, every[0])
    if every[0].kind == "generic":
        used = {page.offset for series in every for level in series.levels for page in level}
        if lost := [number for number, page in enumerate(tiff.pages) if page.offset not in used]:
            raise ImageError(f"page {lost[0]} of the TIFF cannot be understood: the file is damaged.")
    tops = [series for series in every if not series.keyframe.is_subifd]
    images = [series for series in tops if not _is_extra(series)] or tops
    largest = max(images, key=_area, default=None)
    images = [series for series in images if series is largest or not _is_thumbnail(series, largest)]
    if len(images) > 1:
        shapes = Counter(" x ".join(map(str, series.shape)) for series in images)
        text = ", ".join(f"{count} of {shape}" if count > 1 else shape for shape, count in list(shapes.items())[:4])
        raise ImageError(
            f"the TIFF holds {len(images)} separate images ({text}); save the one to segment as a separate file."
        )
    image = images[0]
    if any(_area(series) > _area(image) for series in every if series.name.lower() not in SLIDE_EXTRAS):
        raise ImageError(
            "the TIFF's first page is a small copy of an image in another one; export that image as a separate file."
        )
    if any(page is not None and page.keyframe.is_subifd for page in _stored_pages(tiff, image)):
        raise ImageError("the TIFF has pages below a page that are of its size; save one of them as a separate file.")
    if image.kind == "bif":
        raise ImageError("slides of this kind (Ventana BIF) are tiles that must be stitched; export it as OME-TIFF.")
    if getattr(image, "transform", None) is not None:
        raise ImageError(f"pixels of this kind of TIFF ({image.kind}) are coded numbers; export it as plain TIFF.")
    return image


def _check_claims(tiff: Any, image: Any) -> None:
    """A description of planes that tifffile could not follow means a file that was cut or changed."""
    if image.kind not in (*_CLAIMS, "mmstack", "ndtiff"):
        name = next((name for claim, name in _CLAIMS.items() if getattr(tiff, f"is_{claim}")), None)
        if name is not None:
            raise ImageError(f"its {name} description promises other planes than it holds: it was cut or changed.")
    if image.kind == "shaped":
        said = tuple(tiff.shaped_metadata[0]["shape"])
        sides = {image.keyframe.imagelength, image.keyframe.imagewidth}
        if math.prod(said) > math.prod(image.shape) and sides <= set(said):
            raise ImageError(
                f"its description promises an array of {said}, but it holds {image.shape}: it is truncated."
            )


def _is_extra(series: Any) -> bool:
    return series.name.lower() in SLIDE_EXTRAS or bool(series.keyframe.subfiletype & 0b101)


def _is_thumbnail(series: Any, image: Any) -> bool:
    """Whether one page is a copy of an image at most a quarter as wide, though it does not say so."""
    (height, width), (tall, wide) = ((one.keyframe.imagelength, one.keyframe.imagewidth) for one in (series, image))
    alike = abs(height * wide - width * tall) <= max(tall, wide)  # to the rounding of a pixel
    return alike and max(4 * height - tall, 4 * width - wide) <= 0 and len(series) == 1


def _area(series: Any) -> int:
    return int(series.keyframe.imagelength * series.keyframe.imagewidth)


def _levels(tiff: Any, image: Any) -> int:
    below = [series for series in tiff.series if series.keyframe.is_subifd and _area(series) < _area(image)]
    return len(image.levels) + sum(len(series.levels) for series in below)


def _is_run(tiff: OpenTiff, series: Any) -> bool:
    """Whether the planes of a series lie one after another behind its first page, whatever other pages there are."""
    if series.kind not in _RUNS or math.prod(series.shape) <= math.prod(series.keyframe.shaped):
        return False
    return series.is_truncated or len(tiff.pages) == 1 or series.dataoffset is not None


def _stored_pages(tiff: OpenTiff, series: Any) -> list[Any]:
    """The pages of a series as they are in the file; None stands for one that is missing."""
    if _is_run(tiff, series):
        return [series[0]]
    try:
        return list(series)
    except IndexError as error:
        raise ImageError(
            f"its description promises {len(series)} pages, but the TIFF has {len(tiff.pages)}: it was cut."
        ) from error


def _frames(tiff: OpenTiff, series: Any) -> list[TiffFrame]:
    key = series.keyframe
    planes = math.prod(series.shape)
    one = math.prod(key.shaped)
    if one == 0 or planes == 0:
        raise ImageError(f"it has no pixels ({key.imagelength} x {key.imagewidth}).")
    if _is_run(tiff, series):
        if not is_plain(key) or not key.is_contiguous or planes % one:
            raise ImageError("its first page stands for several planes, but they are compressed: the file is damaged.")
        if len(tiff.pages) * one >= planes and len({page.kind for page in tiff.pages}) > 1:
            _check_alike(tiff, key, list(series))
        return [run_of(series[0], tiff.path, tiff.size, number) for number in range(planes // one)]
    found = _stored_pages(tiff, series)
    if any(page is None for page in found):
        raise ImageError(f"{sum(page is None for page in found)} of its {len(found)} planes are missing.")
    _check_alike(tiff, key, found)
    if all(page.parent is tiff.file for page in found):
        return [calibration_of(page, tiff.path, tiff.size) for page in found]
    return [calibration_of(page, Path(page.parent.filehandle.path), page.parent.filehandle.size) for page in found]


def _check_alike(tiff: OpenTiff, key: Any, found: list[Any]) -> None:
    """Raises ImageError where pages that tifffile counts as one image are not decoded alike."""
    kinds = {page.offset: page.kind for page in tiff.pages}
    for page in found:
        if (
            page.parent is tiff.file
            and page.keyframe is not page
            and kinds.get(page.offset) != kinds.get(page.keyframe.offset)
        ):
            full = page.aspage()
            if full.hash != page.keyframe.hash:
                raise ImageError(f"its pages differ in size or type ({key.shape} and {full.shape}): not one image.")


def _check_imagej(tiff: OpenTiff, planes: int) -> None:
    """Raises ImageError where ImageJ's count of its images, or of the file's pages, is above that of its axes."""
    said = max(int((tiff.file.imagej_metadata or {}).get("images", 1)), len(tiff.pages))
    if said > planes:
        raise ImageError(f"its ImageJ description has axes of {planes} planes, but there are {said}: it is damaged.")


def _split(series: Any, letters: str, frames: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Axes of a series with their letters and lengths: those over its pages, and those within a page."""
    axes = list(zip(letters, series.shape, strict=True))
    inside = [length for length in series.keyframe.shaped if length > 1]
    over = 1
    for place in range(len(axes) + 1):
        rest = [length for _, length in axes[place:] if length > 1]
        if over == frames and rest == inside:
            return axes[:place], axes[place:]
        over *= axes[place][1] if place < len(axes) else 1
    text = ", ".join(f"{axis}={length}" for axis, length in axes if length > 1)
    raise ImageError(f"its description ({text}) does not fit its {frames} pages of {series.keyframe.shape}.")


def _is_permuted(outer: list[tuple[str, int]], inner: list[tuple[str, int]]) -> bool:
    """Whether rows, columns or colours lie over the pages, or others than these within a page in their place."""
    over = {axis for axis, length in outer if length > 1}
    within = [axis for axis, length in inner if length > 1 and axis in "YX"]
    return bool(over & set("YXS")) or within != [axis for axis in "YX" if axis in within]


def _check_page_axes(outer: list[tuple[str, int]], inner: list[tuple[str, int]], key: Any) -> None:
    """Raises ImageError unless the axes within a page are its rows, its columns, and at most samples and depth."""
    text = "".join(axis for axis, length in (*outer, *inner) if length > 1)
    within = [axis for axis, length in inner if length > 1]
    sizes = dict(inner)
    samples = sum(axis in "SC" for axis in within)
    deep = sum(axis not in "SCYX" for axis in within)
    if (
        (sizes.get("Y"), sizes.get("X")) != (key.imagelength, key.imagewidth)
        or any(axis in "YXS" and length > 1 for axis, length in outer)
        or samples != int(key.samplesperpixel > 1)
        or deep != int(key.imagedepth > 1)
    ):
        raise ImageError(f"the TIFF's axes are {text}, which do not fit its pages of {key.shape}.")


def _our_letters(letters: str) -> dict[str, str]:
    """Our letter for each of tifffile's; raises ImageError where one means what we have no letter for."""
    known = {axis: axis for axis in letters if axis in _STACK_AXES}
    if len(known) < len(letters):
        raise UnknownAxesError(
            f"its axes {letters}, besides rows and columns, are not those of time, z-slices and channels",
            "say with --axes what they are.",
        )
    return known
