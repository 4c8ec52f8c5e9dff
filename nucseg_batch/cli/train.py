"""The command `train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import Device, DeviceChoice, Precision, PrecisionChoice, check_place
from nucseg_batch.errors import UsageError
from nucseg_batch.settings import TrainSettings

_DEFAULT = TrainSettings()


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with images/ and labels/ (and optionally index.csv), or <id>/images and <id>/masks.",
        ),
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="Model file to write.")],
    epochs: Annotated[int, typer.Option(help="Passes.")] = _DEFAULT.epochs,
    steps: Annotated[int, typer.Option(help="Batches in a pass.")] = _DEFAULT.steps,
    batch_size: Annotated[int, typer.Option(help="Crops in a batch.")] = _DEFAULT.batch_size,
    crop: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = _DEFAULT.crop,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = _DEFAULT.learning_rate,
    patience: Annotated[int, typer.Option(help="Passes without improvement before stopping.")] = _DEFAULT.patience,
    validation: Annotated[
        float, typer.Option(help="Share of images held out where the data set names no validation images.")
    ] = _DEFAULT.validation,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    seed: Annotated[int, typer.Option(help="Seed of weights, crops and augmentation.")] = _DEFAULT.seed,
    workers: Annotated[int, typer.Option(help="Threads that prepare crops.")] = _DEFAULT.workers,
) -> None:
    """Train a model on annotated images.

    Example: nucseg-batch train dsb2018/ mine.keras
    """
    settings = TrainSettings(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        crop=crop,
        learning_rate=learning_rate,
        patience=patience,
        validation=validation,
        precision=precision.value,
        device=device.value,
        seed=seed,
        workers=workers,
    )
    if model.suffix != ".keras":
        raise UsageError(f"MODEL must be a name that ends in .keras, such as mine.keras, but is {model}.")
    if model.exists():
        raise UsageError(f"MODEL {model} exists; give another name, or delete it first.")
    check_place("MODEL", model)
    from nucseg_batch.cli.console import say
    from nucseg_batch.training.data import find_pairs

    pairs = find_pairs(data)
    from nucseg_batch.training.fit import train as fit

    command = " ".join(["nucseg-batch", *sys.argv[1:]])
    info = fit(pairs, model, settings, command=command, report=lambda line: print(line, file=sys.stderr, flush=True))
    say(f"on validation images: {json.dumps(info.card['validation'])}")
    say(f"wrote {model}")
