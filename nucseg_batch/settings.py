"""All options, as frozen records that are checked once, when they are made.

A record is the only place that holds a default, so that the command line, Python callers and a resumed run agree.
`SegmentSettings` keeps what changes the pixels of a result apart from what only changes its speed: a run may be
resumed with another batch size, but not with another threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nucseg_batch.columns import ALL, OPTIONAL, OPTIONAL_GROUPS, Column, names, requested_columns
from nucseg_batch.errors import SettingError, did_you_mean
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
INPUT, NUCLEI, OUTPUT, COMPUTING = "Input", "Nuclei", "Output", "Computing"
RESUMING, DATA, NETWORK, TRAINING = "Resuming, stopping, job arrays", "Data", "Network", "Training"
"""Groups of options."""
DEVICE_HELP = "Device to compute on; auto uses a GPU if there is one."
PRECISION_HELP = (
    "Precision of the network: auto, float32, mixed_bfloat16 or mixed_float16; auto is bfloat16 if the processor "
    "supports it, else float32."
)


@dataclass(frozen=True)
class Option:
    """How a setting is given as an option: `--batch-size` for `batch_size`, also in files of options."""

    panel: str
    """The group of options that it is shown in."""
    help: str
    """What it does, for the help."""
    metavar: str | None = None
    """What its value is called there; None for flags and choices."""


def option(default: Any, panel: str, help: str, metavar: str | None = None, **marks: bool) -> Any:
    """A field of a record that is an option of commands, too.

    marks: `speed_only` where it changes nothing but the speed, `refuses_only` where it only decides whether a run
    begins.
    """
    return field(default=default, metadata={"option": Option(panel, help, metavar), **marks})


def _check(condition: bool, name: str, expected: str, received: object) -> None:
    if not condition:
        raise SettingError(name, f"must be {expected}, but is {received!r}.")


def _check_choice(name: str, value: str, choices: Any) -> None:
    allowed = get_args(choices)
    _check(value in allowed, name, "one of " + ", ".join(allowed), value)


@dataclass(frozen=True)
class SegmentSettings:
    """Options of `segment`."""

    channel: str = option(
        "auto",
        INPUT,
        "Channel that shows the nuclei: name, number from 0, or wavelength in nm; red, green, blue, grey or rgb for "
        "colour images; auto: the only channel, or the DNA stain; each: every file is an image of its own.",
        "NAME|NUMBER|NM",
    )
    """Channel with the nuclei: its name, emission wavelength or number from 0; for colour images `red`, `green`,
    `blue`, `grey`, or `rgb` for all three. `auto` selects the only channel, or the one named like a DNA stain; for a
    colour image the only colour with any signal, else all three."""
    t: str | None = option(None, INPUT, "Time points, numbers from 0: 3, or 0:10, or 0:10:2; default: all.", "RANGE")
    """Time points that are segmented, one such as `3` or a slice as in Python; None for all."""
    z: str | None = option(
        None,
        INPUT,
        "Z-slices, numbers from 0: 3, or 0:10, or max for the maximum projection; default: all.",
        "RANGE|max",
    )
    """z-slices that are segmented, likewise, or `max` for the maximum projection of all."""
    axes: str | None = option(
        None,
        INPUT,
        "Axes of TIFFs and zarr arrays that do not name them, such as yxc or tczyx; s: colour samples.",
        "AXES",
    )
    """Axes of TIFFs and plain zarr arrays without axis names, such as `yxc` or `tczyx`, in the order of the array."""
    pixel_size: float | None = option(
        None,
        INPUT,
        "Micrometres per pixel, for the columns in micrometres; default: from the metadata of the files.",
        "UM",
    )
    """Width of a pixel in micrometres; None for that in the file. Sizes are first estimated at this scale."""
    max_pixels: int = option(
        100_000_000, INPUT, "Refuse planes with more pixels than this if they must be decoded whole.", "PX"
    )
    """Largest image in pixels; larger ones are refused before they are decoded."""
    strict: bool = option(
        False,
        INPUT,
        "Refuse input that can be read in several ways instead of assuming one of them.",
        refuses_only=True,
    )
    """Whether doubtful assumptions about the input are an error before anything is segmented."""

    diameter: float | None = option(
        None, NUCLEI, "Width of the nuclei in pixels, for all images; default: estimated for each image.", "PX"
    )
    """Typical width of the nuclei in pixels; None to estimate it per image with the size network of the model."""
    threshold: float | None = option(
        None, NUCLEI, "Foreground probability above which a pixel is nucleus, 0 to 1; default: from the model.", "P"
    )
    """Foreground probability above which a pixel belongs to a nucleus; None for that of the model."""
    min_area: int | None = option(None, NUCLEI, "Smallest nucleus to keep, in pixels; default: from the model.", "PX")
    """Area in pixels of the smallest nucleus that is kept; None for that of the model."""
    augment: bool = option(
        False,
        NUCLEI,
        "Average the network's output over mirror images: about four times slower, slightly better outlines.",
    )
    """Whether the output of the network is averaged over mirror images, which takes four passes instead of one."""

    measure: str | None = option(
        None,
        OUTPUT,
        f"Further columns of nuclei.csv: {', '.join(OPTIONAL_GROUPS)}, {ALL}, or names of single columns, with commas.",
        "GROUPS",
    )
    """Further columns of nuclei.csv: groups and names of `columns.OPTIONAL`, with commas; None for none."""
    neighbour_radius: float = option(
        100.0, OUTPUT, "Distance between centroids up to which the column neighbours counts nuclei, in pixels.", "PX"
    )
    """Distance between centroids in pixels up to which nuclei are neighbours, for `measure`."""
    with_images: bool = option(False, OUTPUT, "Store the pixels beside the masks, to view and correct them together.")
    """Whether the pixels of the images are written to the store beside their masks."""

    device: Device = option("auto", COMPUTING, DEVICE_HELP)
    """Where the network runs; `auto` uses a GPU if there is one."""
    precision: Precision = option("auto", COMPUTING, PRECISION_HELP, "KIND")
    """Arithmetic of the network; `auto` is bfloat16 if the processor supports it, else float32."""
    batch_size: int | None = option(
        None,
        COMPUTING,
        "Images per batch, 1 or more; default: depends on their size. Changes only speed.",
        "N",
        speed_only=True,
    )
    """Images in one call of the network; None chooses it by image size."""
    memory: str | None = option(
        None,
        COMPUTING,
        "Memory that each process may use, such as 4GB; default: 2GB, or less if the job has less. Changes only speed.",
        "SIZE",
        speed_only=True,
    )
    """Host memory for each process, such as `4GB` or `1500MiB`; None for 2 GB. It is limited to what the machine or the
    job has."""
    workers: int | None = option(
        None,
        COMPUTING,
        "Threads that read images, 1 or more; default: half the cores. Changes only speed.",
        "N",
        speed_only=True,
    )
    """Threads that read and decode images; None for one per two cores, at most eight."""
    region: int = option(
        REGION,
        COMPUTING,
        "Side in pixels of the regions into which larger planes are divided: 64 to 16384, in steps of 4.",
        "PX",
    )
    """Side in pixels of the regions in which larger planes are segmented."""
    skip_empty: bool = option(False, COMPUTING, "Skip regions of large planes without anything bright.")
    """Whether regions of large planes in which nothing is bright are skipped."""

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
        for word in () if self.measure is None else self.measure.split(","):
            if not requested_columns(word):
                near = did_you_mean(word.strip(), [*OPTIONAL_GROUPS, *names(OPTIONAL)])
                expected = f"some of {', '.join(OPTIONAL_GROUPS)}, {ALL}, or names of their columns"
                raise SettingError("measure", f"must be {expected}, but has {word.strip()!r}{near or '.'}")
        _check(self.neighbour_radius >= 0, "neighbour_radius", "0 or more pixels", self.neighbour_radius)
        _check(self.max_pixels >= 1, "max_pixels", "1 or more", self.max_pixels)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            _check(value is None or value >= 1, name, "1 or more", value)
        enough = self.memory is None or (parsed_bytes(self.memory) or 0) >= LEAST_MEMORY
        _check(enough, "memory", f"a size of at least {LEAST_MEMORY / 1e9:g}GB, such as 4GB", self.memory)

    @property
    def memory_bytes(self) -> int:
        """Bytes that a process may take on the host."""
        return min(DEFAULT_MEMORY if self.memory is None else parsed_bytes(self.memory) or 0, available_memory())

    @property
    def extra_columns(self) -> tuple[Column, ...]:
        """Columns of nuclei.csv beyond those of every run."""
        return requested_columns(self.measure or "")

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


def option_names(record: Any, but: Collection[str] = ()) -> tuple[str, ...]:
    """The fields of a record of settings that are options, but for some."""
    return tuple(one.name for one in dataclasses.fields(record) if "option" in one.metadata and one.name not in but)


@dataclass(frozen=True)
class RunSettings:
    """How a run goes on, stops and is divided; nothing of it changes a result."""

    share: int | None = None
    """Which share of the run this process does, counted from 0; None does all that is missing."""
    verify_inputs: VerifyInputs = option(
        "quick",
        RESUMING,
        "How to find images that have changed since they were segmented: by size and time (quick), by pixels "
        "(full), or not at all (none).",
    )
    """How images that are done are compared with what they were: by size and time, by their pixels, or not at all."""
    retry_failed: bool = option(
        False,
        RESUMING,
        "Try all failed images again; default: those that changed, ran out of memory or met a disk error.",
    )
    """Whether every image that failed is tried again, and not only those for which that may end better."""
    max_failures: str | None = option(
        None, RESUMING, "Stop if more images than this fail: a number or a percentage.", "N|P%"
    )
    """More failures than this end the call: a number, or a percentage of its planes such as `5%`."""
    grace: float = option(10.0, RESUMING, "Seconds to finish work in flight after TERM, INT, USR1 or USR2.", "S")
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
        share = float(number) / 100 if text.endswith("%") else 0.0
        _check(share <= 1, "max_failures", "100% or less", self.max_failures)
        return planes * share if text.endswith("%") else int(number)


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


FINE_TUNING: Mapping[str, Any] = {"epochs": 12, "steps": 40, "learning_rate": 2e-4}
"""Defaults that differ where training starts from a model (`--init`) instead of from nothing."""
