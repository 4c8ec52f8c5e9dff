"""Batches of training crops, and the plain crops that the validation loss is computed on."""

from __future__ import annotations

import os

import keras
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.settings import TrainSettings
from nucseg_batch.training.augment import plain_crop, training_crop
from nucseg_batch.training.data import Sample

SHARE_EXPONENT = 0.6
"""Crops are shared among kinds, a modality of a collection each, by (images of the kind) ** SHARE_EXPONENT."""


class Crops(keras.utils.PyDataset):
    """Batches of random crops; batch i of pass e depends only on the seed, i and e."""

    def __init__(self, samples: list[Sample], settings: TrainSettings, first_pass: int = 0) -> None:
        workers = settings.workers or len(os.sched_getaffinity(0))
        super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=8)
        self._samples = samples
        self._settings = settings
        self._chances = drawing_chances(samples)
        self._pass = first_pass

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        settings = self._settings
        rng = np.random.default_rng([settings.seed, self._pass, index])
        chosen = rng.choice(len(self._samples), settings.batch_size, p=self._chances)
        crops = [training_crop(self._samples[i], settings.crop, settings.diameter, rng) for i in chosen]
        images, targets = zip(*crops, strict=True)
        return np.stack(images), np.stack(targets)

    def on_epoch_end(self) -> None:
        """Moves on to new crops."""
        self._pass += 1


def drawing_chances(samples: list[Sample]) -> NDArray[np.float64]:
    """Chance of each sample: rare kinds get more than their share, larger images more, by their area's root."""
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys((s.collection, s.modality) for s in samples))}
    members = np.array([kinds[s.collection, s.modality] for s in samples])
    counts = np.bincount(members)
    chances = np.sqrt([float(s.labels.size) for s in samples])
    shares = counts.astype(np.float64) ** SHARE_EXPONENT
    return (chances * (shares / np.bincount(members, chances))[members]) / shares.sum()


def plain_crops(samples: list[Sample], settings: TrainSettings) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middle of each sample at the nominal scale: (samples, crop, crop, 3) and (samples, crop, crop, CHANNELS)."""
    crops = [plain_crop(sample, settings.crop, settings.diameter) for sample in samples]
    images, targets = zip(*crops, strict=True)
    return np.stack(images), np.stack(targets)
