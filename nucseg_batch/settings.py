"""All options, as frozen records that are checked once, when they are made.

A record is the only place that holds a default, so that the command line, Python callers and a resumed run agree.
`SegmentSettings` keeps what changes the pixels of a result apart from what only changes its speed: a run may be
resumed with another batch size, but not with another threshold.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nucseg_batch.errors import UsageError

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Device = Literal["auto", "cpu", "gpu"]
Channel = Literal["auto", "grey", "red", "green", "blue"]


def _check(condition: bool, name: str, expected: str, received: object) -> None:
    if not condition:
        raise UsageError(f"{name} must be {expected}, but is {received!r}.")


def _check_choice(name: str, value: str, choices: Any) -> None:
    allowed = get_args(choices)
    _check(value in allowed, name, "one of " + ", ".join(allowed), value)


@dataclass(frozen=True)
class SegmentSettings:
    """How `segment` turns images into label images."""

    threshold: float | None = None
    """Foreground probability above which a pixel belongs to a nucleus; None takes the model's own, tuned one."""
    min_area: int | None = None
    """Smallest nucleus that is kept, in pixels; None takes the model's own."""
    channel: Channel = "auto"
    """What a colour image shows the network: `auto` gives it all three channels, a colour or `grey` only that."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto` is bfloat16 where the processor computes in it, else float32."""
    device: Device = "auto"
    """Where the network runs; `auto` takes a GPU when there is one."""

    max_pixels: int = 100_000_000
    """Images with more pixels than this are refused before they are decoded."""
    batch_size: int | None = field(default=None, metadata={"speed_only": True})
    """Images in one call of the network; None chooses by image size."""
    workers: int | None = field(default=None, metadata={"speed_only": True})
    """Threads that read and decode images; None takes one for each two cores, at most eight."""

    def __post_init__(self) -> None:
        _check_choice("channel", self.channel, Channel)
        _check_choice("precision", self.precision, Precision)
        _check_choice("device", self.device, Device)
        if self.threshold is not None:
            _check(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        if self.min_area is not None:
            _check(self.min_area >= 0, "min_area", "0 or more pixels", self.min_area)
        _check(self.max_pixels >= 1, "max_pixels", "1 or more", self.max_pixels)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, "1 or more", value)

    def result_options(self) -> dict[str, Any]:
        """The options that can change a result: those a resumed run must share with the run it resumes."""
        speed_only = {f.name for f in dataclasses.fields(self) if f.metadata.get("speed_only")}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in speed_only}


@dataclass(frozen=True)
class TrainSettings:
    """How `train` makes a model from annotated images."""

    epochs: int = 60
    """Passes; one pass is `steps` batches of random crops."""
    steps: int = 150
    """Batches in a pass."""
    batch_size: int = 8
    """Crops in a batch."""
    crop: int = 256
    """Side of a square crop, in pixels."""
    diameter: float = 26.0
    """Width in pixels to which nuclei are brought before the network sees them, in training and in use."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    patience: int = 15
    """Passes without a better validation AP after which training stops."""
    validation: float = 0.1
    """Share of the images held out, where the data set does not name its own validation split."""
    widths: tuple[int, ...] = (32, 64, 128, 192)
    """Feature channels at each depth of the network, from half resolution down."""
    precision: Precision = "auto"
    """Arithmetic of the training steps; weights stay float32."""
    device: Device = "auto"
    """Where training runs."""
    seed: int = 1
    """Seeds initial weights, crops and augmentation."""
    workers: int = 2
    """Threads that prepare crops."""

    def __post_init__(self) -> None:
        _check_choice("precision", self.precision, Precision)
        _check_choice("device", self.device, Device)
        for name in ("epochs", "steps", "batch_size", "patience", "workers"):
            _check(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        _check(0 < self.validation < 1, "validation", "between 0 and 1", self.validation)
        _check(self.seed >= 0, "seed", "0 or more", self.seed)
        _check(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        _check(
            2 <= len(self.widths) <= 5 and min(self.widths) >= 1, "widths", "two to five positive numbers", self.widths
        )
        stride = 2 ** len(self.widths)
        _check(self.crop >= stride and self.crop % stride == 0, "crop", f"a multiple of {stride} pixels", self.crop)
