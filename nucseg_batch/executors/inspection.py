"""What a run over a place would meet: what is there, what it comes to, and what would be refused.

Nothing is written, Keras is not needed, and no pixels are read but those of a sample of colour pictures. Memory is an
estimate by a rule that was fitted to measured runs (see `memory_bytes`); time is never guessed: it is computed only
from a speed that the user measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nucseg_batch.errors import ImageError, NucsegError, UsageError
from nucseg_batch.executors.colours import colour_assumptions
from nucseg_batch.executors.plannable import plannable
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import HeaderScan, ScannedImage, none_usable, scan_headers
from nucseg_batch.files.find.select import EACH
from nucseg_batch.files.masks.ngff import calibration_of, label_paths
from nucseg_batch.files.masks.pyramid import choose_levels
from nucseg_batch.files.source import Header
from nucseg_batch.files.zarr.source import open_zarr
from nucseg_batch.files.zarr.store import is_url
from nucseg_batch.machine.processor import bfloat16_flags
from nucseg_batch.plan import (
    LABEL_BYTES,
    TILE,
    Budget,
    Failure,
    ImageInfo,
    Plan,
    bucket_shape,
    check_stacks,
    doubt_error,
    make_plan,
    merged,
    stack_groups,
)
from nucseg_batch.plan.budget import BASE_BYTES
from nucseg_batch.settings import SegmentSettings

SHAPE_BYTES, SHAPES = 5_000_000, 60
"""Memory that TensorFlow keeps for each padded shape of images that it has seen, and for how many shapes at most
(fitted to measured runs)."""
NUMBA_BYTES = 110_000_000
"""Memory of Numba with its compiler and the loops that separate nuclei (measured), which BASE_BYTES leaves out."""
ENLARGED = 2
"""How many times longer the sides of images are taken to be at the network's scale, which is not known before a run."""
WINDOW_BYTES = 31
"""Memory for each pixel of a window of a large image in which nuclei are separated: 16 for the network's answer, 15 for
the separation of images of nuclei (see SEPARATION_BYTES). The backend keeps what calls took, so it comes on top."""
CALLS_AT_ONCE = 2
"""Calls of the network at once."""
COPIES = 3
"""Planes of all channels that are in memory at once: read ahead, shown to the network, and measured."""
UNITS_AT_ONCE = 2
"""Units whose masks are in memory at once: one is written while the next is filled."""
COLUMNS_BYTES, COMPARTMENTS_BYTES = 4, 6
"""Memory that a run takes for each pixel of a plane or region if it measures further columns of nuclei, and if it makes
rings or cells (fitted to measured runs). How many, and of how many channels, does not matter."""
COUNTED_FILES = 100_000
"""Chunk files of zarr stores whose sizes are added up, in all; with more they are not counted."""
TABLES = 3
RUN_FILES = 6
"""Files of the run folder besides two for each unit and for stacks whose nuclei are joined together."""


@dataclass(frozen=True)
class ImageKind:
    """Images that are alike."""

    count: int
    """How many."""
    example: str
    """Key of the first."""
    header: Header
    """What all say of themselves, but for size and time of the file."""
    outcome: ImageInfo | Failure
    """What is planned for the first of them, or why all are refused."""

    @property
    def planes(self) -> int:
        """Planes of all of them that would be segmented."""
        return self.count * self.outcome.plane_count if isinstance(self.outcome, ImageInfo) else 0

    @property
    def nuclei(self) -> str | None:
        """Name of the channel that would be segmented; None where there is no choice, or none was made."""
        if isinstance(self.outcome, Failure) or not self.outcome.names:
            return None
        return self.outcome.names[self.outcome.nuclei]


@dataclass(frozen=True)
class Inspection:
    """All that is known of a place before a run."""

    place: str
    """IN."""
    scan: HeaderScan
    """Every image."""
    plan: Plan
    """What would be done."""
    settings: SegmentSettings
    """How."""
    refusal: UsageError | None = None
    """Why the run as a whole would be refused."""
    stored: dict[str, int] = field(default_factory=dict)
    """Bytes on disk of images in zarr stores, by key, as far as they were counted."""

    @property
    def kinds(self) -> list[ImageKind]:
        """Images whose header could be read, those that are alike together; the most frequent first."""
        alike: dict[Any, list[ScannedImage]] = defaultdict(list)
        for one in self.scan.scanned:
            if one.header is not None:
                plain = replace(one.header, size=0, mtime_ns=0, stored_bytes=None)
                told = one.outcome.message if isinstance(one.outcome, Failure) else one.outcome.nuclei
                alike[plain, one.entry.kind, told].append(one)
        kinds = [
            ImageKind(len(members), members[0].entry.key, key[0], members[0].outcome) for key, members in alike.items()
        ]
        return sorted(kinds, key=lambda kind: (-kind.count, kind.example))

    @property
    def refused(self) -> dict[str, list[str]]:
        """Keys of images that would have no mask, by the reason."""
        reasons: dict[str, list[str]] = defaultdict(list)
        for failure in self.plan.failures:
            reasons[failure.message].append(failure.image)
        return dict(sorted(reasons.items(), key=lambda item: (-len(item[1]), item[1][0])))

    @property
    def units(self) -> int:
        """Pieces of work."""
        return sum(label_array.grid.count for label_array in self.plan.label_arrays)

    @property
    def input_bytes(self) -> int | None:
        """Bytes on disk of all images that would be segmented; None where that was not counted of all."""
        sizes = [self._bytes_of(one) for one in self.scan.scanned if isinstance(one.outcome, ImageInfo)]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    def _bytes_of(self, one: ScannedImage) -> int | None:
        stored = one.header.stored_bytes if one.header else None
        if one.entry.kind == "file":
            return max(one.entry.size, stored or 0)
        return stored if stored is not None else self.stored.get(one.entry.key)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all decoded pixels of the images that would be segmented, of all their channels."""
        headers = (one.header for one in self.scan.scanned if isinstance(one.outcome, ImageInfo))
        return sum(header.bytes for header in headers if header is not None)

    @property
    def output_files(self) -> dict[str, int]:
        """Files that would be made: at most so many in the store, and of tables and in the run folder."""
        store = output_files(self.plan, with_images=self.settings.with_images)
        groups = sum(1 for _ in stack_groups(self.plan))
        tables, records = TABLES + bool(groups), 2 * (self.units + groups)
        return {"store": store, "tables": tables, "run folder": records + RUN_FILES}

    @property
    def stacks(self) -> int:
        """Stacks whose nuclei would be joined over their z-slices."""
        return sum(math.prod(one.shape[:-3]) for one in self.plan.label_arrays if one.has_volumes)

    @property
    def memory(self) -> int:
        """Peak memory of a run on a CPU, about, in bytes; see `memory_bytes`."""
        return memory_bytes(self.plan, self.budget, self.settings)

    @property
    def budget(self) -> Budget:
        """What a run on a CPU of this machine may take of memory."""
        auto = "mixed_bfloat16" if bfloat16_flags() else "float32"
        precision = self.settings.precision
        return Budget(self.settings.memory_bytes, auto if precision == "auto" else precision)

    def seconds(self, mpx_per_s: float) -> float:
        """How long segmenting takes at a speed that was measured."""
        return self.plan.pixel_count / 1e6 / mpx_per_s

    def error(self) -> NucsegError | None:
        """What a run would end with before it begins; None where there is something to segment."""
        strict = doubt_error(self.scan.found.assumptions) if self.settings.strict else None
        if self.refusal is not None or self.plan.label_arrays:
            return self.refusal or strict
        return none_usable(self.place, self.plan.failures)


def inspect(
    place: str, settings: SegmentSettings, *, pattern: str | None = None, progress: Callable[[int, int], None]
) -> Inspection:
    """Looks at all that `place` means; see `discover` for it and for `pattern`, and for what is raised.

    `progress` hears how many headers were read, and of how many. Where a run as a whole would be refused because it is
    not clear which channel shows the nuclei, every file is looked at by itself.
    """
    found = discover(place, pattern=pattern, axes=settings.axes, flat_field=settings.flatfield_file)
    refusal = None
    try:
        joined = with_channels(found, settings.channel)
    except UsageError as error:
        refusal, joined = error, found
        settings = replace(settings, channel=EACH)
    total = len(joined.entries)
    scanned = scan_headers(joined, settings, lambda done: progress(done, total))
    images, failures = plannable(scanned, settings)
    plan = make_plan(images, failures, region=settings.region, labels=settings.labels, linked=settings.link == "z")
    try:
        check_stacks(plan, settings.link)
    except UsageError as error:
        refusal = refusal or error
    assumptions = merged([*scanned.found.assumptions, *colour_assumptions(plan, found.root, settings)])
    scanned = replace(scanned, found=replace(scanned.found, assumptions=assumptions))
    return Inspection(place, scanned, plan, settings, refusal, _stored(scanned, settings))


def memory_bytes(plan: Plan, budget: Budget, settings: SegmentSettings) -> int:
    """Peak memory of a run of this plan on a CPU, about, in bytes; however many images there are.

    It adds up the program, what it keeps for each shape of images, calls of the network, windows of large images in
    which nuclei are separated, planes that are read and measured, and masks of units. Images count as ENLARGED, calls
    and windows as far as the budget lets them grow.
    """
    most = 0.0
    groups = {column.group for column in settings.extra_columns} - {"compartments"}
    measuring = COLUMNS_BYTES * bool(groups) + COMPARTMENTS_BYTES * bool(settings.compartments)
    planes: Counter[tuple[int, int]] = Counter()
    for label_array in plan.label_arrays:
        planes[label_array.height, label_array.width] += math.prod(label_array.shape[:-2])
    for label_array in plan.label_arrays:
        height, width = label_array.height, label_array.width
        whole = min(height * width, label_array.region**2)
        network = _network_bytes(height, width, planes[height, width], budget)
        held = max(image.held_bytes(corrected=settings.flatfield is not None) for image in label_array.images)
        channels = held / (height * width)
        masks = math.prod(label_array.grid.shard) * LABEL_BYTES * len(label_array.labels)
        kept = (COPIES * channels + measuring) * whole + UNITS_AT_ONCE * masks
        most = max(most, network + kept)
    shapes = {bucket_shape(one.height, one.width) for one in plan.label_arrays if not one.regional}
    return int(BASE_BYTES + NUMBA_BYTES + min(len(shapes), SHAPES) * SHAPE_BYTES + most)


def _network_bytes(height: int, width: int, planes: int, budget: Budget) -> float:
    """Memory that calls of the network and separation take for so many planes of this shape."""
    seen = ENLARGED**2 * height * width
    at_once = min(CALLS_AT_ONCE * budget.images_pixels(seen), planes * seen)
    calls = min(at_once * budget.bytes_per_pixel, budget.network_bytes)
    in_tiles = ENLARGED * max(height, width) > TILE
    return calls + in_tiles * min(seen, budget.window_pixels) * WINDOW_BYTES


def output_files(plan: Plan, *, with_images: bool) -> int:
    """Files that a store of masks would consist of, at most: shards of planes without nuclei are not written."""
    count, groups = 0, {""}
    for label_array in plan.label_arrays:
        arrays = len(label_array.label_images) + with_images
        levels = choose_levels(label_array, calibration_of(label_array, None))
        grids = [label_array.grid, *(label_array.grid.level(level.shape) for level in levels)]
        count += arrays * sum(grid.count + 1 for grid in grids)
        groups.update(*map(_with_parents, label_paths(label_array)))
    return count + len(groups)


def _with_parents(group: str) -> set[str]:
    parts = group.split("/")
    return {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}


def _stored(found: HeaderScan, settings: SegmentSettings) -> dict[str, int]:
    """Bytes on disk of the full resolution of images in zarr stores, by key; at most COUNTED_FILES are looked at."""
    root, left, sizes = found.found.root, COUNTED_FILES, {}
    for one in found.scanned:
        if one.entry.kind != "zarr" or isinstance(one.outcome, Failure) or is_url(root) or left <= 0:
            continue
        with (
            contextlib.suppress(ImageError),
            contextlib.closing(open_zarr(root, one.entry.group or "", axes=settings.axes)) as source,
        ):
            count = source.missing_chunks(left)
            if count is not None and count.counted:
                sizes[one.entry.key] = count.stored_bytes
                left -= count.present
            else:
                left = 0
    return sizes


def as_json(found: Inspection, mpx_per_s: float | None) -> dict[str, Any]:
    """An inspection as plain values."""
    plan = found.plan
    return {
        "in": found.place,
        "root": found.scan.found.root,
        "images": plan.image_count,
        "planes": plan.plane_count,
        "pixels": plan.pixel_count,
        "kinds": [_kind_json(kind) for kind in found.kinds],
        "channels": list(plan.channel_names),
        "input_bytes": found.input_bytes,
        "decoded_bytes": found.decoded_bytes,
        "mask_bytes": plan.mask_bytes,
        "arrays": [
            {"name": one.name, "axes": one.axes, "shape": one.shape, "shard": one.grid.shard}
            for one in plan.label_arrays
        ],
        "units": found.units,
        "stacks": found.stacks,
        "output_files": found.output_files,
        "memory_bytes": found.memory,
        "memory_budget_bytes": found.budget.total,
        "seconds": None if mpx_per_s is None else round(found.seconds(mpx_per_s), 1),
        "refused": [{"image": one.image, "error": one.error, "message": one.message} for one in plan.failures],
        "passed_over": found.scan.found.skipped,
        "passed_over_names": {reason: one.names for reason, one in found.scan.found.passed.items() if one.names},
        "passed_over_suffixes": {
            suffix: count for one in found.scan.found.passed.values() for suffix, count in one.suffixes
        },
        "notes": list(found.scan.found.notes),
        "assumptions": [dataclasses.asdict(one) for one in found.scan.found.assumptions],
        "refusal": None if found.refusal is None else str(found.refusal),
    }


def _kind_json(kind: ImageKind) -> dict[str, Any]:
    header = kind.header
    return {
        "images": kind.count,
        "example": kind.example,
        "axes": header.axes,
        "shape": header.shape,
        "dtype": header.dtype,
        "channels": [{"name": channel.name, "wavelength_nm": channel.wavelength} for channel in header.channels],
        "nuclei": kind.nuclei,
        "pixel_size_um": header.pixel_size,
        "chunk": header.chunk,
        "levels": header.levels,
        "planes": kind.planes,
        "refused": kind.outcome.message if isinstance(kind.outcome, Failure) else None,
    }
