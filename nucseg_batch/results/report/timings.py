"""How long the stages of a run took, from the logs in its run folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nucseg_batch.files.run_layout import LOGS

STAGE = re.compile(r"stage (.+?): at work (\d+)% of ([\d.]+) s; ([\d.]+) s over")
"""A line of `StageTimer.lines`."""
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d([+-]\d{4})? ")


@dataclass
class StageTotal:
    """One stage, over all calls and shares of the run."""

    work: float = 0.0
    """Seconds over all threads."""
    busy: float = 0.0
    """Seconds in which at least one thread was at it."""
    of: float = 0.0
    """Seconds of the streams that it was part of."""


@dataclass
class Timings:
    """What the logs say."""

    stages: dict[str, StageTotal] = field(default_factory=dict)
    """By name, in the order of work."""
    began: str = ""
    """When the first line was written, such as `2026-11-22 00:03`; empty without logs."""
    ended: str = ""
    """When the last one was."""
    calls: int = 0
    """Streams of which the times are."""


def timings(folder: Path) -> Timings:
    """Reads `log.txt` and the logs of shares; nothing where the run folder is gone."""
    found, moments = Timings(), set[str]()
    for path in sorted(folder.glob(LOGS)):
        first = last = ""
        calls = 0
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if moment := MOMENT.match(line):
                    last = f"{moment[1]} {moment[2]}{' ' + moment[3] if moment[3] else ''}"
                    first = first or last
                if match := STAGE.search(line):
                    stage = found.stages.setdefault(match[1], StageTotal())
                    stage.work += float(match[4])
                    stage.busy += float(match[3]) * int(match[2]) / 100
                    stage.of += float(match[3])
                    calls += match[1] == next(iter(found.stages))
        found.calls += calls
        moments |= {moment for moment in (first, last) if moment}
    if moments:
        found.began, found.ended = min(moments), max(moments)
    return found
