"""Which units a process was at when it died, so that an image that kills processes is found and then left out.

A unit that is begun gets a line in a file of its own, which goes when the unit is committed or given up in good order.
A line that is still there means that a process died. A unit with several such lines is done carefully from then on:
plane by plane, each noted before it is begun, so that the next death names the plane.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from nucseg_batch.files.retry import CAREFUL_AFTER, FAILS_AFTER
from nucseg_batch.plan import Unit

BEGUN = "begun"
"""Folder of the files of units that were begun."""
_BEGIN, _PLANE = "begin", "plane "


@dataclass(frozen=True)
class History:
    """What became of earlier tries at a unit."""

    deaths: int = 0
    """Processes that died while they had the unit in hand."""
    guilty: frozenset[int] = frozenset()
    """Planes, as numbers in the unit, that are given up."""

    @property
    def careful(self) -> bool:
        """Whether the unit is to be done plane by plane."""
        return self.deaths >= CAREFUL_AFTER


class Attempts:
    """The tries at the units of one run."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / BEGUN

    def begin(self, unit: Unit) -> None:
        """Notes that a unit is begun."""
        self._note(unit, _BEGIN)

    def begin_plane(self, unit: Unit, index: int) -> None:
        """Notes that a plane of a unit is begun; only where the unit is done carefully."""
        self._note(unit, f"{_PLANE}{index}")

    def end(self, unit: Unit) -> None:
        """Forgets tries: the unit is committed, or left in good order."""
        self._path(unit).unlink(missing_ok=True)

    def history(self, unit: Unit) -> History:
        """What is known of a unit's earlier tries, none of which is going on."""
        try:
            lines = self._path(unit).read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return History()
        last: list[int | None] = []
        for line in lines:
            if line == _BEGIN:
                last.append(None)
            elif line.startswith(_PLANE) and line[len(_PLANE) :].isdecimal() and last:
                last[-1] = int(line[len(_PLANE) :])
        deaths = Counter(plane for plane in last if plane is not None)
        return History(len(last), frozenset(plane for plane, count in deaths.items() if count >= FAILS_AFTER))

    def begun(self) -> set[str]:
        """Names of units of which tries are noted."""
        try:
            return {entry.name for entry in os.scandir(self._folder)}
        except FileNotFoundError:
            return set()

    def remove_folder(self) -> None:
        """Deletes the folder where nothing is in it any more."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _note(self, unit: Unit, line: str) -> None:
        try:
            self._append(unit, line)
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._append(unit, line)

    def _append(self, unit: Unit, line: str) -> None:
        with open(self._path(unit), "a", encoding="ascii") as file:  # in one write, which survives the process at once
            file.write(f"{line}\n")

    def _path(self, unit: Unit) -> Path:
        return self._folder / unit.name
