"""Scoring masks from Python."""

from __future__ import annotations

import os
from pathlib import Path

from nucseg_batch.pipeline.evaluate import Evaluation, find_index
from nucseg_batch.pipeline.evaluate import evaluate as compare
from nucseg_batch.results.track_scores import TrackEvaluation
from nucseg_batch.results.track_scores import evaluate_tracks as compare_tracks


def evaluate(
    prediction: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    index: str | os.PathLike[str] | None = None,
    group: str = "modality",
    strict: bool = False,
    volumes: bool = False,
) -> Evaluation:
    """Compares masks with annotation, as `nucseg-batch evaluate PRED TRUTH` does.

    Args:
        prediction: OUT.zarr of a run, a folder of label images or of annotated images, or OME-Zarr labels.
        truth: The annotation, likewise.
        index: A CSV with the columns `id` and `group`; None for the nearest index.csv at or above `truth`.
        group: Column of the index by which scores are grouped.
        strict: Whether doubtful assumptions about the label images are errors; `result.assumptions` lists all.
        volumes: Compare volumes of z-stacks: a run with `--link z`, or label stacks in which a nucleus has one label.

    Returns:
        The scores. `result.groups["all"].image_mean["ap_50"]` is the mean AP at an IoU of .50, and `result.rows()` has
        all values per image.

    Raises:
        NucsegError: What `nucseg_batch.pipeline.evaluate.evaluate` raises.
    """
    truth = Path(truth)
    found = find_index(truth, group) if index is None else Path(index)
    options = {"strict": strict, "volumes": volumes}
    return compare(Path(prediction), truth, index=found, group=group, progress=lambda done, total: None, **options)


def evaluate_tracks(prediction: str | os.PathLike[str], truth: str | os.PathLike[str]) -> TrackEvaluation:
    """Compares tracks with annotated ones, as `nucseg-batch evaluate PRED TRUTH --tracks` does.

    Args:
        prediction: OUT.zarr of a run with `--link t`, or a folder with results of the Cell Tracking Challenge, such as
            `01_RES`.
        truth: A folder with annotation of the Cell Tracking Challenge, such as `01_GT`.

    Returns:
        The scores. `result.mean["TRA"]` is the mean TRA over movies, and `result.rows()` has all values per movie.

    Raises:
        NucsegError: What `nucseg_batch.results.track_scores.evaluate_tracks` raises.
    """
    return compare_tracks(Path(prediction), Path(truth), progress=lambda done, total: None)
