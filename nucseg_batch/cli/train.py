"""The command `train`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nucseg_batch.cli.options import check_place
from nucseg_batch.cli.record_options import with_options
from nucseg_batch.errors import UsageError
from nucseg_batch.machine.gpus import keep_visible
from nucseg_batch.settings import DATA, NETWORK, TRAINING
from nucseg_batch.training.settings import FINE_TUNING, TrainSettings

_DEFAULT = TrainSettings()


def _help(text: str, name: str) -> str:
    """Help of an option whose default differs with --init."""
    return f"{text} Default: {getattr(_DEFAULT, name):g}, with --init {FINE_TUNING[name]:g}."


def _steps(name: str, text: str, least: int) -> Any:
    """An option that counts passes or batches."""
    return typer.Option(f"--{name}", metavar="N", min=least, help=_help(text, name), rich_help_panel=TRAINING)


@with_options()
def train(
    context: typer.Context,
    *,
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA",
            help="Folders of annotated images: images/ with labels/ or masks/, a.tif with a_masks.tif, Kaggle's "
            "<id>/images with <id>/masks, OUT.zarr made with --with-images, or OME-Zarr images with labels.",
        ),
    ],
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="Model file to write.")],
    init: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Start from this model: a file, the name of a model kept by `models add`, or `default`, the model of "
            "the package.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    settings: TrainSettings,
    validation: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|SHARE",
            help="Folder of annotated images to validate on, or the share held out, between 0 and 1, where an "
            "index.csv names none.",
            rich_help_panel=DATA,
        ),
    ] = str(_DEFAULT.validation),
    epochs: Annotated[int | None, _steps("epochs", "Passes; 0 trains only the size network.", 0)] = None,
    steps: Annotated[int | None, _steps("steps", "Batches in a pass.", 1)] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help=_help("Peak learning rate, above 0.", "learning_rate"),
            rich_help_panel=TRAINING,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume a training that was stopped.", rich_help_panel=TRAINING),
    ] = False,
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for a TensorBoard log.", rich_help_panel=TRAINING),
    ] = None,
) -> None:
    """Train a model on annotated images, or fine-tune one.

    Examples:
    # teach the default model your microscope: some dozen images will do
    nucseg-batch train annotated/ mine.keras --init default
    # the same after a kill
    nucseg-batch train annotated/ mine.keras --init default --resume
    # from several collections, each of which counts
    nucseg-batch train plates/ tissue/ mine.keras
    # from nothing, validated on a folder of its own
    nucseg-batch train annotated/ mine.keras --validation held_out/
    nucseg-batch segment images/ out.zarr --model mine.keras
    """
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.executors.kept_models import find_model
    from nucseg_batch.files.atomic_write import write_whole

    share, folder = _share_or_folder(validation)
    given = {"epochs": epochs, "steps": steps, "learning_rate": learning_rate}
    passes = FINE_TUNING if init is not None else {}
    passes = {**passes, **{name: one for name, one in given.items() if one is not None}}
    settings = dataclasses.replace(settings, validation=share, **passes)
    if model.suffix != ".keras":
        raise UsageError(
            f"MODEL must be a name that ends in .keras, such as {model.name or 'mine'}.keras, but is {model}."
        )
    if model.exists():
        raise UsageError(f"{model} exists; give another name, or delete it first.")
    check_place(model)
    start = None if init is None else find_model(init, "--init") or default_model()
    _run(data, folder, model, settings, start, resume=resume, tensorboard=tensorboard)
    write_whole(model.with_name(f"{model.stem}.config.toml"), used_config(context))


def _run(
    data: Sequence[Path],
    validation: Path | None,
    model: Path,
    settings: TrainSettings,
    init: Path | None,
    *,
    resume: bool,
    tensorboard: Path | None,
) -> None:
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.training_progress import TrainingProgress
    from nucseg_batch.executors.stop import Stop

    with (
        TrainingProgress(settings.epochs) as progress,
        Stop(tell=progress.note, ended=answer_error, again="To continue, run the same command with --resume."),
    ):
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import say
        from nucseg_batch.cli.printed import print_training
        from nucseg_batch.files.annotations import find_all_pairs, find_pairs

        found = find_all_pairs(data, group=settings.group)
        apart = find_pairs(validation) if validation else None
        for problem in [*found.problems, *(apart.problems if apart else ())]:
            progress.note(problem)
        keep_visible(0 if settings.device == "cpu" else 1)
        from nucseg_batch.network.backend import resolve_device  # loads Keras without the noise that TensorFlow makes
        from nucseg_batch.network.missing_gpu import unused_gpu
        from nucseg_batch.training.fit import Start
        from nucseg_batch.training.fit import train as fit

        if settings.device == "auto" and (line := unused_gpu(resolve_device("auto"))):
            progress.note(line)
        start = Start(
            init=init,
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


_BESIDE = (".history.csv", ".curves.png", ".examples.png", ".config.toml")


def used_config(context: typer.Context) -> str:
    """What a training was made with, as a file for --config; DATA and MODEL are given anew."""
    from nucseg_batch.files.toml import to_toml

    values: dict[str, Any] = {}
    for name, value in context.params.items():
        if name in _PLACES and value is not None and Path(value).exists():  # as it is found from any folder
            value = str(Path(value).absolute())
        if name not in ("data", "model", "resume"):
            values[name.replace("_", "-")] = str(value) if isinstance(value, Path | StrEnum) else value
    heading = "What this model was trained with. To do the same: nucseg-batch train DATA NEW.keras --config THIS_FILE"
    return to_toml({"train": values}, [heading])


_PLACES = ("init", "encoder_weights", "validation", "tensorboard")
"""Options of `train` that may name a file or folder."""


def _share_or_folder(text: str) -> tuple[float, Path | None]:
    """The meaning of --validation: a share, or a folder and the usual share, which is then not used."""
    try:
        return float(text), None
    except ValueError:
        if not Path(text).is_dir():
            raise UsageError(f"--validation {text}: it is neither a folder nor a share between 0 and 1.") from None
        return _DEFAULT.validation, Path(text)
