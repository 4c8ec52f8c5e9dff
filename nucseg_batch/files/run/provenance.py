"""What results were made with, from what: beside the tables as `out.provenance.json`, and in the store's attributes.

Nothing in it depends on the clock, the machine's name or where files lie, so that the same images, model and settings
give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.run.finish import PlaneEntry
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run_layout import RunLayout


def write_provenance(store: Path, record: Mapping[str, Any]) -> None:
    """Writes the provenance of a store's results."""
    write_whole(RunLayout(store).provenance, json.dumps(record, indent=1, sort_keys=True) + "\n")


def read_provenance(store: Path) -> dict[str, Any] | None:
    """The provenance of a store's results; None where it is missing or cannot be read."""
    try:
        record = json.loads(RunLayout(store).provenance.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class InputFingerprint:
    """A hash of all planes that a result was made from: their names and their pixels, in the order of the tables."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def counted(self, entries: Iterable[PlaneEntry]) -> Iterator[PlaneEntry]:
        """The same planes, which are counted as they pass."""
        for entry in entries:
            if isinstance(entry.outcome, PlaneResult):
                name = json.dumps([entry.image, entry.t, entry.z, entry.pixels_sha256])
                self._state.update(name.encode("utf-8", "surrogateescape") + b"\n")
            yield entry

    @property
    def sha256(self) -> str:
        """The hash, as hexadecimal digits."""
        return self._state.hexdigest()
