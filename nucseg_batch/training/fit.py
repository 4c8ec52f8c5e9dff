"""Trains a model: data in, model file out, with everything on the way kept in plain files.

The pieces are Keras's own (fit, EarlyStopping, ModelCheckpoint, CSVLogger, averaged weights); what is added is a
validation that measures what users care about: nuclei found, by the program that `segment` will run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.metrics import match, mean_average_precision, score
from nucseg_batch.errors import UsageError
from nucseg_batch.network import backend
from nucseg_batch.network.losses import segmentation_loss
from nucseg_batch.network.model_file import Model, ModelInfo, load_model, save_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.unet import UNetConfig, build_unet
from nucseg_batch.settings import SegmentSettings, TrainSettings
from nucseg_batch.training.augment import plain_crop, training_crop
from nucseg_batch.training.data import Pair, Sample, fingerprint, read_sample, split_pairs

Report = Callable[[str], None]
"""Takes one line of progress for the user."""

THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))
"""Foreground thresholds that are tried on the validation images."""
WARM_UP = 0.04
"""Share of the steps over which the learning rate rises."""
EMA_MOMENTUM = 0.998
"""Of the running average of weights that is validated and saved, in trainings of 7500 steps and more."""
EMA_SHARE = 15
"""In shorter trainings the average reaches back over a fifteenth of the steps, so that it forgets the random start."""
MODALITY_EXPONENT = 0.6
"""Crops are shared among modalities by (images of the modality) ** MODALITY_EXPONENT: rare ones get more than theirs."""


class Crops(keras.utils.PyDataset):
    """Batches of random crops; batch i of pass e depends only on the seed, i and e."""

    def __init__(self, samples: list[Sample], settings: TrainSettings) -> None:
        super().__init__(workers=settings.workers, use_multiprocessing=False, max_queue_size=8)
        self._samples = samples
        self._settings = settings
        self._chances = drawing_chances(samples)
        self._pass = 0

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng = np.random.default_rng([self._settings.seed, self._pass, index])
        chosen = rng.choice(len(self._samples), self._settings.batch_size, p=self._chances)
        crops = [training_crop(self._samples[i], self._settings.crop, self._settings.diameter, rng) for i in chosen]
        images, targets = zip(*crops, strict=True)
        return np.stack(images), np.stack(targets)

    def on_epoch_end(self) -> None:
        """Moves on to new crops."""
        self._pass += 1


def drawing_chances(samples: list[Sample]) -> NDArray[np.float64]:
    """Chance of each sample: rare modalities more often than by their number, larger images by the root of their area."""
    _, members, counts = np.unique([s.modality for s in samples], return_inverse=True, return_counts=True)
    chances = np.sqrt([float(s.labels.size) for s in samples])
    shares = counts.astype(np.float64) ** MODALITY_EXPONENT
    return (chances * (shares / np.bincount(members, chances))[members]) / shares.sum()


class NucleiFound(keras.callbacks.Callback):
    """Adds `val_ap50` and `val_ap`, AP@.5 and AP(.5:.95) by image on the validation images, to every pass's log."""

    def __init__(self, model: Model, samples: list[Sample], settings: SegmentSettings) -> None:
        super().__init__()
        self._predictor = Predictor(model, settings)
        self._samples = samples

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Segments the validation images with the present weights and scores the result."""
        self._predictor.refresh()
        scores = score(match(self._predictor.predict(s.pixels), s.labels) for s in self._samples)
        if logs is not None:
            logs["val_ap50"] = scores[0].ap_image_mean
            logs["val_ap"] = mean_average_precision(scores)


class Lines(keras.callbacks.Callback):
    """Reports each pass in one line."""

    def __init__(self, report: Report, epochs: int) -> None:
        super().__init__()
        self._report = report
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Writes the pass's losses and scores."""
        values = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items() if name != "learning_rate")
        self._report(f"epoch {epoch + 1}/{self._epochs}  {values}")


def train(pairs: list[Pair], path: Path, settings: TrainSettings, *, command: str, report: Report) -> ModelInfo:
    """Trains on annotated images and writes the model to `path`; returns what the file says of itself.

    Beside it go `<stem>.history.csv` (a row a pass) and, until the end, `<stem>.checkpoint.weights.h5`. `command` is
    recorded in the card. Raises ImageError for an annotated image that cannot be used, NothingToDoError where there
    are too few, and UsageError where the loss stops being a number.
    """
    keras.utils.set_random_seed(settings.seed)
    training, validation = split_pairs(pairs, fraction=settings.validation, seed=settings.seed)
    report(f"reading {len(training)} training and {len(validation)} validation images")
    samples = [read_sample(pair) for pair in training]
    held_out = [read_sample(pair) for pair in validation]
    device = backend.resolve_device(settings.device)
    precision = backend.resolve_precision(settings.precision, device)
    config = UNetConfig(widths=settings.widths)
    report(f"training {precision} on {device}, {sum(s.labels.max() > 0 for s in samples)} images with nuclei")

    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = path.with_name(f"{path.stem}.checkpoint.weights.h5")
    with backend.on_device(device):
        network = build_unet(config, normalise=True, dtype=precision)
        network.compile(optimizer=_optimizer(settings), loss=segmentation_loss)
        trained = Model(network, ModelInfo(widths=settings.widths))
        use = SegmentSettings(device=settings.device, precision=settings.precision)
        callbacks = [
            keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
            NucleiFound(trained, held_out, use),
            Lines(report, settings.epochs),
            keras.callbacks.ModelCheckpoint(
                checkpoint, monitor="val_ap", mode="max", save_best_only=True, save_weights_only=True
            ),
            keras.callbacks.EarlyStopping(monitor="val_ap", mode="max", patience=settings.patience),
            keras.callbacks.CSVLogger(path.with_name(f"{path.stem}.history.csv")),
            keras.callbacks.TerminateOnNaN(),
        ]
        history = network.fit(
            Crops(samples, settings),
            epochs=settings.epochs,
            validation_data=_plain_crops(held_out, settings.crop),
            validation_batch_size=settings.batch_size,
            callbacks=callbacks,
            verbose=0,
        )
        if not checkpoint.exists() or not math.isfinite(history.history["loss"][-1]):
            raise UsageError("Training failed: the loss stopped being a number. Try a smaller --learning-rate.")
        plain = build_unet(config, normalise=True)
        plain.load_weights(checkpoint)
    report("tuning the threshold on the validation images")
    info = tuned(Model(plain, trained.info), held_out, use)
    card = {
        "command": command,
        "settings": dataclasses.asdict(settings),
        "data": {
            "sha256": fingerprint(training + validation),
            "training_images": len(training),
            "validation_images": len(validation),
        },
        "versions": backend.versions(),
        "precision": precision,
        "epochs": len(history.history["loss"]),
        "validation": info.card["validation"],
    }
    info = dataclasses.replace(info, card=card)
    save_model(plain, info, path)
    checkpoint.unlink()
    return load_model(path).info


def tuned(model: Model, samples: list[Sample], settings: SegmentSettings) -> ModelInfo:
    """The model's info with the threshold that gives the best AP(.5:.95) on `samples`; its card holds the scores."""
    predictor = Predictor(model, settings)
    matches: dict[float, list[Any]] = {threshold: [] for threshold in THRESHOLDS}
    for sample in samples:
        heads = predictor.heads(sample.pixels)
        for threshold in THRESHOLDS:
            labels = predictor.separate_heads(heads, threshold=threshold, min_area=model.info.min_area)
            matches[threshold].append(match(labels, sample.labels))
    scores = {threshold: score(found) for threshold, found in matches.items()}
    best = max(scores, key=lambda threshold: mean_average_precision(scores[threshold]))
    validation: dict[str, Any] = {"threshold": best, "images": len(samples)}
    for modality in ["all", *sorted({s.modality for s in samples})]:
        chosen = [m for m, s in zip(matches[best], samples, strict=True) if modality in ("all", s.modality)]
        found = score(chosen)
        validation[modality] = {"AP": round(mean_average_precision(found), 4), "AP50": round(found[0].ap_image_mean, 4)}
    return dataclasses.replace(model.info, threshold=best, card={"validation": validation})


def _optimizer(settings: TrainSettings) -> Any:
    steps = settings.epochs * settings.steps
    warm_up = max(1, round(WARM_UP * steps))
    momentum = max(0.0, min(EMA_MOMENTUM, 1 - EMA_SHARE / steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 20,
        steps - warm_up,
        alpha=0.01,
        warmup_target=settings.learning_rate,
        warmup_steps=warm_up,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=1e-4, global_clipnorm=1.0, use_ema=True, ema_momentum=momentum)


def _plain_crops(samples: list[Sample], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    images, targets = zip(*(plain_crop(sample, size) for sample in samples), strict=True)
    return np.stack(images), np.stack(targets)
