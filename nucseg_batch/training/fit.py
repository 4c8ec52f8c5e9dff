"""Trains a model: annotated images in, model file out, with everything on the way kept in plain files.

The pieces are Keras's own where it has them (fit, averaged weights, TensorBoard); what is added is a validation that
measures what users care about, nuclei found by the program that `segment` will run, and going on after a kill.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from nucseg_batch.errors import InputMissingError, MismatchError, UsageError
from nucseg_batch.files.annotations import Pair
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import NetworkSpec, build, load_encoder, network_spec, trained_encoder
from nucseg_batch.network.model_file import Model, ModelInfo, load_model, save_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.blend import SHARES, blend
from nucseg_batch.training.callbacks import (
    Backup,
    History,
    KeepBest,
    NucleiFound,
    Progress,
    nuclei_found,
)
from nucseg_batch.training.crops import Crops, plain_crops
from nucseg_batch.training.data import Sample, fingerprint, read_all, split_pairs
from nucseg_batch.training.on_device import CropLearner
from nucseg_batch.training.optimizer import averaging_adamw
from nucseg_batch.training.pictures import save_curves, save_examples
from nucseg_batch.training.settings import TrainSettings
from nucseg_batch.training.sizes import fitted_sizer
from nucseg_batch.training.tuning import tuned

FEW = 5
"""Fewer validation images say little."""
EMA_MOMENTUM = 0.998
"""Of the running average of weights that is validated and saved, in trainings of 7500 steps and more."""


@dataclass(frozen=True)
class Start:
    """Where a training begins."""

    init: Path | None = None
    """A model whose weights are the start; its architecture, task, widths and diameter are taken over."""
    resume: bool = False
    """Whether to go on with a training of the same settings that was stopped."""
    tensorboard: Path | None = None
    """Folder for TensorBoard's log, where one is wanted."""


@backend.own_settings()
def train(
    pairs: Sequence[Pair],
    path: Path,
    settings: TrainSettings,
    *,
    validation: Sequence[Pair] = (),
    start: Start | None = None,
    command: str,
    progress: Progress,
) -> ModelInfo:
    """Trains on annotated images and writes the model to `path`; returns what the file says of itself.

    `validation` are the images to validate on, where they are apart from `pairs`. Beside the model go
    `<stem>.history.csv`, `<stem>.curves.png` and `<stem>.examples.png`, and until the end what `--resume` needs.
    `command` is recorded in the card. Raises ImageError for annotated images that cannot be used, NothingToDoError
    where there are too few, DoubtfulInputError for doubtful annotation with `settings.strict`, MismatchError where a
    training cannot go on, and UsageError where the loss stops being a number.
    """
    start = start or Start()
    _check_start(path, start, settings)
    keras.utils.set_random_seed(settings.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    given = load_model(start.init, argument="--init") if start.init else None
    if given is not None:
        settings = _taken_over(settings, given.info)
    spec = network_spec(settings.architecture, settings.task, settings.widths)
    trained_encoder(spec, settings.encoder_weights)  # what cannot be had is refused before images are read
    training, held_out = split_pairs(pairs, fraction=settings.validation, seed=settings.seed, validation=validation)
    progress.note(f"reading {len(training)} training and {len(held_out)} validation images")
    everything = read_all(
        [*training, *held_out],
        progress.note,
        semantic=not spec.head.one_by_one,
        strict=settings.strict,
        intensities=settings.intensities or "nuclei",
    )
    samples, validated = everything[: len(training)], everything[len(training) :]
    for doubt in doubts(samples, validated):
        progress.note(doubt)
    data = {
        "sha256": fingerprint([*training, *held_out]),
        "collections": _collections(samples, validated),
        "training_images": _counts(samples),
        "validation_images": _counts(validated),
        "training_nuclei": sum(int((s.areas[1:] > 0).sum()) for s in samples),
    }
    if settings.epochs:
        network, rows = _fit(given, spec, samples, validated, path, settings, start, data, progress)
    else:
        assert given is not None, "checked before"
        network, rows = given.network, []
    plain = _plain_info(spec, settings)
    use = SegmentSettings(device=settings.device, precision=settings.precision)
    share = None
    if given is not None and rows:
        info = dataclasses.replace(plain, threshold=given.info.threshold, min_area=given.info.min_area)
        share = _blended(Predictor(Model(network, info), use), given.network, validated, progress)
    sizer = fitted_sizer(samples, settings, progress, given.sizer if given is not None else None)

    progress.note("tuning threshold and smallest area on the validation images")
    start_info = given.info if given is not None else None
    info, predictions = tuned(Model(network, plain), validated, use, start=start_info)
    card = {
        "command": command,
        "settings": dataclasses.asdict(settings),
        "init": given.info.card.get("command") if given is not None else None,
        "data": data,
        "versions": backend.versions(),
        "precision": backend.resolve_precision(settings.precision, backend.resolve_device(settings.device)),
        "epochs": len(rows),
        "share_of_new_weights": share,
        "validation": info.card["validation"],
    }
    info = dataclasses.replace(info, card=card)
    if rows:
        save_curves(rows, path.with_name(f"{path.stem}.curves.png"))
    save_examples(validated, predictions, path.with_name(f"{path.stem}.examples.png"))
    save_model(Model(network, info, sizer), path)
    _forget(path, settings, data)
    return load_model(path).info


def _fit(
    given: Model | None,
    spec: NetworkSpec,
    samples: list[Sample],
    validated: list[Sample],
    path: Path,
    settings: TrainSettings,
    start: Start,
    data: dict[str, Any],
    progress: Progress,
) -> tuple[keras.Model, list[dict[str, float]]]:
    """The network with the weights of its best pass, in float32, and the row of each pass."""
    device = backend.resolve_device(settings.device)
    precision = backend.resolve_precision(settings.precision, device)
    progress.note(f"training {spec.architecture} in {precision} on {device}; the first step takes a while")
    best = _best_weights(path)
    backup = Backup(path, _binding(settings, data))
    with backend.on_device(device):
        network = build(spec, normalise=True, dtype=precision)
        if given is not None:
            network.set_weights(given.network.get_weights())
        else:
            load_encoder(spec, network, settings.encoder_weights)
        learner = CropLearner(network, spec.loss)
        learner.compile(optimizer=optimizer(settings, precision))
        learner.optimizer.build(learner.trainable_variables)  # so that a backup before the first step is complete
        done = _passes_done(backup, learner, start.resume)
        history = History(path.with_name(f"{path.stem}.history.csv"), progress, passes_done=done)
        if done:
            progress.note(f"continuing after {done} of {settings.epochs} epochs")
        else:
            best.unlink(missing_ok=True)
        trained = Model(network, _plain_info(spec, settings))
        callbacks = [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            backup,
            NucleiFound(trained, validated, SegmentSettings(device=settings.device, precision=settings.precision)),
            history,
            KeepBest(best, network, history, settings.patience),
            keras.callbacks.TerminateOnNaN(),
        ]
        if start.tensorboard is not None:
            callbacks.append(keras.callbacks.TensorBoard(str(start.tensorboard)))
        if done < settings.epochs:
            learner.fit(
                Crops(samples, settings, first_pass=done),
                initial_epoch=done,
                epochs=settings.epochs,
                validation_data=plain_crops(validated, settings),
                validation_batch_size=settings.batch_size,
                callbacks=callbacks,
                shuffle=False,  # Keras would shuffle by a state that a training which goes on does not have
                verbose=0,
            )
        if not best.exists() or not all(math.isfinite(row["loss"]) for row in history.rows):
            raise UsageError("Training failed: the loss stopped being a number. Try a smaller --learning-rate.")
        plain = build(spec, normalise=True)
        plain.load_weights(best)
    return plain, history.rows


def _blended(predictor: Predictor, start: keras.Model, validated: list[Sample], progress: Progress) -> float:
    """Moves the predictor's network back towards `start`, see `blend`; the share of the new weights that is used."""
    progress.note("averaging the weights with those of the --init model, so that it keeps what it knew")
    network = predictor.model.network
    share, scores = blend(network, start.get_weights(), lambda: nuclei_found(predictor, validated)["val_ap"])
    tried = ", ".join(f"{one:.0%}: {found:.3f}" for one, found in zip((0.0, *SHARES), scores, strict=True))
    progress.note(f"AP on the validation images by share of new weights: {tried}; {share:.0%} is used")
    return share


def _plain_info(spec: NetworkSpec, settings: TrainSettings) -> ModelInfo:
    """What is known of a model before its threshold is tuned."""
    intensities = settings.intensities or "nuclei"
    return ModelInfo(spec.architecture, spec.widths, spec.task, settings.diameter, intensities=intensities)


def doubts(samples: Sequence[Sample], validated: Sequence[Sample]) -> list[str]:
    """What makes validation say less than it seems to, a line each."""
    found = []
    known = {hashlib.sha256(sample.pixels.tobytes()).digest() for sample in samples}
    twice = [sample.key for sample in validated if hashlib.sha256(sample.pixels.tobytes()).digest() in known]
    if twice:
        found.append(
            f"{len(twice)} validation images show the same pixels as training images "
            f"({twice[0]}{', ...' * (len(twice) > 1)}): their scores say how well those were learnt by heart"
        )
    if len(validated) < FEW:
        found.append(
            f"only {len(validated)} validation image{'s' * (len(validated) > 1)}: scores, threshold and smallest area "
            "are rough; annotate more images, or hold out more of them with --validation"
        )
    return found


def _taken_over(settings: TrainSettings, info: ModelInfo) -> TrainSettings:
    """The settings with what a given model fixes."""
    if settings.task != info.task and settings.task != TrainSettings.task:
        raise MismatchError(f"--task {settings.task}: the model of --init was trained for {info.task}.")
    if settings.encoder_weights != "none":
        raise UsageError("--encoder-weights: the model of --init has its own; leave one of the two out.")
    return dataclasses.replace(
        settings,
        architecture=info.architecture,
        widths=info.widths,
        task=info.task,
        diameter=info.diameter,
        intensities=settings.intensities or info.intensities,
    )


def _check_start(path: Path, start: Start, settings: TrainSettings) -> None:
    """Refuses, before anything is read, what cannot work or would lose a stopped training."""
    state = Backup(path, {})
    if not settings.epochs and not (start.init and settings.size_steps):
        raise UsageError(
            "--epochs 0 trains only the size network of a model: give the model with --init and a number of "
            "--size-steps, or 1 epoch and more."
        )
    if start.init is not None and not start.init.is_file():
        raise InputMissingError(f"--init {start.init}: there is no such file.")
    if start.tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard: TensorBoard is not installed; pip install tensorboard, or leave it out.")
    if start.resume and not state.exists():
        raise MismatchError(f"--resume: no training of {path.name} was stopped here; start one without --resume.")
    if state.exists() and not start.resume:
        raise UsageError(
            f"{path}: a training of it was stopped here. Resume it with --resume, give another name, or delete "
            f"{path.stem}.resume.json to start over."
        )


def _passes_done(backup: Backup, learner: CropLearner, resume: bool) -> int:
    if not resume:
        backup.clear()
        return 0
    return backup.load(learner)


def _binding(settings: TrainSettings, data: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    options = dataclasses.asdict(settings)
    del options["workers"], options["device"], options["strict"]
    return {**options, "data": data["sha256"]}


def _best_weights(path: Path) -> Path:
    return path.with_name(f"{path.stem}.best.weights.h5")


def _forget(path: Path, settings: TrainSettings, data: dict[str, Any]) -> None:
    """Removes what only a stopped training needs."""
    _best_weights(path).unlink(missing_ok=True)
    Backup(path, _binding(settings, data)).clear()


def _collections(samples: list[Sample], validated: list[Sample]) -> dict[str, list[int]]:
    """Training and validation images of each collection."""
    names = dict.fromkeys(s.collection for s in [*samples, *validated])
    return {name: [sum(s.collection == name for s in some) for some in (samples, validated)] for name in names}


def _counts(samples: list[Sample]) -> dict[str, int]:
    names = sorted(s.modality for s in samples)
    return {name: names.count(name) for name in dict.fromkeys(names)}


def optimizer(settings: TrainSettings, precision: str = "float32") -> keras.optimizers.Optimizer:
    """That of the network; precision: its dtype policy."""
    steps = settings.epochs * settings.steps
    return averaging_adamw(steps, settings.learning_rate, precision, momentum=EMA_MOMENTUM, weight_decay=1e-4)
