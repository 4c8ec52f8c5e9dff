"""Pictures of planes whose nuclei have the colour of their volume or track, with the paths of tracks."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nucseg_batch.results.picture import outlines
from nucseg_batch.results.report.pictures import COLOURS, WIDTH, PlanePicture, drawn_over
from nucseg_batch.results.report.windows import PictureWindow
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneRow

FILL = 110
"""How opaque a nucleus is within its outline, of 255."""
Path = tuple[int, NDArray[np.float64]]
"""A track, and (n, 2) the rows and columns of its centroids in pixels of the plane."""


@dataclass(frozen=True)
class LinkedPicture:
    """A plane, and what is to be said of it."""

    row: PlaneRow
    """The plane."""
    picture: PlanePicture
    """What is shown of it."""
    what: str
    """Which plane it is."""


def draw_linked(
    run: FinishedRun,
    row: PlaneRow,
    mask: NDArray[np.uint32],
    part: PictureWindow,
    what: str,
    paths: Iterable[Path] = (),
) -> LinkedPicture:
    """The picture of a part of a plane. mask: of this part, with the number of its volume or track in each pixel."""

    def drawing(sized: NDArray[np.uint32]) -> bytes:
        return _drawing(sized, part, list(paths))

    return LinkedPicture(row, drawn_over(run, row, mask, part, drawing), what)


def colour_number(number: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Which of COLOURS nuclei have, from 0; neighbouring numbers differ."""
    return (number.astype(np.int64) * 7919) % len(COLOURS)


def _drawing(mask: NDArray[np.uint32], part: PictureWindow, paths: Sequence[Path]) -> bytes:
    """Nuclei faintly in their colours, outlines and paths fully; else transparent."""
    several = colour_number(mask) + 1
    edge = outlines(mask, WIDTH)
    indices = np.where(mask > 0, np.where(edge, several + len(COLOURS), several), 0).astype(np.uint8)
    image = Image.fromarray(indices)
    pen = ImageDraw.Draw(image)
    corner = np.array([part.rows.start, part.columns.start])
    for track, centres in paths:
        points = (centres - corner + 0.5) * part.enlarge / part.reduce
        colour = int(colour_number(np.array([track], np.uint32))[0]) + 1 + len(COLOURS)
        if len(points) > 1:
            pen.line([(float(x), float(y)) for y, x in points], fill=colour, width=WIDTH)
    palette = [0, 0, 0, *(value for colour in (*COLOURS, *COLOURS) for value in colour)]
    coloured = Image.frombytes("P", image.size, image.tobytes())
    coloured.putpalette(palette)
    opacity = bytes([0, *[FILL] * len(COLOURS), *[255] * len(COLOURS)])
    file = io.BytesIO()
    coloured.save(file, "PNG", transparency=opacity, optimize=True)
    return file.getvalue()
