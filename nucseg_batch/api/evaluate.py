"""Scoring masks from Python."""

from __future__ import annotations

import os
from pathlib import Path

from nucseg_batch.pipeline.evaluate import Evaluation, find_index
from nucseg_batch.pipeline.evaluate import evaluate as compare


def evaluate(
    prediction: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] | None = None,
    group: str = "modality",
    strict: bool = False,
) -> Evaluation:
    """Compares masks with annotation, as `nucseg-batch evaluate PRED TRUTH` does.

    Args:
        prediction: OUT.zarr of a run, a folder of label images or of annotated images, or OME-Zarr labels.
        truth: The annotation, likewise.
        index: A CSV with the columns `id` and `group`; None for the nearest index.csv at or above `truth`.
        group: Column of the index by which scores are grouped.
        strict: Whether doubtful assumptions about the label images are errors; `result.assumptions` lists all.

    Returns:
        The scores. `result.groups["all"].image_mean["ap_50"]` is the mean AP at an IoU of .50, and `result.rows()` has
        all values per image.

    Raises:
        NucsegError: What `nucseg_batch.pipeline.evaluate.evaluate` raises.
    """
    truth = Path(truth)
    found = find_index(truth, group) if index is None else Path(index)
    return compare(Path(prediction), truth, index=found, group=group, progress=lambda done, total: None, strict=strict)
