"""How far a run is: who hears of it, and what is counted on the way."""

from __future__ import annotations

from typing import Protocol

from nucseg_batch.errors import FailuresError
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.locks import FULL
from nucseg_batch.files.run.records import PlaneResult, RegionOutcome
from nucseg_batch.plan import Failure, Plane, Unit
from nucseg_batch.settings import RunSettings


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

    def detail(self, line: str) -> None:
        """Something for users who asked to be told more."""
        ...


class ProgressCounter:
    """Counts what this call did, and tells the user and the log."""

    def __init__(self, progress: Progress, journal: Journal, options: RunSettings | None = None) -> None:
        self.progress = progress
        self._journal = journal
        self._options = options or RunSettings()
        self._most_failures = float("inf")
        self._told: set[str] = set()
        self.planes = 0
        self.pixels = 0
        self.nuclei = 0
        self.failed = 0

    def start(self, planes: int, pixels: int, what: str) -> None:
        """Segmenting begins, with so much to do."""
        self._most_failures = self._options.most_failures(planes)
        self.progress.start(planes, pixels, what)

    def tell(self, line: str) -> None:
        """A line for the user and the log; on a full disk for the user alone, since a finished run needs no room."""
        self.progress.note(line)
        try:
            self._journal.log(line)
        except OSError as error:
            if error.errno not in FULL:
                raise

    def tell_once(self, line: str) -> None:
        """The same, unless it was told before, as with several locks of one run."""
        if line not in self._told:
            self._told.add(line)
            self.tell(line)

    def log(self, line: str) -> None:
        """A line for the log, and for users who asked to be told more."""
        self._journal.log(line)
        self.progress.detail(line)

    def advance(self, plane: Plane, result: PlaneResult | Failure) -> None:
        """A plane is finished, well or not."""
        if isinstance(result, Failure):
            self.count_plane(plane, result)
        else:
            self.count_plane(plane, result.nuclei, result.summary["scale"])

    def advance_region(self, unit: Unit, outcome: RegionOutcome | Failure) -> None:
        """A region of a large plane is finished, well or not."""
        self.count_region(unit, outcome if isinstance(outcome, Failure) else outcome.nuclei)

    def count_plane(self, plane: Plane, outcome: int | Failure, scale: float = 1.0) -> None:
        """Counts a plane: its nuclei, or why it failed, and by how much it was enlarged."""
        enlarged = "" if scale == 1 else f", scale {scale:.3g}"
        self._count(plane.name, plane.image.height * plane.image.width, outcome, enlarged)

    def count_region(self, unit: Unit, outcome: int | Failure) -> None:
        """Counts a region: its nuclei, or why it failed."""
        self._count(f"{unit.planes[0].name}, region {unit.name}", unit.pixels, outcome)

    def _count(self, name: str, pixels: int, outcome: int | Failure, details: str = "") -> None:
        if isinstance(outcome, Failure):
            self.progress.plane(pixels, 0, failed=True)
            self._failed(outcome)
            return
        self.planes += 1
        self.pixels += pixels
        self.nuclei += outcome
        self.progress.plane(pixels, outcome, failed=False)
        self.progress.detail(f"{name}: {outcome} nuclei{details}")

    def _failed(self, failure: Failure) -> None:
        self.log(f"failed: {failure.image} ({failure.stage}): {failure.message}")
        self.failed += 1
        if self.failed > self._most_failures:
            raise FailuresError(
                f"stopped after {self.failed} failure{'s' * (self.failed > 1)}, the last of {failure.image}: "
                f"{failure.message} The tables are not written. Run the same command again to resume; --max-failures "
                "sets the limit."
            )
