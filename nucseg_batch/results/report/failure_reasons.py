"""Why images failed: failures.csv grouped by reason, with the first few names of each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from nucseg_batch.files.csv_rows import csv_records, open_table
from nucseg_batch.files.names import file_name

REASONS = 200
"""Reasons that are kept apart; what comes after them counts as others."""
NAMES = 10
"""Images that are named for each reason."""
OTHERS = "other reasons; failures.csv has them"


@dataclass
class FailureReason:
    """Images that failed for one reason."""

    stage: str
    """When: `plan`, `read`, `segment` or `measure`."""
    message: str
    """What the first of them says."""
    count: int = 0
    """How many."""
    names: list[str] = field(default_factory=list)
    """The first of them."""


def failures(table: Path) -> list[FailureReason]:
    """The reasons, the most frequent first; images fail for one reason where messages differ in numbers and names."""
    reasons: dict[tuple[str, str], FailureReason] = {}
    with open_table(table) as file:
        for row in csv_records(file):
            image, stage, message = row["image"], row["stage"], row["message"]
            key = stage, _alike(message.replace(image, ""))
            if key not in reasons and len(reasons) >= REASONS:
                key = "", OTHERS
            reason = reasons.setdefault(key, FailureReason(key[0], message if key[0] else OTHERS))
            reason.count += 1
            if len(reason.names) < NAMES:
                reason.names.append(file_name(image))
    return sorted(reasons.values(), key=lambda reason: -reason.count)


def _alike(message: str) -> str:
    """A message without what differs from image to image: numbers, quotations and paths."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+", "#", message)
