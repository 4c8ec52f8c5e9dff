"""The command `train`."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.cli.options import Device, DeviceChoice, Precision, PrecisionChoice, check_place
from nucseg_batch.errors import UsageError
from nucseg_batch.settings import FINE_TUNING, TrainSettings

_DEFAULT = TrainSettings()


class ArchitectureChoice(StrEnum):
    """Values of --architecture."""

    default = "default"
    unet = "unet"
    mobilenetv2 = "mobilenetv2"
    mobilenetv3 = "mobilenetv3"


class TaskChoice(StrEnum):
    """Values of --task."""

    instances = "instances"
    semantic = "semantic"


def _help(text: str, name: str) -> str:
    """Help of an option whose default differs with --init."""
    return f"{text} Default: {getattr(_DEFAULT, name):g}, with --init {FINE_TUNING[name]:g}."


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder of annotated images: images/ with labels/ or masks/, a.tif with a_masks.tif, Kaggle's "
            "<id>/images with <id>/masks, OUT.zarr made with --with-images, or OME-Zarr images with labels.",
        ),
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="Model file to write.")],
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Start from this model file; `default` is the one that ships."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    validation: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|SHARE",
            help="Folder of annotated images to validate on, or the share held out where an index.csv names none.",
        ),
    ] = str(_DEFAULT.validation),
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of index.csv; images of one group are never divided."),
    ] = None,
    architecture: Annotated[
        ArchitectureChoice, typer.Option(help="Network; with --init that of the model.")
    ] = ArchitectureChoice.default,
    encoder_weights: Annotated[
        str, typer.Option(metavar="imagenet|none|FILE", help="Where the encoder of a mobilenet starts.")
    ] = _DEFAULT.encoder_weights,
    task: Annotated[
        TaskChoice, typer.Option(help="Nuclei one by one, or only the foreground mask.")
    ] = TaskChoice.instances,
    diameter: Annotated[
        float, typer.Option(help="Pixels to which nuclei are brought for the network; with --init that of the model.")
    ] = _DEFAULT.diameter,
    epochs: Annotated[int | None, typer.Option(help=_help("Passes.", "epochs"))] = None,
    steps: Annotated[int | None, typer.Option(help=_help("Batches in a pass.", "steps"))] = None,
    learning_rate: Annotated[float | None, typer.Option(help=_help("Peak learning rate.", "learning_rate"))] = None,
    batch_size: Annotated[int, typer.Option(help="Crops in a batch.")] = _DEFAULT.batch_size,
    crop: Annotated[int, typer.Option(help="Side of a crop, in pixels.")] = _DEFAULT.crop,
    patience: Annotated[int, typer.Option(help="Passes without improvement before stopping.")] = _DEFAULT.patience,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    seed: Annotated[int, typer.Option(help="Seed of weights, crops and augmentation.")] = _DEFAULT.seed,
    workers: Annotated[int, typer.Option(help="Threads that prepare crops.")] = _DEFAULT.workers,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for a TensorBoard log.")] = None,
) -> None:
    """Train a model on annotated images, or fine-tune one.

    Example: nucseg-batch train annotated/ mine.keras --init default
    """
    tuning = FINE_TUNING if init is not None else {}
    share, folder = _share_or_folder(validation)
    settings = TrainSettings(
        architecture=architecture.value,
        task=task.value,
        encoder_weights=encoder_weights,
        diameter=diameter,
        epochs=epochs if epochs is not None else int(tuning.get("epochs", _DEFAULT.epochs)),
        steps=steps if steps is not None else int(tuning.get("steps", _DEFAULT.steps)),
        learning_rate=learning_rate
        if learning_rate is not None
        else float(tuning.get("learning_rate", _DEFAULT.learning_rate)),
        batch_size=batch_size,
        crop=crop,
        patience=patience,
        validation=share,
        group=group,
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
    _run(data, folder, model, settings, init, resume=resume, tensorboard=tensorboard)


def _run(
    data: Path,
    validation: Path | None,
    model: Path,
    settings: TrainSettings,
    init: str | None,
    *,
    resume: bool,
    tensorboard: Path | None,
) -> None:
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.printed import print_training
    from nucseg_batch.cli.training_progress import TrainingProgress
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.executors.stop import Stop
    from nucseg_batch.training.layouts import find_pairs

    with TrainingProgress(settings.epochs) as progress, Stop(tell=progress.note):
        found = find_pairs(data, group=settings.group)
        apart = find_pairs(validation) if validation else None
        for problem in [*found.problems, *(apart.problems if apart else ())]:
            progress.note(problem)
        import nucseg_batch.network  # noqa: F401 - loads Keras without the noise that TensorFlow makes
        from nucseg_batch.training.fit import Start
        from nucseg_batch.training.fit import train as fit

        start = Start(
            init=default_model() if init == "default" else Path(init) if init else None,
            resume=resume,
            tensorboard=tensorboard,
        )
        info = fit(
            found.pairs,
            model,
            settings,
            validation=apart.pairs if apart else (),
            start=start,
            command=" ".join(["nucseg-batch", *sys.argv[1:]]),
            progress=progress,
        )
    print_training(info.card["validation"])
    say("wrote " + "  ".join(str(model.with_name(f"{model.stem}{e}")) for e in (".keras", *_BESIDE)))


_BESIDE = (".history.csv", ".curves.png", ".examples.png")


def _share_or_folder(text: str) -> tuple[float, Path | None]:
    """The meaning of --validation: a share, or a folder and the usual share, which is then not used."""
    try:
        return float(text), None
    except ValueError:
        if not Path(text).is_dir():
            raise UsageError(f"--validation {text}: it is neither a folder nor a share between 0 and 1.") from None
        return _DEFAULT.validation, Path(text)
