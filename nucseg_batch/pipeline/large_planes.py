"""Large planes, region by region: read and find ahead of measuring and keeping; then one id for each nucleus.

Regions are read by one thread, found on the device by the calling one, measured and kept by another, of which each is
at most one region ahead of the next: memory is bounded by a few regions, whatever the plane's size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.sampling import IntensitySurvey, survey_intensities
from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.arrays.seams import join
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.masks.pixels import as_stored, pixel_bounds
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import ImageReader, pixels_digest, windows_sha256
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, MergedPlane, PlaneFingerprint, PlaneResult, RegionOutcome
from nucseg_batch.files.run.tables import SUMMARISED, NucleiTable, labelled_rows, plane_summary
from nucseg_batch.pipeline.channels import NetworkInput, network_channel_count, resolve_channel, select_channels
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.pipeline.regions import (
    Labeller,
    RegionTile,
    TileResult,
    find,
    finished,
    mask,
    packed,
    region_tiles,
    unpacked,
)
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask, killer
from nucseg_batch.plan import Failure, LargePlane, Plane, Scales, Unit
from nucseg_batch.settings import Intensities, SegmentSettings

LOOKS = 3
"""Windows of a large plane that are segmented to see how wide its nuclei are, where the model has no size network."""
SIZED_WINDOWS = 9
"""Windows that a size network is shown: it takes a small part of the time."""
LOOK_SIDE = 1024
"""Their sides in pixels at the scale at which the look begins."""
KEPT_LABELS = 4
"""Regions whose labels are held at once while ids are joined."""


class Segmenter(Labeller, Protocol):
    """What is needed of a predictor."""

    @property
    def intensities(self) -> Intensities:
        """By which rule its range of values is measured."""
        ...

    @property
    def sizes_alone(self) -> bool:
        """Whether the model has a size network, and `width` can be asked."""
        ...

    def width(self, pixels: Any, limits: tuple[float, float] | None = None) -> float | None:
        """Typical width of the nuclei in a window, whose values between `limits` are shown, by the size network."""
        ...

    def look(self, pixels: Any, begin: float) -> ScaleTrial:
        """Segments a window at the scale that fits it."""
        ...

    def scale_of(self, width: float, *, grey: bool) -> float:
        """The scale for a plane with nuclei of this width in pixels."""
        ...


@dataclass(frozen=True)
class PlaneContext:
    """What the regions of one plane share."""

    survey: IntensitySurvey
    """What was found out about the plane."""
    scale: float
    """By how much it is enlarged for the network."""
    channel: str
    """What is shown of it, see `pipeline.channels.settled`."""


Advance = Callable[[Unit, RegionOutcome | Failure], None]
"""Called once for every region that was finished, well or not; by one thread."""


def process_regions(
    tasks: Sequence[UnitTask],
    *,
    images: ImageReader,
    journal: Journal,
    attempts: Attempts,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    advance: Advance,
    tell: Callable[[str], None],
    gauge: StageTimer,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Segments regions and keeps what was found in the journal; one that cannot be done becomes a failure there.

    What depends on the whole plane, its range of values and its scale, is found out again by every call, from the same
    pixels in the same way. When `stopped` says so no further region is begun. Regions on which several processes died
    are done last and alone.
    """

    @lru_cache(maxsize=2)
    def share(plane: Plane) -> PlaneContext | Exception:
        try:
            return _surroundings(plane, images, predictor, settings, scales, tell)
        except Exception as error:  # decoders and devices raise their own classes; kept, for all regions of the plane
            return error

    def tiles(units: Iterable[Unit]) -> Iterator[tuple[Unit, RegionTile | None, PlaneContext | None, Exception | None]]:
        for unit in units:
            attempts.begin(unit)
            begun.append(unit)
            if unit.name in careful:
                attempts.begin_plane(unit, 0)
            around = share(unit.planes[0])
            if isinstance(around, Exception):
                yield unit, None, None, around
                continue
            for tile in region_tiles(unit, predictor, around.scale):
                yield unit, tile, around, None

    def read(unit: Unit, tile: RegionTile, channel: str) -> tuple[NetworkInput, bytes]:
        rows, columns = tile.part("source")
        plane = unit.planes[0]
        with gauge.busy("read"):
            pixels = STORAGE_RETRY.run(lambda: images.read(plane, rows, columns))
            return select_channels(pixels, plane.image, channel), pixels_digest(pixels)

    def keep(unit: Unit, found: list[TileResult], error: Exception | None, scale: float, digests: list[bytes]) -> None:
        with gauge.busy("measure"):
            measure_and_keep(unit, found, error, scale, digests)

    def measure_and_keep(
        unit: Unit, found: list[TileResult], error: Exception | None, scale: float, digests: list[bytes]
    ) -> None:
        plane = unit.planes[0]
        outcome: RegionOutcome | Failure
        kept = ""
        if error is None:
            try:
                result = finished(unit, found)
            except Exception as reason:  # as above
                error = reason
        if error is None:
            journal.retract(unit)
            kept = journal.keep_region(unit, packed(result))
            outcome = RegionOutcome(plane.image.key, int(result.part.owned.sum()), scale)
        else:
            outcome = failure_of(plane, "segment" if found else "read", error)
        windows = tuple(_window(result.tile) for result in found) if error is None else ()
        digest = windows_sha256(digests) if error is None else ""
        seen = PlaneFingerprint(*images.state(plane.image), digest, windows)
        journal.commit(unit, Marker((outcome,), 0, kept, (seen,)), "")
        attempts.end(unit)
        advance(unit, outcome)

    def give_up(unit: Unit) -> None:
        plane = unit.planes[0]
        failure = killer(plane)
        journal.commit(unit, Marker((failure,), 0, "", (PlaneFingerprint(*images.state(plane.image), ""),)), "")
        attempts.end(unit)
        advance(unit, failure)

    begun: list[Unit] = []
    careful = {task.unit.name for task in tasks if task.history.careful}
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "finish") as finisher:

        def run(units: Iterable[Unit]) -> None:
            kept: Future[None] | None = None
            found: list[TileResult] = []
            digests: list[bytes] = []
            trouble: Exception | None = None
            for (unit, tile, around, error), pixels, is_last in _ahead(tiles(units), reader, read):
                trouble = trouble or error
                if tile is not None and around is not None and pixels is not None and trouble is None:
                    try:
                        shown, digest = pixels.result()
                        digests.append(digest)
                        with gauge.busy("segment"):
                            one = find(tile, shown, predictor, around.survey.limits, skip_empty=settings.skip_empty)
                        found.append(one)
                    except Exception as reason:  # as above
                        trouble = reason
                if is_last:
                    if kept is not None:
                        kept.result()
                    kept = finisher.submit(keep, unit, found, trouble, around.scale if around else 1.0, digests)
                    found, digests, trouble = [], [], None
            if kept is not None:
                kept.result()

        try:
            run(task.unit for task in tasks if not task.history.careful and not stopped())
            for task in tasks:
                if not task.history.careful or stopped():
                    continue
                if task.history.guilty:
                    give_up(task.unit)
                else:
                    run([task.unit])
        finally:
            for unit in begun:
                attempts.end(unit)


def _window(tile: RegionTile) -> tuple[int, int, int, int]:
    """First and last row, first and last column of what was read for a tile."""
    rows, columns = tile.part("source")
    return rows.start, rows.stop, columns.start, columns.stop


def join_plane(
    large: LargePlane,
    *,
    images: ImageReader,
    journal: Journal,
    writer: MaskWriter,
    table: NucleiTable,
    settings: SegmentSettings,
) -> int:
    """Gives the nuclei of a plane whose regions are all done their ids, and writes its masks and rows.

    Returns pixels that became background because neighbouring regions did not agree on them. Doing it again gives the
    same bytes.
    """
    units, plane = large.units, large.plane
    journal.retract_plane(large)
    shape = (large.label_array.height, large.label_array.width)
    results = [unpacked(journal.region(unit), labels=False) for unit in units]

    @lru_cache(maxsize=KEPT_LABELS)
    def labels_of(number: int) -> Any:
        return unpacked(journal.region(units[number])).labels

    joined = join([result.part for result in results], labels_of, shape)
    shards = []
    for unit, ids in zip(units, joined.ids, strict=True):
        masks = mask(unpacked(journal.region(unit)), ids, shape)
        pixels = None
        if settings.with_images:
            stored = as_stored(images.read(plane, *unit.bounds[-2:]), large.label_array)
            pixels = stored.reshape([part.stop - part.start for part in pixel_bounds(unit)])
        shards.append(writer.write(unit, masks.reshape(unit.shape), pixels))

    pixel_size = settings.pixel_size or plane.image.pixel_size
    nuclei: dict[str, list[Any]] = {name: [] for name in SUMMARISED}
    digest, length = hashlib.sha256(), 0
    with whole_file(journal.plane_part(large)) as file:
        for number, result in enumerate(results):
            labels, final = joined.of(number)
            measures = {name: values[labels - 1] for name, values in result.measures.items()}
            rows = labelled_rows(plane, final.tolist(), table.rows(measures, pixel_size)).encode()
            file.write(rows)
            digest.update(rows)
            length += len(rows)
            for name, values in nuclei.items():
                values.append(measures[name])
    marker = journal.marker(units[0])
    outcome = marker.planes[0] if marker is not None else None
    scale = outcome.scale if isinstance(outcome, RegionOutcome) else 1.0
    exposure = Exposure.joined([result.exposure for result in results])
    together = {name: np.concatenate(values) for name, values in nuclei.items()}
    summary = plane_summary(shape, together, exposure, scale, pixel_size)
    written = PlaneResult(plane.image.key, int(summary["nuclei"] or 0), summary, length)
    sizes, digests = tuple(shard.bytes for shard in shards), tuple(shard.sha256 for shard in shards)
    journal.commit_plane(large, MergedPlane(written, sizes, digests, digest.hexdigest()))
    return joined.lost_pixels


def _surroundings(
    plane: Plane,
    images: ImageReader,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    tell: Callable[[str], None],
) -> PlaneContext:
    """Looks at a plane as a whole: its range of values, and how wide its nuclei are unless that was given."""
    info = plane.image

    def read(rows: slice, columns: slice) -> Any:
        return select_channels(images.read(plane, rows, columns), info, channel).pixels

    with images.opened(info) as source:
        chunk = source.header.chunk
    tell(f"{plane.name}: {info.height} x {info.width} pixels, measuring the plane as a whole")
    channel = resolve_channel(images, plane, settings)
    found = survey_intensities(read, (info.height, info.width), chunk, predictor.intensities)
    scale = scales.of(network_channel_count(info, channel))
    if settings.diameter is None:
        side = round(LOOK_SIDE / scale)
        if predictor.sizes_alone:
            sized = (predictor.width(read(*window), found.limits) for window in found.informative(side, SIZED_WINDOWS))
        else:
            sized = (predictor.look(read(*window), scale).width for window in found.informative(side, LOOKS))
        widths = [width for width in sized if width is not None]
        if widths:
            width = float(np.median(widths))
            scale = predictor.scale_of(width, grey=network_channel_count(info, channel) == 1)
            tell(f"{plane.name}: nuclei {min(widths):.0f} to {max(widths):.0f} pixels wide, scale {scale:.3g}")
    return PlaneContext(found, scale, channel)


def _ahead(
    tiles: Iterator[tuple[Unit, RegionTile | None, Any, Exception | None]],
    reader: ThreadPoolExecutor,
    read: Callable[[Unit, RegionTile, str], tuple[NetworkInput, bytes]],
) -> Iterator[
    tuple[tuple[Unit, RegionTile | None, Any, Exception | None], Future[tuple[NetworkInput, bytes]] | None, bool]
]:
    """Tiles with their pixels, of which the next are being read, and whether each is the last of its unit."""
    waiting: tuple[Any, Future[tuple[NetworkInput, bytes]] | None] | None = None
    for tile in tiles:
        pixels = reader.submit(read, tile[0], tile[1], tile[2].channel) if tile[1] is not None else None
        if waiting is not None:
            yield *waiting, waiting[0][0] != tile[0]
        waiting = (tile, pixels)
    if waiting is not None:
        yield *waiting, True
