"""Batches of training crops, and the plain crops that the validation loss is computed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.machine.cores import available_cores
from nucseg_batch.training.augment import plain_crop, training_crop
from nucseg_batch.training.data import Sample
from nucseg_batch.training.settings import TrainSettings

SHARE_EXPONENT = 0.6
"""Crops are shared among kinds, a modality of a collection each, by (images of the kind) ** SHARE_EXPONENT."""


Draw = Callable[[Sample, np.random.Generator], tuple[NDArray[np.int16], Any]]
"""Makes an image and a target of an annotated image, at random, as they are handed over: arrays, or records of them."""


class RandomBatches(keras.utils.PyDataset):
    """Batches of images and targets that `draw` makes; batch i of pass e depends only on the seed, i and e.

    steps: batches in a pass. size: images in a batch. seed: one or several numbers, for batches that differ from those
    of another seed.
    """

    def __init__(
        self,
        samples: list[Sample],
        draw: Draw,
        *,
        steps: int,
        size: int,
        seed: Sequence[int],
        workers: int | None,
        first_pass: int = 0,
    ) -> None:
        workers = workers or available_cores()
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self._samples, self._draw = samples, draw
        self._steps, self._size, self._seed = steps, size, seed
        self._chances = drawing_chances(samples)
        self._pass = first_pass

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.int16], Any]:
        rng = np.random.default_rng([*self._seed, self._pass, index])
        chosen = rng.choice(len(self._samples), self._size, p=self._chances)
        return stacked([self._draw(self._samples[i], rng) for i in chosen])

    def on_epoch_end(self) -> None:
        """Moves on to new images."""
        self._pass += 1


class Crops(RandomBatches):
    """Batches of training crops."""

    def __init__(self, samples: list[Sample], settings: TrainSettings, first_pass: int = 0) -> None:
        super().__init__(
            samples,
            lambda sample, rng: training_crop(sample, settings.crop, settings.diameter, rng),
            steps=settings.steps,
            size=settings.batch_size,
            seed=[settings.seed],
            workers=settings.workers,
            first_pass=first_pass,
        )


def drawing_chances(samples: list[Sample]) -> NDArray[np.float64]:
    """Chance of each sample: rare kinds get more than their share, larger images more, by their area's root."""
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys((s.collection, s.modality) for s in samples))}
    members = np.array([kinds[s.collection, s.modality] for s in samples])
    counts = np.bincount(members)
    chances = np.sqrt([float(s.labels.size) for s in samples])
    shares = counts.astype(np.float64) ** SHARE_EXPONENT
    return (chances * (shares / np.bincount(members, chances))[members]) / shares.sum()


def plain_crops(samples: list[Sample], settings: TrainSettings) -> tuple[NDArray[np.int16], Any]:
    """The middle of each sample at the nominal scale, as it is handed over: (samples, crop, crop, 3), and targets."""
    return stacked([plain_crop(sample, settings.crop, settings.diameter) for sample in samples])


def stacked(crops: Sequence[tuple[NDArray[np.int16], Any]]) -> tuple[NDArray[np.int16], Any]:
    """A batch of crops."""
    images, targets = keras.tree.map_structure(lambda *arrays: np.stack(arrays), *crops)
    return images, targets
