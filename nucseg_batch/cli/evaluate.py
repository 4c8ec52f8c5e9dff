"""The command `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import STDOUT, check_place
from nucseg_batch.errors import UsageError
from nucseg_batch.settings import OUTPUT

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
            help="Write one row per image to this file.",
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
        typer.Option(metavar="N", min=0, help="List the N images with the lowest mean AP.", rich_help_panel=OUTPUT),
    ] = 0,
) -> None:
    """Score masks against annotation.

    AP, precision, recall and F1 over IoU thresholds, PQ, AJI, IoU, Dice and counts.

    Examples:
    nucseg-batch evaluate out.zarr truth/
    # a row for each image, and the five worst
    nucseg-batch evaluate out.zarr truth/ --csv scores.csv --worst 5
    # for a script
    nucseg-batch evaluate out.zarr truth/ --json - --quiet > scores.json
    """
    from nucseg_batch.cli.console import answer, say
    from nucseg_batch.cli.evaluation_report import print_evaluation, write_csv, write_json
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.pipeline.evaluate import evaluate as compare
    from nucseg_batch.pipeline.evaluate import find_index

    for option, path in (("--csv", csv_file), ("--json", json_file)):
        if path is not None and path != STDOUT:
            check_place(path, option)
    if csv_file is not None and json_file is not None and csv_file.resolve() == json_file.resolve():
        raise UsageError(f"--csv and --json are both {csv_file}; give two files.")
    index = index or find_index(truth, group or "modality")
    if group is not None and index is None:
        raise UsageError(f"--group {group}: no index.csv at or above {truth} has columns id and {group}; give --index.")
    group = group or "modality"
    result = compare(prediction, truth, index=index, group=group, progress=StepProgress("comparing"), strict=strict)
    if csv_file is not None:
        write_csv(csv_file, result)
    if json_file is not None and json_file != STDOUT:
        write_json(json_file, result)
    print_evaluation(result, index, group, worst=worst)
    written = [str(path) for path in (csv_file, json_file) if path not in (None, STDOUT)]
    if written:
        say("wrote " + "  ".join(written))
    if json_file == STDOUT:
        answer(result.as_json())
