"""What a run is begun with, for tests of what writes it down."""

from __future__ import annotations

from typing import Any

from nucseg_batch.files.run.records import Beginning, Seen
from nucseg_batch.plan import Plan
from nucseg_batch.settings import SegmentSettings

SEEN = Seen(3001, 3011, "a" * 64)
"""An input as it was read."""


def beginning(plan: Plan, **more: Any) -> Beginning:
    """A beginning of this plan, of whose other parts `more` says those that matter."""
    planned = {image.key: (image.size, image.mtime_ns) for stack in plan.stacks for image in stack.images}
    plain: dict[str, Any] = {"root": "/in", "model": "", "settings": SegmentSettings(), "fingerprint": {}}
    return Beginning(**{**plain, "plan": plan, "files": planned, **more})
