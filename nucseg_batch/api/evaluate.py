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

    prediction, truth: OUT.zarr of a run, folders of label images or of annotated images, or OME-Zarr labels. strict:
    whether doubtful assumptions about them are errors; `result.assumptions` lists all. index: a CSV with the columns id
    and `group`; None takes the nearest index.csv at or above the truth. `result.groups["all"].image_mean["ap_50"]` is
    the mean AP at an IoU of .50; `result.rows()` has all values of each image. Raises what
    `nucseg_batch.pipeline.evaluate.evaluate` does.
    """
    truth = Path(truth)
    found = find_index(truth, group) if index is None else Path(index)
    return compare(Path(prediction), truth, index=found, group=group, progress=lambda done, total: None, strict=strict)
