"""What of a run was verified, and when, in the folder `verified` of the run folder.

Each call of `verify` writes a file of its own, so that calls on several machines need no lock. It contains all that
earlier files hold, and these are then deleted; after two calls at the same time, both files stay until the next call.
An entry counts only for the result as it was written then, which it knows by the time of that result's record, and for
its files as they were read then, which it knows by their size and time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nucseg_batch.files.atomic_write import process_name, write_whole

VERIFIED = "verified"
"""Name of the folder in the run folder."""


class Verified(NamedTuple):
    """One result that was read and compared with its checksums."""

    time: float
    """When the call began that did it, in seconds since 1970."""
    written_ns: int
    """When the record of the result had been written, in nanoseconds; 0 for a result without one."""
    good: bool
    """Whether it was as it had been written."""
    size: int
    """Bytes of its files when they were read."""
    changed_ns: int
    """When the latest of its files had been changed then, in nanoseconds; 0 without any."""


class VerifiedRecords:
    """What calls of `verify` found in one run, by name of the result; reads what earlier calls wrote."""

    def __init__(self, run_folder: Path) -> None:
        self._folder = run_folder / VERIFIED
        self._path = self._folder / f"{process_name()}-{time.time_ns()}.json"
        self._entries, self._read = _read_all(self._folder)

    def entry(self, name: str) -> Verified | None:
        """The latest entry of a result; None where there is none."""
        return self._entries.get(name)

    def add(self, name: str, entry: Verified) -> None:
        """Notes a result, in memory only."""
        self._entries[name] = entry

    def save(self) -> None:
        """Writes all entries as one file, and deletes the files that they were read from; raises OSError."""
        self._folder.mkdir(exist_ok=True)
        write_whole(self._path, json.dumps({name: list(entry) for name, entry in sorted(self._entries.items())}))
        for path in self._read:
            path.unlink(missing_ok=True)
        self._read.clear()


def _read_all(folder: Path) -> tuple[dict[str, Verified], list[Path]]:
    """The entries of all files, and the files; a damaged file has none, since what it held can be verified again."""
    while True:
        entries: dict[str, Verified] = {}
        paths = [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
        try:
            for path in paths:
                _merge(entries, _entries(path.read_bytes()))
        except FileNotFoundError:  # another call has just copied it into its own file
            continue
        return entries, paths


def _entries(content: bytes) -> dict[str, Verified]:
    try:
        found = json.loads(content)
        return {
            name: Verified(float(when), int(written), bool(good), int(size), int(changed))
            for name, (when, written, good, size, changed) in found.items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def _merge(entries: dict[str, Verified], others: Mapping[str, Verified]) -> None:
    """Keeps the later entry of each result; of two from one moment, the one that found damage."""
    for name, other in others.items():
        mine = entries.get(name)
        if mine is None or (other.time, not other.good) > (mine.time, not mine.good):
            entries[name] = other
