"""A TIFF that is open while its pages are read: its list of pages, walked, and tifffile's view of it."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import tifffile

from nucseg_batch.errors import ImageError
from nucseg_batch.files.tiff.chain import TiffPage, walk
from nucseg_batch.files.tiff.noted import NotedFile, Stretches
from nucseg_batch.files.tiff.pixels import TiffFrame, calibration_of

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would say is checked and said by us


class OpenTiff:
    """A context manager; pages that were read stay usable after it is closed."""

    def __init__(self, path: Path, *, noting: bool = False) -> None:
        """Opens a TIFF; raises ImageError where its list of pages is broken, or what tifffile raises.

        noting: whether `noted` is wanted, which takes a little time.
        """
        self.path = path
        self._noted: NotedFile | None = None
        file = NotedFile(path) if noting else io.FileIO(path)
        try:
            self.status = os.fstat(file.fileno())
            self.size = self.status.st_size
            self.pages: tuple[TiffPage, ...] = walk(file.fileno(), self.size)
            if isinstance(file, NotedFile) and len(self.pages) == 1:  # tifffile reads more of them when it is closed
                self._noted = file
            ndpi = self.pages[0].maker == "ndpi"  # which tifffile takes a suffix for
            self.file: Any = tifffile.TiffFile(self._noted or path, is_ndpi=ndpi)
        except BaseException:
            self._noted = None
            raise
        finally:
            if self._noted is None:
                file.close()
        self._keys: dict[bytes, Any] = {}
        if {page.offset for page in self.pages}.intersection(self.first.subifds or ()):
            self.close()
            raise ImageError("a page of the TIFF lies below itself: the file is damaged.")

    def __enter__(self) -> OpenTiff:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self.file.close()
        if self._noted is not None:
            self._noted.close()

    @property
    def noted(self) -> Stretches | None:
        """All bytes on which what was found so far depends; None where they were not noted, as of many pages."""
        if self._noted is None or self.file.is_bigtiff:
            return None
        self._noted.note(0, 8)
        self._noted.note(self.pages[0].offset, self.pages[0].tag_bytes)
        return self._noted.noted

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
