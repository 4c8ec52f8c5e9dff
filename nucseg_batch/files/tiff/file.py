"""A TIFF that is open while its pages are read: its list of pages, walked, and tifffile's view of it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.tiff.chain import TiffPage, walk
from nucseg_batch.files.tiff.pixels import TiffFrame, calibration_of

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would say is checked and said by us


class OpenTiff:
    """A context manager; pages that were read stay usable after it is closed."""

    def __init__(self, path: Path) -> None:
        """Opens a TIFF; raises ImageError where its list of pages is broken, or what tifffile raises."""
        self.path = path
        fd = os.open(path, os.O_RDONLY)
        try:
            self.status = os.fstat(fd)
            self.size = self.status.st_size
            self.pages: tuple[TiffPage, ...] = walk(fd, self.size)
        finally:
            os.close(fd)
        self.file: Any = tifffile.TiffFile(path, is_ndpi=self.pages[0].maker == "ndpi")  # which it takes a suffix for
        self._keys: dict[bytes, Any] = {}
        if {page.offset for page in self.pages}.intersection(self.first.subifds or ()):
            self.file.close()
            raise ImageError("a page of the TIFF lies below itself: the file is damaged.")

    def __enter__(self) -> OpenTiff:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    @property
    def first(self) -> Any:
        """The first page as a tifffile.TiffPage."""
        return self.file.pages.first

    @property
    def description(self) -> str:
        """Text that describes the file, in its first page; empty without one."""
        return str(self.first.description or "")

    def frame(self, number: int) -> TiffFrame:
        """The pixels of a page; raises ImageError where there is no such page, or its pixels are not all there."""
        if number >= len(self.pages):
            raise ImageError(f"{self.path.name} has {len(self.pages)} pages, but page {number} is asked for.")
        page = self.pages[number]
        key = self._keys.get(page.kind)
        if key is not None:
            frame = tifffile.TiffFrame(self.file, number, offset=page.offset, keyframe=key)
            return calibration_of(frame, self.path, self.size)
        if number == 0:
            key = self.first
        else:
            self.file.filehandle.seek(page.offset)
            key = tifffile.TiffPage(self.file, number)
        self._keys[page.kind] = key
        return calibration_of(key, self.path, self.size)
