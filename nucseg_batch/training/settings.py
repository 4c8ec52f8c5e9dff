"""The options of `train`, as a frozen record that is checked once, when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nucseg_batch.errors import check, check_choice
from nucseg_batch.options import option
from nucseg_batch.settings import (
    COMPUTING,
    CROP_STEP,
    DATA,
    DEVICE_HELP,
    NETWORK,
    PRECISION_HELP,
    TRAINING,
    Architecture,
    Device,
    Intensities,
    Precision,
    Task,
)


@dataclass(frozen=True)
class TrainSettings:
    """How `train` makes a model from annotated images."""

    architecture: Architecture = option("default", NETWORK, "Network; with --init that of the model.")
    """Which network."""
    task: Task = option("instances", NETWORK, "Nuclei one by one, or only the foreground mask.")
    """What it learns: nuclei one by one, or only the foreground."""
    widths: tuple[int, ...] | None = None
    """Feature channels at each depth of the network, finest first; None takes the architecture's own."""
    encoder_weights: str = option(
        "none", NETWORK, "Initial weights of an encoder from image classification.", "imagenet|none|FILE"
    )
    """Where the encoder starts: `none` at random, `imagenet`, or a file; for architectures with a given encoder."""
    intensities: Intensities | None = option(
        None,
        NETWORK,
        "How the intensity range of an image is measured: on its nuclei (default), or by percentiles of all pixels, "
        "as for models of version 0.2; with --init as for that model.",
    )
    """How the range of an image's values is measured: on its `nuclei`, or by `percentiles` of all pixels as models of
    version 0.2 do; None takes the first or, when training starts from a model, what that was trained with."""
    diameter: float = option(
        26.0, NETWORK, "Width in pixels, 4 to 256, to which nuclei are brought; with --init that of the model.", "PX"
    )
    """Width in pixels to which nuclei are brought before the network sees them, in training and in use."""

    epochs: int = 60
    """Passes; one pass is `steps` batches of random crops. 0 keeps the network of the model that training starts from,
    and trains only the size network."""
    steps: int = 150
    """Batches in a pass."""
    batch_size: int = option(8, TRAINING, "Crops per batch, 1 or more.", "N")
    """Crops in a batch."""
    size_steps: int = option(
        0, TRAINING, "Batches that train the size network; 0 trains none, or keeps that of --init.", "N"
    )
    """Batches that train the size network after all passes, from that of the model where training starts from one; 0
    leaves it out, or keeps that of the model."""
    crop: int = option(256, DATA, f"Side of a square crop in pixels, a multiple of {CROP_STEP}.", "PX")
    """Side of a square crop, in pixels."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    patience: int = option(20, TRAINING, "Passes without improvement before stopping, 1 or more.", "N")
    """Passes without a better validation AP after which training stops."""
    validation: float = 0.1
    """Share of the images held out, where neither the data set nor a folder of its own says which."""
    group: str | None = option(None, DATA, "Column of index.csv; images of one group are never divided.", "COLUMN")
    """Column of index.csv: images with one value there are never divided between training and validation."""
    precision: Precision = option("auto", COMPUTING, PRECISION_HELP, "KIND")
    """Arithmetic of the training steps; weights stay float32."""
    device: Device = option("auto", COMPUTING, DEVICE_HELP)
    """Where training runs."""
    seed: int = option(1, TRAINING, "Seed of weights, crops and augmentation, 0 or more.", "N")
    """Seeds initial weights, crops and augmentation."""
    workers: int | None = option(
        None, COMPUTING, "Threads that prepare crops, 1 or more; default: as many as there are cores.", "N"
    )
    """Threads that prepare crops; None takes as many as there are cores."""
    strict: bool = option(False, DATA, "Refuse label images whose encoding is doubtful.")
    """Whether doubtful assumptions about the annotation end the training before it begins."""

    def __post_init__(self) -> None:
        check_choice("architecture", self.architecture, Architecture)
        check_choice("task", self.task, Task)
        check_choice("precision", self.precision, Precision)
        check_choice("device", self.device, Device)
        for name in ("steps", "batch_size", "patience", "workers"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, "1 or more", value)
        for name in ("epochs", "size_steps"):
            check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        if self.intensities is not None:
            check_choice("intensities", self.intensities, Intensities)
        check(0 < self.validation < 1, "validation", "between 0 and 1", self.validation)
        check(self.seed >= 0, "seed", "0 or more", self.seed)
        check(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        check(4 <= self.diameter <= 256, "diameter", "between 4 and 256 pixels", self.diameter)
        check(self.crop >= CROP_STEP and self.crop % CROP_STEP == 0, "crop", f"a multiple of {CROP_STEP}", self.crop)


FINE_TUNING: Mapping[str, Any] = {"epochs": 12, "steps": 40, "learning_rate": 2e-4}
"""Defaults that differ where training starts from a model (`--init`) instead of from nothing."""
