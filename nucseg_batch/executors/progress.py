"""How far a run is: who hears of it, and what is counted on the way."""

from __future__ import annotations

from typing import Protocol

from nucseg_batch.files.run.journal import Journal, PlaneResult
from nucseg_batch.plan import Failure, Plane, Unit


class Progress(Protocol):
    """Hears how far a run is."""

    def headers(self, done: int, total: int) -> None:
        """So many headers of all were read."""
        ...

    def start(self, count: int, pixels: int, what: str) -> None:
        """Segmenting begins with so much to do: `count` images, planes or regions."""
        ...

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None:
        """One more plane, or region of one, is finished."""
        ...

    def note(self, line: str) -> None:
        """Something that the user should know."""
        ...


class Counter:
    """Counts what this call did, and tells the user and the log."""

    def __init__(self, progress: Progress, journal: Journal) -> None:
        self.progress = progress
        self._journal = journal
        self.planes = 0
        self.pixels = 0

    def tell(self, line: str) -> None:
        """A line for the user and the log."""
        self._journal.log(line)
        self.progress.note(line)

    def advance(self, plane: Plane, result: PlaneResult | Failure) -> None:
        """A plane is finished, well or not."""
        pixels = plane.image.height * plane.image.width
        if isinstance(result, Failure):
            self._journal.log(f"failed: {result.image} ({result.stage}): {result.message}")
            self.progress.plane(pixels, 0, failed=True)
        else:
            self.planes += 1
            self.pixels += pixels
            self.progress.plane(pixels, result.nuclei, failed=False)

    def advance_region(self, unit: Unit, nuclei: int, failure: Failure | None) -> None:
        """A region of a large plane is finished."""
        if failure is not None:
            self._journal.log(f"failed: {unit.planes[0].name} ({failure.stage}): {failure.message}")
        else:
            self.planes += 1
            self.pixels += unit.pixels
        self.progress.plane(unit.pixels, nuclei, failed=failure is not None)
