"""What a search passes over: how much for which reason, and what it is called."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAMES = 1000
"""Names that are kept for each reason."""
NO_IMAGE = "file that is no image"
"""Reason for files whose suffix is not known."""
NO_SUFFIX = "file without a suffix, which is read where it is given by name"
"""Reason for files whose name does not say what they may be."""
OURS = "output of nucseg-batch"
"""Reason for what this program wrote."""
NOT_READ = frozenset(
    (
        *(".tga", ".psd", ".svg", ".pbm", ".pgm", ".pnm", ".ppm"),
        *(".jxl", ".jxr", ".avif", ".heic", ".exr", ".cr2", ".dng", ".nef"),
        *(".dcm", ".mrc", ".nhdr", ".nii", ".nrrd", ".h5", ".hdf5", ".npy", ".npz"),
        *(".ets", ".ics", ".ids", ".ims", ".mrxs", ".oib", ".oif", ".oir", ".vms", ".vsi", ".zvi"),
    )
)
"""Suffixes of files that hold images, or may, and are not read."""
_LONGEST_SUFFIX = 12
"""Longer ones are no suffixes."""


@dataclass(frozen=True)
class SkippedFiles:
    """What was passed over for one reason."""

    names: tuple[str, ...] = ()
    """Keys of it, in the order in which they were found, at most MAX_NAMES; of what is in a store, none."""
    suffixes: tuple[tuple[str, int], ...] = ()
    """Suffixes and how many have them, the most frequent first; only for the reason NO_IMAGE."""


class SkipCounter:
    """Counts what is passed over."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """How many, by reason."""
        self._names: dict[str, list[str]] = defaultdict(list)
        self._suffixes: Counter[str] = Counter()

    def add(self, reason: str, key: str) -> None:
        """One thing of this key."""
        self.counts[reason] += 1
        if len(self._names[reason]) < MAX_NAMES:
            self._names[reason].append(key)
        if reason == NO_IMAGE:
            self._suffixes[_suffix(key)] += 1

    def take(self, other: SkipCounter) -> None:
        """All that another one has."""
        self.counts.update(other.counts)
        self._suffixes.update(other._suffixes)
        for reason, names in other._names.items():
            self._names[reason] += names[: MAX_NAMES - len(self._names[reason])]

    def by_reason(self) -> dict[str, SkippedFiles]:
        """What is known of it beside the counts, by reason."""
        suffixes = tuple(self._suffixes.most_common())
        return {
            reason: SkippedFiles(tuple(names), suffixes if reason == NO_IMAGE else ())
            for reason, names in sorted(self._names.items())
        }


def first_names(keys: Iterable[str]) -> SkippedFiles:
    """What `told` would have of things with these keys."""
    return SkippedFiles(tuple(keys)[:MAX_NAMES])


def unread(name: str) -> str:
    """Why a file that is not taken for an image is passed over, by its name."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in NOT_READ:
        return f"file of a kind that is not read ({suffix})"
    return NO_IMAGE if suffix else NO_SUFFIX


def _suffix(key: str) -> str:
    suffix = os.path.splitext(key)[1].lower()
    return suffix if suffix[1:].isalnum() and not suffix[1:].isdecimal() and len(suffix) <= _LONGEST_SUFFIX else "other"
