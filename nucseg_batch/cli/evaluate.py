"""The command `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import check_place


def evaluate(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="OUT.zarr of a run, or a folder of label images.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder of annotated label images of the same names.")],
    index: Annotated[
        Path | None,
        typer.Option(help="CSV with columns id and GROUP; default: the nearest index.csv at or above TRUTH."),
    ] = None,
    group: Annotated[str, typer.Option(help="Column of the index whose values are scored apart.")] = "modality",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write all scores to this file.")] = None,
) -> None:
    """Score masks against annotation: average precision at IoU .50 to .95, and F1.

    Example: nucseg-batch evaluate out.zarr truth/ --json scores.json
    """
    from nucseg_batch.cli.progress import StepProgress
    from nucseg_batch.cli.report import print_evaluation
    from nucseg_batch.pipeline.evaluate import evaluate as compare
    from nucseg_batch.pipeline.evaluate import find_index

    if json_file is not None:
        check_place("--json", json_file)
    index = index or find_index(truth, group)
    result = compare(prediction, truth, index=index, group=group, progress=StepProgress("matching"))
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    print_evaluation(result, index, group)
