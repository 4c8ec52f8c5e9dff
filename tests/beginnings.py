"""What a run is begun with, for tests of what writes it down."""

from __future__ import annotations

from typing import Any

from nucseg_batch.files.run.records import PlaneFingerprint, RunSpec
from nucseg_batch.plan import Plan
from nucseg_batch.settings import SegmentSettings

SEEN = PlaneFingerprint(3001, 3011, "a" * 64)
"""An input as it was read."""


def beginning(plan: Plan, **more: Any) -> RunSpec:
    """A beginning of this plan, of whose other parts `more` says those that matter."""
    planned = {image.key: (image.size, image.mtime_ns) for stack in plan.label_arrays for image in stack.images}
    plain: dict[str, Any] = {"root": "/in", "model": "", "settings": SegmentSettings(), "fingerprint": {}}
    return RunSpec(**{**plain, "plan": plan, "files": planned, **more})
