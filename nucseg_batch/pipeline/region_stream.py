"""The stream that turns regions of large planes into results in the journal: read -> find -> measure and keep.

Regions are read by one thread, found on the device by the calling one, measured and kept by another, of which each is
at most one region ahead of the next: memory is bounded by a few regions, whatever the plane's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nucseg_batch.arrays.sampling import IntensitySurvey, survey_intensities
from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.columns import Column
from nucseg_batch.files.opened import ImageReader, pixels_digest, windows_sha256
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, PlaneFingerprint, RegionOutcome
from nucseg_batch.pipeline.channels import (
    NetworkInput,
    corrected_channels,
    network_channel_count,
    read_channels,
    resolve_channel,
)
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.pipeline.regions import (
    Labeller,
    RegionResult,
    RegionTile,
    TileResult,
    find,
    finished,
    packed,
    region_tiles,
)
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask, killer
from nucseg_batch.plan import Failure, Plane, Scales, Unit
from nucseg_batch.settings import Intensities, SegmentSettings

LOOKS = 3
"""Windows of a large plane that are segmented to see how wide its nuclei are, where the model has no size network."""
SIZED_WINDOWS = 9
"""Windows that a size network is shown: it takes a small part of the time."""
LOOK_SIDE = 1024
"""Their sides in pixels at the scale at which the look begins."""


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
    """What is shown of it, see `pipeline.channels.resolve_channel`."""


def plane_context(
    plane: Plane,
    images: ImageReader,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    tell: Callable[[str], None] = lambda line: None,
) -> PlaneContext:
    """Looks at a plane as a whole: its range of values, and how wide its nuclei are unless that was given."""
    info = plane.image
    with images.opened(info) as source:
        chunk = source.header.chunk
    tell(f"{plane.name}: {info.height} x {info.width} pixels, measuring the plane as a whole")
    channel = resolve_channel(images, plane, settings)

    def read(rows: slice, columns: slice) -> Any:
        return read_channels(images, plane, channel, rows, columns).pixels

    survey = survey_intensities(read, (info.height, info.width), chunk, predictor.intensities)
    channels = network_channel_count(info, channel)
    scale = scales.of(channels)
    if settings.diameter is None and (widths := _widths(predictor, survey, read, scale)):
        scale = predictor.scale_of(float(np.median(widths)), grey=channels == 1)
        tell(f"{plane.name}: nuclei {min(widths):.0f} to {max(widths):.0f} pixels wide, scale {scale:.3g}")
    return PlaneContext(survey, scale, channel)


def _widths(
    predictor: Segmenter, survey: IntensitySurvey, read: Callable[[slice, slice], Any], scale: float
) -> list[float]:
    """Widths of the nuclei in windows of a plane, in pixels, of those windows that have any."""
    side = round(LOOK_SIDE / scale)
    if predictor.sizes_alone:
        windows = survey.informative(side, SIZED_WINDOWS)
        sized = [predictor.width(read(*window), survey.limits) for window in windows]
    else:
        sized = [predictor.look(read(*window), scale).width for window in survey.informative(side, LOOKS)]
    return [width for width in sized if width is not None]


TilePixels = tuple[RegionTile, NetworkInput, bytes]
"""A tile with what is shown of it, and the hash of its pixels."""
Advance = Callable[[Unit, RegionOutcome | Failure], None]
"""Called once for every region that was finished, well or not; by one thread."""


@dataclass
class RegionInFlight:
    """A region on its way through the stream."""

    unit: Unit
    context: PlaneContext | None = None
    """What it shares with the other regions of its plane; None where that cannot be found out."""
    error: Exception | None = None
    """What went wrong first."""
    found: list[TileResult] = field(default_factory=list)
    """Tiles that the device is done with."""
    digests: list[bytes] = field(default_factory=list)
    """Hashes of the pixels of these tiles."""

    @property
    def plane(self) -> Plane:
        """The plane that it is a region of."""
        return self.unit.planes[0]


@dataclass(kw_only=True)
class RegionStream:
    """Segments regions and keeps what was found in the journal; one that cannot be done becomes a failure there.

    What depends on the whole plane, its range of values and its scale, is found out again by every call, from the same
    pixels in the same way.
    """

    images: ImageReader
    journal: Journal
    attempts: Attempts
    predictor: Segmenter
    settings: SegmentSettings
    scales: Scales
    advance: Advance
    tell: Callable[[str], None]
    gauge: StageTimer
    stopped: Callable[[], bool] = lambda: False
    _begun: list[Unit] = field(default_factory=list, init=False)
    _latest: tuple[Plane, PlaneContext | Exception] | None = field(default=None, init=False)

    def process(self, tasks: Sequence[UnitTask]) -> None:
        """Does all regions, and begins no further one when `stopped` returns True.

        Regions on which several processes died are done last and alone.
        """
        with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "finish") as finisher:
            try:
                self._run((task for task in tasks if not task.history.careful and not self.stopped()), reader, finisher)
                for task in tasks:
                    if not task.history.careful or self.stopped():
                        continue
                    if task.history.guilty:
                        self._commit(task.unit, killer(task.unit.planes[0]))
                    else:
                        self._run([task], reader, finisher)
            finally:
                for unit in self._begun:
                    self.attempts.end(unit)

    def _run(self, tasks: Iterable[UnitTask], reader: ThreadPoolExecutor, finisher: ThreadPoolExecutor) -> None:
        kept: Future[None] | None = None
        for region, pixels, is_last in self._read_ahead(tasks, reader):
            if pixels is not None and region.error is None:
                self._find(region, pixels)
            if is_last:
                if kept is not None:
                    kept.result()
                kept = finisher.submit(self._keep, region)
        if kept is not None:
            kept.result()

    def _read_ahead(
        self, tasks: Iterable[UnitTask], reader: ThreadPoolExecutor
    ) -> Iterator[tuple[RegionInFlight, Future[TilePixels] | None, bool]]:
        """Regions, once for each tile, with its pixels, while the next are being read; and whether it is the last tile.

        A region that has no tiles because of its error comes once.
        """
        waiting: tuple[RegionInFlight, Future[TilePixels] | None] | None = None
        for region, tile in self._tiles(tasks):
            pixels = reader.submit(self._read, region, tile) if tile is not None else None
            if waiting is not None:
                yield *waiting, waiting[0] is not region
            waiting = region, pixels
        if waiting is not None:
            yield *waiting, True

    def _tiles(self, tasks: Iterable[UnitTask]) -> Iterator[tuple[RegionInFlight, RegionTile | None]]:
        """Begins one region after the other, and gives its tiles."""
        for task in tasks:
            self.attempts.begin(task.unit)
            self._begun.append(task.unit)
            if task.history.careful:
                self.attempts.begin_plane(task.unit, 0)
            context = self._context(task.unit.planes[0])
            if isinstance(context, Exception):
                yield RegionInFlight(task.unit, error=context), None
                continue
            region = RegionInFlight(task.unit, context)
            for tile in region_tiles(task.unit, self.predictor, context.scale):
                yield region, tile

    def _read(self, region: RegionInFlight, tile: RegionTile) -> TilePixels:
        assert region.context is not None
        rows, columns = tile.part("source")
        with self.gauge.busy("read"):
            pixels = STORAGE_RETRY.run(lambda: self.images.read(region.plane, rows, columns))
            info, channel = region.plane.image, region.context.channel
            shown = corrected_channels(self.images, pixels, info, channel, rows, columns)
            return tile, shown, pixels_digest(pixels)

    def _find(self, region: RegionInFlight, pixels: Future[TilePixels]) -> None:
        """Labels a tile on the device."""
        assert region.context is not None
        limits, skip_empty = region.context.survey.limits, self.settings.skip_empty
        try:
            tile, shown, digest = pixels.result()
            region.digests.append(digest)
            with self.gauge.busy("segment"):
                region.found.append(find(tile, shown, self.predictor, limits, skip_empty=skip_empty))
        except Exception as error:  # decoders and devices raise their own classes
            region.error = error

    def _keep(self, region: RegionInFlight) -> None:
        """Measures a region and commits it."""
        unit, image = region.unit, region.plane.image
        with self.gauge.busy("measure"):
            result = _measured(region, self.settings.extra_columns)
            if isinstance(result, Exception):
                self._commit(unit, failure_of(region.plane, "segment" if region.found else "read", result))
                return
            assert region.context is not None
            self.journal.retract(unit)
            kept = self.journal.keep_region(unit, packed(result))
            outcome = RegionOutcome(image.key, int(result.part.owned.sum()), region.context.scale)
            windows = tuple(_window(one.tile) for one in region.found)
            self._commit(unit, outcome, kept, windows_sha256(region.digests), windows)

    def _commit(
        self,
        unit: Unit,
        outcome: RegionOutcome | Failure,
        kept: str = "",
        digest: str = "",
        windows: tuple[tuple[int, int, int, int], ...] = (),
    ) -> None:
        """Writes a region's marker. kept: hash of its result; digest, windows: see `PlaneFingerprint`."""
        seen = PlaneFingerprint(*self.images.state(unit.planes[0].image), digest, windows)
        self.journal.commit(unit, Marker((outcome,), 0, kept, (seen,)), "")
        self.attempts.end(unit)
        self.advance(unit, outcome)

    def _context(self, plane: Plane) -> PlaneContext | Exception:
        """What the regions of a plane share; an error is kept for all of them."""
        if self._latest is None or self._latest[0] != plane:
            try:
                context = plane_context(plane, self.images, self.predictor, self.settings, self.scales, self.tell)
                self._latest = plane, context
            except Exception as error:  # decoders and devices raise their own classes
                self._latest = plane, error
        return self._latest[1]


def _measured(region: RegionInFlight, extra: Sequence[Column]) -> RegionResult | Exception:
    """The result of a region, or what went wrong with it."""
    if region.error is not None:
        return region.error
    try:
        return finished(region.unit, region.found, extra)
    except Exception as error:  # one image's trouble is never the run's
        return error


def _window(tile: RegionTile) -> tuple[int, int, int, int]:
    """First and last row, first and last column of what was read for a tile."""
    rows, columns = tile.part("source")
    return rows.start, rows.stop, columns.start, columns.stop
