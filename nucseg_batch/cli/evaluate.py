"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_batch.cli.options import STDOUT, check_place
from nucseg_batch.errors import UsageError
from nucseg_batch.settings import OUTPUT

if TYPE_CHECKING:
    from nucseg_batch.pipeline.evaluate import Evaluation
    from nucseg_batch.results.track_scores import TrackEvaluation

COMPARED = "What is compared"


def evaluate(
    prediction: Annotated[
        Path, typer.Argument(metavar="PRED", help="OUT.zarr of a run, or label images as for TRUTH.")
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Annotation with the same names: a folder of label images, annotated images as for `train`, "
            "OUT.zarr of a run, an OME-Zarr image with labels, or an OME-Zarr label image.",
        ),
    ],
    volumes: Annotated[
        bool,
        typer.Option(
            "--volumes",
            help="Score the volumes of z-stacks: PRED is a run with --link z or label stacks, TRUTH label stacks (TIFF "
            "or OME-Zarr) in which a nucleus has one label in all slices.",
            rich_help_panel=COMPARED,
        ),
    ] = False,
    tracks: Annotated[
        bool,
        typer.Option(
            "--tracks",
            help="Score the tracks of movies by DET, SEG and TRA: PRED is a run with --link t or results of the Cell "
            "Tracking Challenge (01_RES), TRUTH its annotation (01_GT). Needs py-ctcmetrics.",
            rich_help_panel=COMPARED,
        ),
    ] = False,
    index: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV with columns id and GROUP; default: the nearest index.csv at or above TRUTH.",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the index to group images by; default: modality, if it exists.",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Refuse label images whose encoding or pairing is doubtful.",
            rich_help_panel=COMPARED,
        ),
    ] = False,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write one row per image, or movie, to this file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE|-",
            help="Write all scores to this file; - prints them, and tables go to stderr.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="List the N images with the lowest mean AP, or movies with the lowest TRA.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
) -> None:
    """Score masks, volumes or tracks against annotation.

    AP, precision, recall and F1 over IoU thresholds, PQ, AJI, IoU, Dice and counts; of tracks DET, SEG, TRA and LNK.

    Examples:
    nucseg-batch evaluate out.zarr truth/
    # a row for each image, and the five worst
    nucseg-batch evaluate out.zarr truth/ --csv scores.csv --worst 5
    # volumes of z-stacks, and tracks of movies
    nucseg-batch evaluate stacks.zarr truth/ --volumes
    nucseg-batch evaluate movies.zarr truth/ --tracks
    # for a script
    nucseg-batch evaluate out.zarr truth/ --json - --quiet > scores.json
    """
    if volumes and tracks:
        raise UsageError("--volumes and --tracks exclude each other; give one.")
    for option, path in (("--csv", csv_file), ("--json", json_file)):
        if path is not None and path != STDOUT:
            check_place(path, option)
    if csv_file is not None and json_file is not None and csv_file.resolve() == json_file.resolve():
        raise UsageError(f"--csv and --json are both {csv_file}; give two files.")
    if tracks:
        _refuse_for_tracks({"--index": index, "--group": group, "--strict": strict})
        _evaluate_tracks(prediction, truth, csv_file, json_file, worst)
        return
    from nucseg_batch.cli.evaluation_report import print_evaluation
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.pipeline.evaluate import evaluate as compare
    from nucseg_batch.pipeline.evaluate import find_index

    index = index or find_index(truth, group or "modality")
    if group is not None and index is None:
        raise UsageError(f"--group {group}: no index.csv at or above {truth} has columns id and {group}; give --index.")
    group = group or "modality"
    progress = StepProgress("comparing")
    result = compare(prediction, truth, index=index, group=group, progress=progress, strict=strict, volumes=volumes)
    _write(result, csv_file, json_file)
    print_evaluation(result, index, group, worst=worst)
    _answer(result, csv_file, json_file)


def _refuse_for_tracks(options: Mapping[str, object]) -> None:
    """Raises UsageError for an option that has no meaning with --tracks."""
    for option, value in options.items():
        if value:
            raise UsageError(f"--tracks cannot be used with {option}; leave one out.")


def _evaluate_tracks(prediction: Path, truth: Path, csv_file: Path | None, json_file: Path | None, worst: int) -> None:
    from nucseg_batch.cli.evaluation_report import print_tracks
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.results.track_scores import evaluate_tracks

    result = evaluate_tracks(prediction, truth, progress=StepProgress("comparing"))
    _write(result, csv_file, json_file)
    print_tracks(result, worst=worst)
    _answer(result, csv_file, json_file)


def _write(result: Evaluation | TrackEvaluation, csv_file: Path | None, json_file: Path | None) -> None:
    from nucseg_batch.cli.evaluation_report import write_csv, write_json

    if csv_file is not None:
        write_csv(csv_file, result)
    if json_file is not None and json_file != STDOUT:
        write_json(json_file, result)


def _answer(result: Evaluation | TrackEvaluation, csv_file: Path | None, json_file: Path | None) -> None:
    """Says what was written, and prints the JSON where that was asked for."""
    from nucseg_batch.cli.console import answer, say

    written = [str(path) for path in (csv_file, json_file) if path not in (None, STDOUT)]
    if written:
        say("wrote " + "  ".join(written))
    if json_file == STDOUT:
        answer(result.as_json())
