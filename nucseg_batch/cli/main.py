"""The command line: parses, builds settings, calls, and turns errors into one line and an exit code.

Commands import what they run only when they run, so that `--help` answers at once and never loads Keras. This is the
only place that prints results or reads the environment.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch import __version__
from nucseg_batch.cli.text import readable
from nucseg_batch.errors import (
    EXIT_BUG,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    NucsegError,
    OutputError,
    StorageError,
    UsageError,
)
from nucseg_batch.settings import SegmentSettings, TrainSettings

app = typer.Typer(
    name="nucseg-batch",
    help="Find nuclei in large collections of microscope images: OME-Zarr masks and statistics of each nucleus.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DEFAULT = TrainSettings()
_BadUsage: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What the parser raises; some versions of Typer take it from click, others carry their own."""


class PrecisionChoice(StrEnum):
    """Values of --precision."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


class DeviceChoice(StrEnum):
    """Values of --device."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class ChannelChoice(StrEnum):
    """Values of --channel."""

    auto = "auto"
    grey = "grey"
    red = "red"
    green = "green"
    blue = "blue"


Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="Arithmetic of the network; auto is bfloat16 where the processor computes in it, else float32."),
]
Device = Annotated[DeviceChoice, typer.Option(help="Where to compute; auto takes a GPU when there is one.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"nucseg-batch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options before the command; `--debug` is read by `main`, which also works when nothing parses."""


@app.command()
def segment(
    folder: Annotated[Path, typer.Argument(metavar="IN", help="Folder of PNG, JPEG and TIFF images, at any depth.")],
    store: Annotated[Path, typer.Argument(metavar="OUT.zarr", help="Store for the masks; the tables go beside it.")],
    model: Annotated[
        Path | None, typer.Option(help="Model file made by `train`; without it, the one that ships with the package.")
    ] = None,
    channel: Annotated[
        ChannelChoice, typer.Option(help="Which channel of colour images shows the nuclei; auto uses all three.")
    ] = ChannelChoice.auto,
    threshold: Annotated[
        float | None,
        typer.Option(help="Foreground probability of a nucleus' pixels, 0 to 1; default: the model's own."),
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(help="Smallest nucleus to keep, in pixels; default: the model's own.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in one call of the network; default: by image size. Changes speed only.")
    ] = None,
    precision: Precision = PrecisionChoice.auto,
    device: Device = DeviceChoice.auto,
    workers: Annotated[
        int | None,
        typer.Option(help="Threads that read images; default: half the processor's cores. Changes speed only."),
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(help="Refuse images with more pixels than this.")
    ] = SegmentSettings.max_pixels,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier output of nucseg-batch at OUT.zarr and start over.")
    ] = False,
) -> None:
    """Segment every image of a folder; the same command again does what is missing.

    Example: nucseg-batch segment images/ out.zarr
    """
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.cli.report import print_job, print_run
    from nucseg_batch.executors import local

    settings = SegmentSettings(
        threshold=threshold,
        min_area=min_area,
        channel=channel.value,
        precision=precision.value,
        device=device.value,
        max_pixels=max_pixels,
        batch_size=batch_size,
        workers=workers,
    )
    if store.suffix != ".zarr":
        raise UsageError(f"OUT must be a name that ends in .zarr, such as out.zarr, but is {store}.")
    with RunProgress() as progress:
        job = local.prepare(folder, store, model, settings, progress, overwrite=overwrite)
        if dry_run:
            print_job(job)
            return
        summary = local.run(job, progress)
    print_run(summary)
    if summary.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@app.command()
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
    _check_place("MODEL", model)
    from nucseg_batch.cli.console import say
    from nucseg_batch.training.data import find_pairs

    pairs = find_pairs(data)
    from nucseg_batch.training.fit import train as fit

    command = " ".join(["nucseg-batch", *sys.argv[1:]])
    info = fit(pairs, model, settings, command=command, report=lambda line: print(line, file=sys.stderr, flush=True))
    say(f"on validation images: {json.dumps(info.card['validation'])}")
    say(f"wrote {model}")


@app.command()
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
        _check_place("--json", json_file)
    index = index or find_index(truth, group)
    result = compare(prediction, truth, index=index, group=group, progress=StepProgress("matching"))
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_json(), indent=1) + "\n", encoding="utf-8")
    print_evaluation(result, index, group)


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for the images.")],
    seed: Annotated[int, typer.Option(help="Seed of the simulated fields.")] = 1,
) -> None:
    """Write a small data set to try things on: simulated fields with known truth, and a real histology image.

    Example: nucseg-batch sample images/
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.files.sample import truth_folder, write_sample

    paths = write_sample(folder, seed=seed)
    say(f"wrote {len(paths)} images to {folder} and the truth of the simulated ones to {truth_folder(folder)}")


def _check_place(name: str, path: Path) -> None:
    """Makes the folder of a file that will be written after long work; OutputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(f"{name} {path}: it cannot be written there; give another place.")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{name} {path}: it cannot be written ({error.strerror}); give another place.") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits with the codes that errors.py lists."""
    _open_closed_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # it may stand before or after a command
    code = _run(arguments, debug)
    sys.exit(code)


def _run(arguments: list[str], debug: bool) -> int:
    stopped = "stopped; run the same command again to go on." if "segment" in arguments[:1] else "stopped."
    try:
        code = int(app(arguments, prog_name="nucseg-batch", standalone_mode=False) or EXIT_OK)
        return _tell(stopped, None, code) if code == EXIT_INTERRUPTED else code
    except NucsegError as error:
        return _tell(str(error), error if debug else None, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(stopped, None, EXIT_INTERRUPTED)
    except _BadUsage as error:
        error.show()  # type: ignore[attr-defined]
        return EXIT_USAGE
    except OSError as error:
        line = f"{error.strerror or type(error).__name__}: {error.filename or 'while reading or writing'}"
        return _tell(line, error if debug else None, StorageError.exit_code)
    except Exception as error:  # a bug of ours: say so in one line, and how to see more
        line = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        return _tell(line, error if debug else None, EXIT_BUG)


def _open_closed_streams() -> None:
    """Gives a program that was started with closed streams the null device, so that no file takes their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _tell(line: str, error: BaseException | None, code: int) -> int:
    if error is not None:
        traceback.print_exception(error)
    print(f"nucseg-batch: {readable(line)}", file=sys.stderr)
    return code
