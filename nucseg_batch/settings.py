"""All options, as frozen records that are checked once, when they are made.

A record is the only place that holds a default, so that the command line, Python callers and a resumed run agree.
`SegmentSettings` keeps what changes the pixels of a result apart from what only changes its speed: a run may be
resumed with another batch size, but not with another threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nucseg_batch.errors import UsageError
from nucseg_batch.machine.memory import available_memory, parsed_bytes

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Device = Literal["auto", "cpu", "gpu"]
Architecture = Literal["default", "unet", "mobilenetv2", "mobilenetv3", "efficientnetlite0"]
Task = Literal["instances", "semantic"]
VerifyInputs = Literal["quick", "full", "none"]
Intensities = Literal["percentiles", "nuclei"]
"""How a model's images are brought to one range: by percentiles of all pixels, or as `arrays.ranges` describes."""


REGION = 3072
"""Side in pixels of the regions in which planes that are too large for one piece of work are done."""
DEFAULT_MEMORY = 2_000_000_000
"""Memory in bytes that a process takes on the host if it is not told otherwise."""
LEAST_MEMORY = 1_500_000_000
"""The least with which it can do its work: images of up to 1536 x 1536 pixels go through the network in one call."""
CROP_STEP = 32
"""Sides of training crops are multiples of this, which every network can halve often enough."""


def _check(condition: bool, name: str, expected: str, received: object) -> None:
    if not condition:
        raise UsageError(f"--{name.replace('_', '-')} must be {expected}, but is {received!r}.")


def _check_choice(name: str, value: str, choices: Any) -> None:
    allowed = get_args(choices)
    _check(value in allowed, name, "one of " + ", ".join(allowed), value)


@dataclass(frozen=True)
class SegmentSettings:
    """Options of `segment`."""

    threshold: float | None = None
    """Foreground probability above which a pixel belongs to a nucleus; None for that of the model."""
    min_area: int | None = None
    """Area in pixels of the smallest nucleus that is kept; None for that of the model."""
    diameter: float | None = None
    """Typical width of the nuclei in pixels; None to estimate it per image with the size network of the model."""
    augment: bool = False
    """Whether the output of the network is averaged over mirror images, which takes four passes instead of one."""
    pixel_size: float | None = None
    """Width of a pixel in micrometres; None for that in the file. Sizes are first estimated at this scale."""
    channel: str = "auto"
    """Channel with the nuclei: its name, emission wavelength or number from 0; for colour images `red`, `green`,
    `blue`, `grey`, or `rgb` for all three. `auto` selects the only channel, or the one named like a DNA stain; for a
    colour image the only colour with any signal, else all three."""
    t: str | None = None
    """Time points that are segmented, one such as `3` or a slice as in Python; None for all."""
    z: str | None = None
    """z-slices that are segmented, likewise, or `max` for the maximum projection of all."""
    axes: str | None = None
    """Axes of TIFFs and plain zarr arrays without axis names, such as `yxc` or `tczyx`, in the order of the array."""
    region: int = REGION
    """Side in pixels of the regions in which larger planes are segmented."""
    skip_empty: bool = False
    """Whether regions of large planes in which nothing is bright are skipped."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto` is bfloat16 if the processor supports it, else float32."""
    device: Device = "auto"
    """Where the network runs; `auto` uses a GPU if there is one."""

    with_images: bool = False
    """Whether the pixels of the images are written to the store beside their masks."""
    max_pixels: int = 100_000_000
    """Largest image in pixels; larger ones are refused before they are decoded."""
    strict: bool = field(default=False, metadata={"refuses_only": True})
    """Whether doubtful assumptions about the input are an error before anything is segmented."""
    batch_size: int | None = field(default=None, metadata={"speed_only": True})
    """Images in one call of the network; None chooses it by image size."""
    memory: str | None = field(default=None, metadata={"speed_only": True})
    """Host memory for each process, such as `4GB` or `1500MiB`; None for 2 GB. It is limited to what the machine or the
    job has."""
    workers: int | None = field(default=None, metadata={"speed_only": True})
    """Threads that read and decode images; None for one per two cores, at most eight."""

    def __post_init__(self) -> None:
        _check(self.channel != "", "channel", "a name, a wavelength or a number", self.channel)
        _check(64 <= self.region <= 16384 and self.region % 4 == 0, "region", "64 to 16384 in steps of 4", self.region)
        if self.axes is not None:
            given = self.axes.lower()
            known = set("yx") <= set(given) <= set("tczyxs") and len(set(given)) == len(given)
            _check(
                known and not {"c", "s"} <= set(given),
                "axes",
                "y, x and some of t, z, and c or s, once each",
                self.axes,
            )
        _check_choice("precision", self.precision, Precision)
        _check_choice("device", self.device, Device)
        if self.threshold is not None:
            _check(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        if self.min_area is not None:
            _check(self.min_area >= 0, "min_area", "0 or more pixels", self.min_area)
        for name in ("diameter", "pixel_size"):
            value = getattr(self, name)
            _check(value is None or 0.01 <= value <= 10_000, name, "between 0.01 and 10000", value)
        _check(self.max_pixels >= 1, "max_pixels", "1 or more", self.max_pixels)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, "1 or more", value)
        enough = self.memory is None or (parsed_bytes(self.memory) or 0) >= LEAST_MEMORY
        _check(enough, "memory", f"a size such as 4GB, {LEAST_MEMORY / 1e9:g}GB or more", self.memory)

    @property
    def memory_bytes(self) -> int:
        """Bytes that a process may take on the host."""
        return min(DEFAULT_MEMORY if self.memory is None else parsed_bytes(self.memory) or 0, available_memory())

    def result_options(self) -> dict[str, Any]:
        """The options that can change a result: those a resumed run must share with the run it resumes."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in SPEED_OPTIONS | REFUSING_OPTIONS
        }

    def with_speed(self, options: Mapping[str, Any]) -> SegmentSettings:
        """The same with other options that only change the speed; None leaves one as it is."""
        given = {name: value for name, value in options.items() if value is not None}
        unknown = given.keys() - SPEED_OPTIONS
        assert not unknown, unknown
        return dataclasses.replace(self, **given)


SPEED_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("speed_only"))
"""Options that change nothing but the speed."""
REFUSING_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("refuses_only"))
"""Options that only decide whether a run begins: a run that they let pass has the same result without them."""


@dataclass(frozen=True)
class RunSettings:
    """How a run goes on, stops and is divided; nothing of it changes a result."""

    share: int | None = None
    """Which share of the run this process does, counted from 0; None does all that is missing."""
    verify_inputs: VerifyInputs = "quick"
    """How images that are done are compared with what they were: by size and time, by their pixels, or not at all."""
    retry_failed: bool = False
    """Whether every image that failed is tried again, and not only those for which that may end better."""
    max_failures: str | None = None
    """More failures than this end the call: a number, or a percentage of its planes such as `5%`."""
    grace: float = 10.0
    """Seconds after which a process that was asked to stop leaves at once."""

    def __post_init__(self) -> None:
        _check_choice("verify_inputs", self.verify_inputs, VerifyInputs)
        _check(self.share is None or self.share >= 0, "share", "0 or more", self.share)
        _check(0 <= self.grace <= 86400, "grace", "0 to 86400 seconds", self.grace)
        self.most_failures(1)

    def most_failures(self, planes: int) -> float:
        """How many of so many planes may fail before the call ends."""
        if self.max_failures is None:
            return float("inf")
        text = self.max_failures.strip()
        number = text.removesuffix("%").strip()
        plain = number.replace(".", "", 1).isdecimal() if text.endswith("%") else number.isdecimal()
        _check(plain, "max_failures", "a number such as 20, or a percentage such as 5%", self.max_failures)
        return planes * float(number) / 100 if text.endswith("%") else int(number)


@dataclass(frozen=True)
class TrainSettings:
    """How `train` makes a model from annotated images."""

    architecture: Architecture = "default"
    """Which network."""
    task: Task = "instances"
    """What it learns: nuclei one by one, or only the foreground."""
    widths: tuple[int, ...] | None = None
    """Feature channels at each depth of the network, finest first; None takes the architecture's own."""
    encoder_weights: str = "none"
    """Where the encoder starts: `none` at random, `imagenet`, or a file; for architectures with a given encoder."""
    intensities: Intensities | None = None
    """How the range of an image's values is measured: on its `nuclei`, or by `percentiles` of all pixels as models of
    version 0.2 do; None takes the first or, when training starts from a model, what that was trained with."""
    diameter: float = 26.0
    """Width in pixels to which nuclei are brought before the network sees them, in training and in use."""

    epochs: int = 60
    """Passes; one pass is `steps` batches of random crops. 0 keeps the network of the model that training starts from,
    and trains only the size network."""
    steps: int = 150
    """Batches in a pass."""
    batch_size: int = 8
    """Crops in a batch."""
    size_steps: int = 0
    """Batches that train the size network after all passes, from that of the model where training starts from one; 0
    leaves it out, or keeps that of the model."""
    crop: int = 256
    """Side of a square crop, in pixels."""
    learning_rate: float = 1e-3
    """Peak of the cosine schedule."""
    patience: int = 20
    """Passes without a better validation AP after which training stops."""
    validation: float = 0.1
    """Share of the images held out, where neither the data set nor a folder of its own says which."""
    group: str | None = None
    """Column of index.csv: images with one value there are never divided between training and validation."""
    precision: Precision = "auto"
    """Arithmetic of the training steps; weights stay float32."""
    device: Device = "auto"
    """Where training runs."""
    seed: int = 1
    """Seeds initial weights, crops and augmentation."""
    workers: int | None = None
    """Threads that prepare crops; None takes as many as there are cores."""
    strict: bool = False
    """Whether doubtful assumptions about the annotation end the training before it begins."""

    def __post_init__(self) -> None:
        _check_choice("architecture", self.architecture, Architecture)
        _check_choice("task", self.task, Task)
        _check_choice("precision", self.precision, Precision)
        _check_choice("device", self.device, Device)
        for name in ("steps", "batch_size", "patience", "workers"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, "1 or more", value)
        for name in ("epochs", "size_steps"):
            _check(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        if self.intensities is not None:
            _check_choice("intensities", self.intensities, Intensities)
        _check(0 < self.validation < 1, "validation", "between 0 and 1", self.validation)
        _check(self.seed >= 0, "seed", "0 or more", self.seed)
        _check(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        _check(4 <= self.diameter <= 256, "diameter", "between 4 and 256 pixels", self.diameter)
        _check(self.crop >= CROP_STEP and self.crop % CROP_STEP == 0, "crop", f"a multiple of {CROP_STEP}", self.crop)


FINE_TUNING = {"epochs": 12, "steps": 40, "learning_rate": 2e-4}
"""Defaults that differ where training starts from a model (`--init`) instead of from nothing."""
