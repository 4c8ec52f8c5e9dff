"""What `evaluate` prints and writes: tables for 80 columns, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from nucseg_batch.cli.console import console, say
from nucseg_batch.files.csv_rows import csv_text
from nucseg_batch.files.names import readable
from nucseg_batch.pipeline.evaluate import ALL, Evaluation, ImageResult
from nucseg_batch.results.track_scores import MEASURES, TrackEvaluation

SHOWN = 20
"""Movies that are listed unless --worst says how many."""
Column = tuple[str, str]
"""Heading and name of a value."""

QUALITY: tuple[Column, ...] = (
    ("images", "images"),
    ("mean AP", "mean_ap"),
    ("AP@.5", "ap_50"),
    ("AP@.75", "ap_75"),
    ("PQ", "pq"),
    ("AJI", "aji"),
)
FINDING: tuple[Column, ...] = (
    ("P@.5", "precision_50"),
    ("R@.5", "recall_50"),
    ("F1@.5", "f1_50"),
    ("P@.75", "precision_75"),
    ("R@.75", "recall_75"),
    ("F1@.75", "f1_75"),
)
EXTENT: tuple[Column, ...] = (
    ("IoU", "iou"),
    ("Dice", "dice"),
    ("nuclei", "annotated"),
    ("error", "count_error"),
    ("|error|", "count_error_absolute"),
    ("relative", "count_error_relative"),
)


def write_csv(path: Path, result: Evaluation | TrackEvaluation) -> None:
    """Writes a row for each image or movie; `rows` of the result says what the columns are."""
    rows = list(result.rows())
    path.write_text(csv_text([list(rows[0]), *(list(row.values()) for row in rows)]), encoding="utf-8", newline="")


def write_json(path: Path, result: Evaluation | TrackEvaluation) -> None:
    """Writes everything; `as_json` of the result says what is where."""
    path.write_text(json.dumps(result.as_json(), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def print_evaluation(result: Evaluation, index: Path | None, group: str, *, worst: int) -> None:
    """Prints scores by group, those of all images by threshold, and the `worst` images."""
    out = console(soft_wrap=False)
    out.print(_table(result, "AP at IoU thresholds, panoptic quality, aggregated Jaccard index", QUALITY))
    out.print(_table(result, "Precision, recall and F1 at IoU thresholds", FINDING))
    what = "voxels; volumes" if result.volumes else "pixels; nuclei"
    out.print(_table(result, f"Foreground {what}, and the error of their count", EXTENT))
    out.print(_thresholds(result))
    say("mean: over images; pooled: all images seen as one; --csv, --json: all values")
    if index is not None:
        say(f"groups: column {group} of {index}")
    _print_notes(result)
    if result.missing:
        say(f"annotated images without a prediction, which count as all missed: {len(result.missing)}")
    if worst:
        _print_worst(result.worst(worst))


def print_tracks(result: TrackEvaluation, *, worst: int) -> None:
    """Prints the means of all movies, and the scores of each of them or, of many, of the `worst`."""
    rows = result.worst(worst) if worst else result.sequences[:SHOWN] if len(result.sequences) <= SHOWN else ()
    table = _plain_table("Measures of the Cell Tracking Challenge", "movie", "frames", "tracks", "found", *MEASURES)
    for one in rows:
        counts = (str(number) for number in (one.frames, one.annotated, one.found))
        table.add_row(Text(readable(one.name)), *counts, *(_number(name, one.measures[name]) for name in MEASURES))
    mean = (_number(name, value) for name, value in result.mean.items())
    table.add_row(f"mean of {len(result.sequences)}", "", "", "", *mean)
    console(soft_wrap=False).print(table)
    say("tracks, found: annotated and predicted; after a gap, a track counts as a new one")
    _print_notes(result)
    missing = sum(not one.predicted for one in result.sequences)
    if missing:
        say(f"annotated movies without a prediction, which score 0: {missing}")


def _print_notes(result: Evaluation | TrackEvaluation) -> None:
    for note in result.notes:
        say(note)
    for one in result.assumptions:
        say(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")


def _table(result: Evaluation, title: str, columns: Sequence[Column]) -> Table:
    """A row of means and a row of pooled values for each group."""
    table = _plain_table(title, "group", "", *(heading for heading, _ in columns))
    for name, summary in result.groups.items():
        rows = ((Text(readable(name)), "mean", summary.image_mean), (Text(), "pooled", summary.pooled))
        for first, over, values in rows:
            known = values | {"images": summary.images}
            table.add_row(first, over, *(_number(key, known[key]) for _, key in columns))
    return table


def _thresholds(result: Evaluation) -> Table:
    """Average precision and F1 of all images at every threshold, with the counts."""
    headings = ("AP mean", "pooled", "F1 mean", "pooled", "TP", "FP", "FN")
    table = _plain_table("All images by IoU threshold", "IoU", *headings)
    for score in result.groups[ALL].scores:
        values = (score.ap_image_mean, score.ap_pooled, score.f1_image_mean, score.f1_pooled)
        counts = (score.tp, score.fp, score.fn)
        table.add_row(f"{score.threshold:.2f}", *(f"{v:.3f}" for v in values), *(str(c) for c in counts))
    return table


def _plain_table(title: str, first: str, *headings: str) -> Table:
    """A table whose first column gives way where the terminal is narrow; numbers are never cut."""
    table = Table(box=box.SIMPLE, title=title, title_justify="left", title_style="bold")
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="right" if heading else "left")
    return table


def _print_worst(images: Sequence[ImageResult]) -> None:
    """A line for each image, its name last so that it can be as long as it likes."""
    say(f"the {len(images)} images of the lowest mean AP:")
    say(f"{'mean AP':>9}{'AP@.5':>7}{'PQ':>7}{'nuclei':>8}{'found':>7}  image")
    for result in images:
        values = result.agreement.values()
        scores = f"{values['mean_ap']:>9.3f}{values['ap_50']:>7.3f}{values['pq']:>7.3f}"
        counts = f"{values['annotated']:>8}{values['predicted']:>7}"
        say(f"{scores}{counts}  {result.image}{f' ({result.group})' if result.group else ''}")


def _number(name: str, value: float | int | None) -> str:
    """A value as the tables show it: counts whole, their means to a tenth, errors with their sign, scores as 0.123."""
    if value is None:
        return "-"
    if name == "count_error":
        return f"{value:+d}" if isinstance(value, int) else f"{value:+.1f}"
    if name in ("images", "annotated", "count_error_absolute"):
        return str(value) if isinstance(value, int) else f"{value:.1f}"
    return f"{value:.3f}"
