"""The first few of many, and how many there are."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from nucseg_batch.results.tables import PlaneRow

KEPT = 24
"""How many are kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A plane for which there is something to say."""

    number: int
    """Its place in images.csv, counted from 0."""
    row: PlaneRow
    """The plane."""
    weight: float
    """What findings are ranked by, the largest first."""
    what: str = ""
    """What was found, in few words."""


class Ranking:
    """Findings of which the ones of most weight are kept; of equal weight, the first. All are counted."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._heap: list[tuple[float, int, Finding]] = []
        self.count = 0
        """How many were added."""

    def add(self, finding: Finding) -> None:
        """Counts a finding, and keeps it as long as it is among the first."""
        self.count += 1
        entry = finding.weight, -finding.number, finding
        if len(self._heap) < self._kept:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    @property
    def first(self) -> list[Finding]:
        """Those of most weight, in order."""
        return [entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
