"""Label images as 16-bit PNG: one file for each plane, since PNG has no stacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from nucseg_batch.errors import DamageError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.png import write_png
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask, FormatRefusal

MOST = 65535
"""Nuclei that 16 bits can number."""


class _Picture:
    """One plane."""

    def __init__(self, file: IO[bytes], task: ExportTask) -> None:
        self._file = file
        self._task = task

    def add(self, plane: LabelledPlane) -> None:
        """Writes the plane, in bands where it is large."""
        text = {("Software" if name == "software" else name): value for name, value in self._task.about.items()}
        if plane.row.values.get("pixel_size") is not None:
            text["pixel_size_um"] = f"{plane.row.values['pixel_size']:g}"
        write_png(self._file, plane.row.shape, self._bands(plane), text)

    def _bands(self, plane: LabelledPlane) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint16]]]:
        for band in plane.bands():
            if int(band.max()) > MOST:
                raise DamageError(f"{plane.row.name}: its mask has a number that is no nucleus of the table.")
            yield band.astype(np.uint16)


@contextlib.contextmanager
def open_png(task: ExportTask) -> Iterator[_Picture]:
    """Begins the label image of a plane; Refused where it has more nuclei than 16 bits can number."""
    (row,) = task.good
    if row.nuclei > MOST:
        raise FormatRefusal(f"{row.name} has {row.nuclei} nuclei; a PNG can number {MOST}. Export it as tiff.")
    with whole_file(task.path, durable=False) as file:
        yield _Picture(file, task)
