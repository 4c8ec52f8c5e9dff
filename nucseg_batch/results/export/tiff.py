"""Label images as TIFF: one file for each image, its time points and depths as a stack that ImageJ understands.

Pages are compressed, one for each plane, and described as ImageJ describes its own, which tifffile, Bio-Formats and
QuPath read, too. A large plane is written tile by tile; ImageJ then needs Bio-Formats, which Fiji has.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucseg_batch.errors import DamageError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask

CLASSIC_BYTES = 2**32 - 2**25
"""A file whose pixels take more bytes than this, uncompressed, is a BigTIFF."""


class _Stack:
    """The planes of one image, page by page; those without a mask are empty pages."""

    def __init__(self, writer: tifffile.TiffWriter, task: ExportTask) -> None:
        self._writer = writer
        self._task = task
        good = task.good
        self._shape = good[0].shape
        self._most = 2**16 - 1 if task.most < 2**16 else 2**32 - 1
        self._dtype = np.dtype(np.uint16 if self._most < 2**16 else np.uint32)
        self._pages = 0

    def add(self, plane: LabelledPlane) -> None:
        """Writes the plane, and before it empty pages for those that have no mask."""
        self._fill(next(place for place, row in enumerate(self._task.rows) if row is plane.row))
        if plane.large:
            side = -(-plane.chunk // 16) * 16  # TIFF allows multiples of 16
            self._page(map(self._checked, plane.tiles(side)), tile=(side, side))
        else:
            self._page(self._checked(plane.mask))

    def finish(self) -> None:
        """Writes empty pages up to the end."""
        self._fill(len(self._task.rows))

    def _fill(self, pages: int) -> None:
        while self._pages < pages:
            rows = max(1, min(self._shape[0], 2**24 // self._shape[1]))
            strips = (
                np.zeros((min(rows, self._shape[0] - top), self._shape[1]), self._dtype)
                for top in range(0, self._shape[0], rows)
            )
            self._page(strips, rowsperstrip=rows)

    def _checked(self, mask: NDArray[np.uint32]) -> NDArray[Any]:
        if int(mask.max()) > self._most:
            raise DamageError(f"{self._task.good[0].image}: its mask has a number that is no nucleus of the table.")
        return mask.astype(self._dtype)

    def _page(self, data: Any, **options: Any) -> None:
        first = self._pages == 0
        pixel = self._task.spacing.pixel
        self._writer.write(
            data,
            shape=self._shape,
            dtype=self._dtype,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            contiguous=False,
            description=_description(self._task) if first else None,
            software=self._task.about["software"] if first else False,
            resolution=None if pixel is None else (1 / pixel, 1 / pixel),
            resolutionunit=None if pixel is None else "NONE",
            **options,
        )
        self._pages += 1


@contextlib.contextmanager
def open_tiff(task: ExportTask) -> Iterator[_Stack]:
    """Begins the label image of an image; uint16 where its numbers fit, else uint32."""
    task.check_done()
    height, width = task.good[0].shape
    big = height * width * 4 * len(task.rows) > CLASSIC_BYTES
    with whole_file(task.path, durable=False) as file, tifffile.TiffWriter(file, bigtiff=big) as writer:
        stack = _Stack(writer, task)
        yield stack
        stack.finish()


def _description(task: ExportTask) -> str:
    """What ImageJ writes of a stack, and where this one is from."""
    times, depths = (len({getattr(row, axis) for row in task.rows}) for axis in ("t", "z"))
    lines: dict[str, Any] = {"ImageJ": "1.53t", "images": len(task.rows)}
    if depths > 1:
        lines["slices"] = depths
    if times > 1:
        lines["frames"] = times
    if depths > 1 and times > 1:
        lines["hyperstack"] = "true"
    lines |= {"mode": "grayscale", "loop": "false"}
    if task.spacing.pixel is not None:
        lines["unit"] = "micron"
        if task.spacing.depth is not None and math.isfinite(task.spacing.depth):
            lines["spacing"] = task.spacing.depth
    lines |= {"min": 0, "max": task.most}
    lines |= {name: value.encode("ascii", "backslashreplace").decode() for name, value in task.about.items()}
    return "".join(f"{name}={value}\n" for name, value in lines.items())
