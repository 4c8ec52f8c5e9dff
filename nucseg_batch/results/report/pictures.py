"""Pictures of planes for the gallery: stretched pixels as a JPEG, and outlines as a PNG that lies over it.

The two are apart so that outlines can be hidden. Of a large plane only the window that is shown is read.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.errors import NucsegError
from nucseg_batch.results.picture import ON_BRIGHT, ON_DARK, is_bright, outlines, stretched
from nucseg_batch.results.report.run_statistics import UNSURE
from nucseg_batch.results.report.windows import PictureWindow, scale_bar, window
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow
from nucseg_batch.settings import REGION

WIDTH = 2
"""Pixels of the picture that an outline is wide."""
QUALITY = 82
COLOURS = (
    (86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
    (148, 203, 236), (221, 204, 119), (136, 204, 238), (170, 68, 153),
)  # fmt: skip
"""Of masks without their image; all can be told apart by people who see few colours."""


@dataclass(frozen=True)
class PlanePicture:
    """What is shown of a plane."""

    width: int
    """In pixels of the picture."""
    height: int
    """Likewise."""
    pixels: bytes | None
    """A JPEG; None where the image cannot be read."""
    drawn: bytes
    """A PNG of the same size: outlines, or without pixels the masks in colours."""
    bright: bool
    """Whether outlines have the colours for bright pictures."""
    part: PictureWindow
    """What of the plane is shown."""
    bar: tuple[float, float] | None
    """Length of the scale bar in micrometres and in pixels of the picture; None without the size of a pixel."""


@dataclass(frozen=True)
class NucleusSites:
    """The nuclei of a plane, as far as pictures need to know them."""

    labels: NDArray[np.int64]
    """(n,)."""
    centres: NDArray[np.float64]
    """(n, 2), y and x."""
    confidence: NDArray[np.float64]
    """(n,); NaN where it is not known."""
    diameter: float | None
    """Median width in pixels; None without nuclei."""

    @classmethod
    def of(cls, pieces: Iterable[PlaneNuclei]) -> NucleusSites:
        """Of the rows of nuclei.csv, which are not kept."""
        labels, areas, confidence = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0)]
        centres = [np.empty((0, 2))]
        for piece in pieces:
            labels.append(piece.labels)
            areas.append(piece["area"])
            centres.append(np.stack([piece["centroid-0"], piece["centroid-1"]], axis=1))
            known = "confidence" in piece.columns
            confidence.append(piece["confidence"] if known else np.full(len(piece), np.nan))
        all_areas = np.concatenate(areas)
        diameter = float(np.sqrt(4 * np.median(all_areas) / np.pi)) if all_areas.size else None
        return cls(np.concatenate(labels), np.concatenate(centres), np.concatenate(confidence), diameter)

    def window(self, shape: tuple[int, int], *, doubtful: bool = False) -> PictureWindow:
        """The part of the plane to show: where most nuclei are, or, doubtful, the least certain ones."""
        weights = np.nan_to_num(1 - self.confidence, nan=0.0) + 1e-6 if doubtful else np.ones(self.labels.size)
        return window(shape, self.centres, weights, self.diameter)


def draw(run: FinishedRun, row: PlaneRow, sites: NucleusSites, part: PictureWindow) -> PlanePicture:
    """The picture of a part of a plane with a mask; raises ImageError where the mask cannot be read."""
    mask = _sized(run.mask(row, part.rows, part.columns), part)
    pixels, bar = _pixels(run, row, part), _bar(row, part, mask.shape[1])
    if pixels is None:
        return PlanePicture(mask.shape[1], mask.shape[0], None, _coloured(mask), False, part, bar)
    pixels = pixels[: mask.shape[0], : mask.shape[1]]
    bright = is_bright(pixels)
    drawn = _outlined(mask, sites.labels[sites.confidence < UNSURE], ON_BRIGHT if bright else ON_DARK)
    return PlanePicture(mask.shape[1], mask.shape[0], _jpeg(pixels), drawn, bright, part, bar)


def drawn_over(
    run: FinishedRun,
    row: PlaneRow,
    mask: NDArray[np.uint32],
    part: PictureWindow,
    drawing: Callable[[NDArray[np.uint32]], bytes],
) -> PlanePicture:
    """The picture of a part of a plane with a PNG of its mask, which `drawing` makes at the size of the picture."""
    mask = _sized(mask, part)
    pixels, bar = _pixels(run, row, part), _bar(row, part, mask.shape[1])
    jpeg = None if pixels is None else _jpeg(pixels[: mask.shape[0], : mask.shape[1]])
    return PlanePicture(mask.shape[1], mask.shape[0], jpeg, drawing(mask), False, part, bar)


def _sized(mask: NDArray[np.uint32], part: PictureWindow) -> NDArray[np.uint32]:
    """A mask as large as the picture."""
    if part.reduce > 1:
        mask = mask[part.reduce // 2 :: part.reduce, part.reduce // 2 :: part.reduce]
    return np.kron(mask, np.ones((part.enlarge,) * 2, mask.dtype)) if part.enlarge > 1 else mask


def _bar(row: PlaneRow, part: PictureWindow, width: int) -> tuple[float, float] | None:
    """The scale bar of a picture of this width."""
    if "pixel_size" not in row.values:
        return None
    return scale_bar(width, row.values["pixel_size"] * part.reduce / part.enlarge)


def _pixels(run: FinishedRun, row: PlaneRow, part: PictureWindow) -> NDArray[np.uint8] | None:
    """(height, width) or (height, width, 3), reduced or enlarged; None where the image cannot be read.

    Contrast is that of the whole plane, or, for planes too large to read, of the window.
    """
    try:
        if row.shape[0] * row.shape[1] <= REGION**2:
            whole = run.shown(row).pixels
            limits, shown = percentile_range(whole), whole[part.rows, part.columns]
        else:
            shown = run.shown(row, part.rows, part.columns).pixels
            limits = percentile_range(shown)
    except (OSError, NucsegError):
        return None
    picture = stretched(_reduced(shown, part.reduce), limits)
    if shown.ndim == 2:
        picture = picture[..., 0]
    if part.enlarge > 1:
        picture = picture.repeat(part.enlarge, 0).repeat(part.enlarge, 1)
    return picture


def _reduced(pixels: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of squares of pixels; what is left over at the far sides falls away, but never all."""
    if factor == 1:
        return pixels
    height, width = (max(length // factor, 1) for length in pixels.shape[:2])
    cut = pixels[: height * factor, : width * factor].astype(np.float32)
    side = tuple(min(factor, length) for length in cut.shape[:2])
    return cut.reshape(height, side[0], width, side[1], *pixels.shape[2:]).mean(axis=(1, 3))


def _outlined(
    mask: NDArray[np.uint32], doubtful: NDArray[np.int64], colours: tuple[tuple[int, int, int], ...]
) -> bytes:
    edge = outlines(mask, WIDTH)
    indices = np.where(edge, np.where(np.isin(mask, doubtful), 2, 1), 0).astype(np.uint8)
    return _png(indices, colours)


def _coloured(mask: NDArray[np.uint32]) -> bytes:
    indices = np.where(mask > 0, 1 + (mask.astype(np.uint64) * 7919) % len(COLOURS), 0).astype(np.uint8)
    indices[outlines(mask)] = 0
    return _png(indices, COLOURS)


def _png(indices: NDArray[np.uint8], colours: tuple[tuple[int, int, int], ...]) -> bytes:
    """Colours by number from 1; 0 is transparent."""
    image = Image.frombytes("P", indices.shape[::-1], np.ascontiguousarray(indices).tobytes())
    image.putpalette([0, 0, 0, *(value for colour in colours for value in colour)])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0, optimize=True)
    return file.getvalue()


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return file.getvalue()
