"""Training of the size network: views of annotated images at all magnifications, and how wide their nuclei are."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.widths import size_target
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import build_sizer
from nucseg_batch.training.augment import turned
from nucseg_batch.training.callbacks import Progress
from nucseg_batch.training.crops import RandomBatches
from nucseg_batch.training.data import Sample
from nucseg_batch.training.empty import blank_field
from nucseg_batch.training.intensity import change_intensities, in_steps
from nucseg_batch.training.on_device import CropLearner
from nucseg_batch.training.optimizer import averaging_adamw
from nucseg_batch.training.settings import TrainSettings
from nucseg_batch.training.warp import view_of

CROP = 192
"""Side in pixels of the views."""
BATCH = 16
"""Views in a batch."""
WIDTHS = (2.5, 120.0)
"""Widths of nuclei in the views, in pixels."""
MOST_ZOOM = 5.0
"""Largest magnification of an image."""
LEAST_COVER = 0.3
"""Images are not made so small that they fill less of a view's side than this."""
SIZE_STEPS = 200
"""Batches in a pass."""
LEARNING_RATE = 2e-3
"""Peak of the cosine schedule."""
EMA_MOMENTUM = 0.99
"""Of the running average of weights."""
BLANK_SHARE = 0.04
"""Share of views without a nucleus: simulated empty fields."""


def size_view(sample: Sample, rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """One augmented view: image (CROP, CROP, 3) as it is handed over, see `in_steps`, and `widths.size_target`."""
    if rng.random() < BLANK_SHARE:
        nothing = size_target(np.zeros((CROP, CROP), np.int32), WIDTHS[0])
        return in_steps(blank_field(CROP, rng, sample.intensities)), nothing
    shape = sample.labels.shape
    wanted = math.exp(rng.uniform(*np.log(WIDTHS))) / sample.diameter
    magnification = float(np.clip(wanted, LEAST_COVER * CROP / max(shape), MOST_ZOOM))
    matrix = turned(rng) / magnification
    side = CROP / magnification
    centre = np.array([rng.uniform(min(side, n) / 2, n - min(side, n) / 2) for n in shape]) - 0.5
    view = view_of(sample, matrix, centre - matrix @ np.full(2, (CROP - 1) / 2), CROP, magnification)
    return in_steps(change_intensities(view, rng)), size_target(view.labels, sample.diameter * magnification)


def size_loss(target: Any, answer: Any) -> Any:
    """Cross-entropy of the share of nuclei and, where there are nuclei, of the distribution of widths."""
    share, weight, distribution = target[..., 0], target[..., 1], target[..., 2:]
    logit, logits = answer[..., 0], answer[..., 1:]
    entropy = ops.relu(logit) - logit * share + ops.log1p(ops.exp(-ops.abs(logit)))
    of_share = ops.sum(entropy * weight) / (ops.sum(weight) + 1.0)
    here = weight * ops.minimum(4.0 * share, 1.0)
    of_width = -ops.sum(distribution * ops.log_softmax(logits, axis=-1), axis=-1)
    return of_share + ops.sum(of_width * here) / (ops.sum(here) + 1.0)


def fitted_sizer(
    samples: list[Sample], settings: TrainSettings, progress: Progress, given: keras.Model | None = None
) -> keras.Model | None:
    """A size network with normalisation layers, trained for `settings.size_steps` from `given`, or from nothing.

    Without steps it is `given`.
    """
    if not settings.size_steps:
        return given
    device = backend.resolve_device(settings.device)
    precision = backend.resolve_precision(settings.precision, device)
    steps = min(settings.size_steps, SIZE_STEPS)
    passes = max(1, round(settings.size_steps / steps))
    total = passes * steps
    views = RandomBatches(
        samples, size_view, steps=steps, size=BATCH, seed=[settings.seed, 1], workers=settings.workers
    )
    with backend.on_device(device):
        keras.utils.set_random_seed(settings.seed)
        trained = build_sizer(normalise=True, dtype=precision)
        if given is not None:
            trained.set_weights(given.get_weights())
        adamw = averaging_adamw(total, LEARNING_RATE, precision, momentum=EMA_MOMENTUM, weight_decay=1e-3)
        learner = CropLearner(trained, size_loss, target=lambda given: given)
        learner.compile(optimizer=adamw)
        progress.note(f"learning how wide nuclei are: {total} steps")
        learner.fit(
            views,
            epochs=passes,
            callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True), _SizeProgress(progress, total)],
            shuffle=False,
            verbose=0,
        )
        plain = build_sizer(normalise=True)
        plain.set_weights(trained.get_weights())
    return plain


class _SizeProgress(keras.callbacks.Callback):
    """Tells how far it is after each pass."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__()
        self._progress, self._total, self._done = progress, total, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._done += int((self.params or {}).get("steps") or 0)
        loss = (logs or {}).get("loss", math.nan)
        self._progress.note(f"widths of nuclei: {self._done} of {self._total} steps, loss {loss:.3f}")
