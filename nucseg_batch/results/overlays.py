"""Overlays as PNG: outlines of nuclei on their images, large ones reduced window by window."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import InputMissingError, NothingToDoError, NucsegError, UsageError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import table_header
from nucseg_batch.files.png import write_png
from nucseg_batch.results.export.folder import export_folder
from nucseg_batch.results.export.names import Names, plane_suffix
from nucseg_batch.results.origin import origin
from nucseg_batch.results.picture import Colour, outline_colour, outlines, stretched
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

WINDOW = 2048
"""Side in pixels, about, of the windows in which a large plane is read."""
CONFIDENCE = "confidence"
"""The column of images.csv that says how far to trust a plane."""
TOLD = 20
"""Reasons that are kept to be told."""


@dataclass(frozen=True)
class Style:
    """How overlays look."""

    width: int = 1
    """Width of the outlines, in pixels of the picture."""
    numbers: bool = False
    """Whether each nucleus has its number."""
    longest: int = 4096
    """Longest side of a picture in pixels; larger planes are reduced by a whole factor."""


@dataclass
class OverlayOutcome:
    """What became of a call."""

    pictures: int = 0
    """Pictures written."""
    without_mask: int = 0
    """Planes that have no mask."""
    without_pixels: int = 0
    """Planes whose pixels cannot be read."""
    reasons: list[str] = field(default_factory=list)
    """Why, of the first of them."""


def draw_overlays(
    run: FinishedRun,
    folder: Path,
    style: Style,
    *,
    pattern: str | None = None,
    first: int | None = None,
    lowest: int | None = None,
    progress: Callable[[int, int], None],
) -> OverlayOutcome:
    """Writes a picture of each plane that has a mask, matches, and is among the first, or of the lowest confidence.

    Raises NothingToDoError where there is no such plane, InputMissingError where no plane's pixels can be read,
    UsageError where there is no confidence to choose by, and OutputError where the folder cannot be used.
    """
    drawn = OverlayOutcome()
    rows = chosen(run, drawn, pattern=pattern, first=first, lowest=lowest)
    with export_folder(folder, run, origin(run)) as place:
        names = Names(run.tables["images"])
        for number, row in enumerate(rows):
            progress(number, names.planes)
            name = names.of([row])
            path = folder / name.with_name(f"{name.name}{plane_suffix(row.t, row.z)}.png")
            try:
                picture = overlay_of(run, row, style)
            except (OSError, NucsegError) as error:
                drawn.without_pixels += 1
                if len(drawn.reasons) < TOLD:
                    drawn.reasons.append(f"{row.name}: {error}")
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, durable=False) as file:
                text = {**place.about, "Software": place.about["software"], "image": row.name}
                write_png(file, (picture.shape[0], picture.shape[1]), [picture], text)
            drawn.pictures += 1
        place.remove_stale(".png")
    if not drawn.pictures:
        raise _nothing(run, drawn, pattern)
    return drawn


def chosen(
    run: FinishedRun, drawn: OverlayOutcome, *, pattern: str | None, first: int | None, lowest: int | None
) -> Iterator[PlaneRow]:
    """The planes that are asked for; those of the lowest confidence begin with the lowest."""
    rows = _with_masks(run, drawn, pattern)
    if lowest is not None:
        if CONFIDENCE not in table_header(run.tables["images"]):
            raise UsageError(
                f"--lowest needs a column `{CONFIDENCE}`, which {run.tables['images']} has not; it was made by an "
                "earlier version. Segment again, or leave --lowest out."
            )
        rows = iter(heapq.nsmallest(lowest, rows, key=lambda row: row.values.get(CONFIDENCE, math.inf)))
    return islice(rows, first)


def overlay_of(run: FinishedRun, row: PlaneRow, style: Style) -> NDArray[np.uint8]:
    """(height, width, 3): a plane with the outlines of its nuclei, reduced where it is too large.

    Raises ImageError or InputMissingError where its pixels cannot be read.
    """
    pixels, mask = reduced(run, row, max(1, math.ceil(max(row.shape) / style.longest)))
    picture = stretched(pixels)
    colour = outline_colour(picture)
    picture[outlines(mask, style.width)] = colour
    if style.numbers:
        _number(picture, mask, colour)
    return picture


def reduced(run: FinishedRun, row: PlaneRow, factor: int) -> tuple[NDArray[np.generic], NDArray[np.uint32]]:
    """Pixels and mask of a plane, smaller by a whole factor: means of pixels, and the label in the middle of them.

    It is read by windows, so that no more than one of them, and the result, is in memory.
    """
    height, width = row.shape
    step = max(factor, WINDOW // factor * factor)
    if factor == 1:
        return run.shown(row).pixels, run.mask(row)
    pixels: NDArray[np.generic] | None = None
    mask = np.zeros((height // factor, width // factor), np.uint32)
    for top in range(0, mask.shape[0] * factor, step):
        for left in range(0, mask.shape[1] * factor, step):
            rows, columns = (
                slice(start, min(start + step, side * factor))
                for start, side in zip((top, left), mask.shape, strict=True)
            )
            window = run.shown(row, rows, columns).pixels
            if pixels is None:
                pixels = np.zeros((*mask.shape, *window.shape[2:]), window.dtype)
            small = tuple(slice(part.start // factor, part.stop // factor) for part in (rows, columns))
            parts = window.reshape(len(window) // factor, factor, window.shape[1] // factor, factor, *window.shape[2:])
            pixels[small] = parts.mean(axis=(1, 3)).astype(window.dtype)
            mask[small] = run.mask(row, rows, columns)[factor // 2 :: factor, factor // 2 :: factor]
    assert pixels is not None
    return pixels, mask


def _with_masks(run: FinishedRun, drawn: OverlayOutcome, pattern: str | None) -> Iterator[PlaneRow]:
    for row in run.planes(pattern):
        if row.segmented:
            yield row
        else:
            drawn.without_mask += 1


def _number(picture: NDArray[np.uint8], mask: NDArray[np.uint32], colour: Colour) -> None:
    """Writes the number of each nucleus at its centre."""
    from PIL import Image, ImageDraw

    flat = mask.ravel()
    counts = np.bincount(flat)
    y, x = np.divmod(np.arange(flat.size), mask.shape[1])
    centres = [np.bincount(flat, weights=place) / np.maximum(counts, 1) for place in (x, y)]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for label in np.flatnonzero(counts[1:]) + 1:
        place = float(centres[0][label]), float(centres[1][label])
        draw.text(place, str(label), fill=colour, anchor="mm")
    picture[...] = np.asarray(image)


def _nothing(run: FinishedRun, drawn: OverlayOutcome, pattern: str | None) -> NucsegError:
    if drawn.without_pixels:
        advice = "Say with --images where they are now." if run.begun is not None else "Put the run folder back."
        return InputMissingError(
            f"none of the images can be read ({drawn.reasons[0]}). {advice} To keep pixels beside the masks, segment "
            "with --with-images."
        )
    asked = "it has no masks" if pattern is None else f"no image with a mask matches --pattern {pattern}"
    return NothingToDoError(f"{run.store}: {asked}.")
