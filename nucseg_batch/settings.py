"""All options, as frozen records that are checked once, when they are made.

A record is the only place that holds a default, so that the command line, Python callers and a resumed run agree.
`SegmentSettings` keeps what changes the pixels of a result apart from what only changes its speed: a run may be
resumed with another batch size, but not with another threshold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nucseg_batch.columns import (
    ALL,
    BACKGROUND,
    NEIGHBOUR_COUNT,
    OPTIONAL,
    OPTIONAL_GROUPS,
    Column,
    canonical_request,
    compartment_columns,
    names,
    requested_columns,
)
from nucseg_batch.compartments import CELLS, FARTHEST, NUCLEI_LABEL, OPTIONS, RINGS, Distances
from nucseg_batch.errors import SettingError, check, check_choice, did_you_mean
from nucseg_batch.machine.memory import available_memory, parsed_bytes
from nucseg_batch.options import option

Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Device = Literal["auto", "cpu", "gpu"]
Architecture = Literal["default", "unet", "mobilenetv2", "mobilenetv3", "efficientnetlite0"]
Task = Literal["instances", "semantic"]
VerifyInputs = Literal["quick", "full", "none"]
NewImages = Literal["add", "report", "refuse"]
Link = Literal["z", "t"]
"""Axes along which nuclei can be joined."""
Intensities = Literal["percentiles", "nuclei"]
"""How a model's images are brought to one range: by percentiles of all pixels, or as `arrays.ranges` describes."""
TABLE_FORMATS = ("csv", "parquet")
"""Formats of the nuclei table."""
REGION = 3072
"""Side in pixels of the regions in which planes that are too large for one piece of work are done."""
DEFAULT_MEMORY = 2_000_000_000
"""Memory in bytes that a process takes on the host if it is not told otherwise."""
LEAST_MEMORY = 1_500_000_000
"""The least with which it can do its work: images of up to 1536 x 1536 pixels go through the network in one call."""
CROP_STEP = 32
"""Sides of training crops are multiples of this, which every network can halve often enough."""
ESTIMATE = "estimate"
"""Value of `flatfield` for what is estimated from the images."""
INPUT, NUCLEI, OUTPUT, COMPUTING = "Input", "Nuclei", "Output", "Computing"
RESUMING, DATA, NETWORK, TRAINING = "Resuming, stopping, job arrays", "Data", "Network", "Training"
"""Groups of options."""
DEVICE_HELP = "Device to compute on; auto uses a GPU if there is one."
PRECISION_HELP = (
    "Precision of the network: auto, float32, mixed_bfloat16 or mixed_float16; auto is bfloat16 if the processor "
    "supports it, else float32."
)


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
    z_step: float | None = option(
        None,
        INPUT,
        "Distance of z-slices in micrometres, for the volumes of --link z; default: from the metadata of the files.",
        "UM",
    )
    """Distance of z-slices in micrometres; None for that in the file."""
    flatfield: str | None = option(
        None,
        INPUT,
        "Correct uneven illumination before segmenting and measuring: divide by this image of it, or by one that is "
        "estimated from the images of the run; default: none.",
        "FILE|estimate",
    )
    """Image by which pixels are divided, scaled to mean 1, or `estimate`; None for no correction."""
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
        listed=True,
    )
    """Further columns of nuclei.csv: groups and names of `columns.OPTIONAL`, with commas; None for none."""
    neighbour_radius: float = option(
        100.0, OUTPUT, "Distance between centroids up to which neighbour_count counts nuclei, in pixels.", "PX"
    )
    """Distance between centroids in pixels up to which nuclei are neighbours, for `measure`."""
    controls: str | None = option(
        None,
        OUTPUT,
        "Control wells of every plate, such as A01,A02 or the rectangle A01:H01: adds robust z-scores of all wells "
        "against them to out.wells.csv. Can be changed later.",
        "WELLS",
        of_wells=True,
        listed=True,
    )
    """Control wells of plates, such as A01,A02 or A01:H01, for z-scores in the table of wells; None for none."""
    tables: str = option(
        "csv",
        OUTPUT,
        "Formats of the nuclei table: csv, parquet (a folder of files; extra export), or both, with a comma.",
        "FORMATS",
        listed=True,
    )
    """Formats of the nuclei table: `csv`, `parquet`, or both, with a comma."""
    with_images: bool = option(False, OUTPUT, "Store the pixels beside the masks, to view and correct them together.")
    """Whether the pixels of the images are written to the store beside their masks."""

    ring: str | None = option(
        None,
        OUTPUT,
        "Label rings around the nuclei, too: GAP from a nucleus, WIDTH wide, in pixels, such as 1,5, or in "
        "micrometres, such as 0.5,2um.",
        "GAP,WIDTH",
        listed=True,
    )
    """Gap and width of rings around nuclei, in pixels such as `1,5`, or in micrometres such as `0.5,2um`; None for no
    rings."""
    expand: str | None = option(
        None,
        OUTPUT,
        "Label cells, too: nuclei with all pixels at most this far from them, in pixels, or in micrometres as 3um.",
        "DISTANCE",
    )
    """How far cells reach beyond their nuclei, in pixels such as `10`, or in micrometres such as `3um`; None for no
    cells."""

    link: Link | None = option(
        None,
        OUTPUT,
        "z: join the nuclei of neighbouring z-slices into volumes: a label image of the stack, and out.volumes.csv. t: "
        "link the nuclei of successive time points into tracks: out.tracks.csv.",
    )
    """Axis along which nuclei are joined: `z` makes volumes of the nuclei of z-slices, `t` tracks of those of time
    points; None for none."""

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
        check(self.channel != "", "channel", "a name, a wavelength or a number", self.channel)
        check(64 <= self.region <= 16384 and self.region % 4 == 0, "region", "64 to 16384 in steps of 4", self.region)
        if self.axes is not None:
            given = self.axes.lower()
            known = set("yx") <= set(given) <= set("tczyxs") and len(set(given)) == len(given)
            check(
                known and not {"c", "s"} <= set(given),
                "axes",
                "y, x and some of t, z, and c or s, once each",
                self.axes,
            )
        check_choice("precision", self.precision, Precision)
        check_choice("device", self.device, Device)
        if self.threshold is not None:
            check(0 < self.threshold < 1, "threshold", "between 0 and 1", self.threshold)
        if self.min_area is not None:
            check(self.min_area >= 0, "min_area", "0 or more pixels", self.min_area)
        check(self.flatfield != "", "flatfield", f"an image, or {ESTIMATE}", self.flatfield)
        if self.link is not None:
            check_choice("link", self.link, Link)
        for name in ("diameter", "pixel_size", "z_step"):
            value = getattr(self, name)
            check(value is None or 0.01 <= value <= 10_000, name, "between 0.01 and 10000", value)
        for word in () if self.measure is None else self.measure.split(","):
            if not requested_columns(word):
                near = did_you_mean(word.strip(), [*OPTIONAL_GROUPS, *names(OPTIONAL)])
                expected = f"some of {', '.join(OPTIONAL_GROUPS)}, {ALL}, or names of their columns"
                raise SettingError("measure", f"must be {expected}, but has {word.strip()!r}{near or '.'}")
        formats = {word.strip() for word in self.tables.split(",")}
        check(formats <= set(TABLE_FORMATS), "tables", "csv, parquet, or csv,parquet", self.tables)
        named = self.controls is None or any(part.strip() for part in self.controls.split(","))
        check(named, "controls", "wells, such as A01,A02 or A01:H01", self.controls)
        check(self.neighbour_radius >= 0, "neighbour_radius", "0 or more pixels", self.neighbour_radius)
        check(self.max_pixels >= 1, "max_pixels", "1 or more", self.max_pixels)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, "1 or more", value)
        far = f"at most {FARTHEST:g} pixels from the nucleus"
        ring, cell = f"GAP,WIDTH, such as 1,5 or 0.5,2um, {far}", f"a distance above 0, such as 10 or 3um, {far}"
        check(self.ring is None or RINGS in self.compartments, "ring", ring, self.ring)
        check(self.expand is None or CELLS in self.compartments, "expand", cell, self.expand)
        enough = self.memory is None or (parsed_bytes(self.memory) or 0) >= LEAST_MEMORY
        check(enough, "memory", f"a size of at least {LEAST_MEMORY / 1e9:g}GB, such as 4GB", self.memory)

    @property
    def flatfield_file(self) -> Path | None:
        """The image of the illumination, where one was given."""
        return None if self.flatfield in (None, ESTIMATE) else Path(str(self.flatfield))

    @property
    def memory_bytes(self) -> int:
        """Bytes that a process may take on the host."""
        return min(DEFAULT_MEMORY if self.memory is None else parsed_bytes(self.memory) or 0, available_memory())

    @property
    def compartments(self) -> dict[str, Distances]:
        """The compartments that are asked for, by label image."""
        given = ((RINGS, self.ring, 2), (CELLS, self.expand, 1))
        found = {name: Distances.parsed(text, count) for name, text, count in given if text is not None}
        return {name: distances for name, distances in found.items() if distances is not None}

    @property
    def labels(self) -> tuple[str, ...]:
        """The label images of a run, nuclei first."""
        return (NUCLEI_LABEL, *self.compartments)

    @property
    def table_formats(self) -> tuple[str, ...]:
        """Formats of the nuclei table, in the order of TABLE_FORMATS."""
        return tuple(kind for kind in TABLE_FORMATS if kind in (word.strip() for word in self.tables.split(",")))

    @property
    def extra_columns(self) -> tuple[Column, ...]:
        """Columns of nuclei.csv beyond those of every run."""
        asked = requested_columns(self.measure or "")
        background = any(column.group == BACKGROUND for column in asked)
        ring, cell = self.ring is not None, self.expand is not None
        return (*asked, *compartment_columns(ring=ring, cell=cell, background=background))

    def result_options(self) -> dict[str, Any]:
        """The options that can change a result: those a resumed run must share with the run it resumes."""
        given = dataclasses.asdict(self)
        given |= {OPTIONS[label].strip("-"): str(distances) for label, distances in self.compartments.items()}
        given["flatfield"] = self.flatfield_file.name if self.flatfield_file else self.flatfield
        given["measure"] = canonical_request(self.measure) if self.measure else None
        given |= {"tables": ",".join(self.table_formats), "z_step": self.z_step if self.link == "z" else None}
        if NEIGHBOUR_COUNT not in names(self.extra_columns):
            given["neighbour_radius"] = type(self).neighbour_radius  # the default: another one would change nothing
        others = SPEED_OPTIONS | REFUSING_OPTIONS | WELLS_OPTIONS
        return {name: value for name, value in given.items() if name not in others}

    def with_speed(self, options: Mapping[str, Any]) -> SegmentSettings:
        """The same with other options that only change the speed; None leaves one as it is."""
        given = {name: value for name, value in options.items() if value is not None}
        assert given.keys() <= SPEED_OPTIONS, given
        return dataclasses.replace(self, **given)


SPEED_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("speed_only"))
"""Options that change nothing but the speed."""
REFUSING_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("refuses_only"))
"""Options that only decide whether a run begins: a run that they let pass has the same result without them."""
WELLS_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("of_wells"))
"""Options of the table of wells, which is computed again whenever they change."""
LISTED_OPTIONS = frozenset(f.name for f in dataclasses.fields(SegmentSettings) if f.metadata.get("listed"))
"""Options of several words with commas, for which files and Python may give a list."""


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
    new: NewImages = option("add", RESUMING, "Images that are new in IN: add them to the run, report or refuse them.")
    """What becomes of images that are new in IN, or could not be used when the run was planned and have changed."""
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
        check_choice("verify_inputs", self.verify_inputs, VerifyInputs)
        check_choice("new", self.new, NewImages)
        check(self.share is None or self.share >= 0, "share", "0 or more", self.share)
        check(0 <= self.grace <= 86400, "grace", "0 to 86400 seconds", self.grace)
        self.most_failures(1)

    def most_failures(self, planes: int) -> float:
        """How many of so many planes may fail before the call ends."""
        if self.max_failures is None:
            return float("inf")
        text = self.max_failures.strip()
        number = text.removesuffix("%").strip()
        plain = number.replace(".", "", 1).isdecimal() if text.endswith("%") else number.isdecimal()
        check(plain, "max_failures", "a number such as 20, or a percentage such as 5%", self.max_failures)
        share = float(number) / 100 if text.endswith("%") else 0.0
        check(share <= 1, "max_failures", "100% or less", self.max_failures)
        return planes * share if text.endswith("%") else int(number)
