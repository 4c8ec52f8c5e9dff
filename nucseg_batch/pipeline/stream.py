"""The stream that turns units into committed masks: read -> predict -> measure -> write, at the same time.

Reader threads decode images ahead of need, one looks at how wide nuclei are, two threads feed the device, so that it
computes one batch while labels of another are made and the next is filled, others measure, and one thread writes.
Batches are filled across units, so that small label arrays cost no half-empty batches. Every queue is bounded, see
`flow`, so memory does not grow with the number of images. A `StageTimer` measures how busy stages are.

What an image gets does not depend on the stream: batches are padded to a fixed shape and images in them do not meet.
A unit on which several processes died is done apart from the others, plane by plane, so that the guilty one is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.errors import ImageError, NucsegError
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import ImageReader, pixels_digest
from nucseg_batch.files.retry import STORAGE_RETRY
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import PlaneFingerprint
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.channels import corrected_channels, network_channel_count, resolve_channel_of_pixels
from nucseg_batch.pipeline.finisher import Advance, Finisher
from nucseg_batch.pipeline.flow import full_batches, groups_alike, read_ahead, staged
from nucseg_batch.pipeline.in_flight import Handed, MeasuredPlane, PlaneInFlight, Result, UnitInFlight
from nucseg_batch.pipeline.measuring import measured
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask, kept_rows
from nucseg_batch.plan import Adapt, Budget, Failure, Scales, Unit
from nucseg_batch.settings import SegmentSettings

IN_FLIGHT = 2
"""Batches that are on their way through the device at once."""


class Segmenter(Protocol):
    """What the stream needs of a predictor."""

    @property
    def budget(self) -> Budget:
        """How much memory may be taken."""
        ...

    def range_of(self, pixels: NDArray[Any]) -> tuple[float, float]:
        """The values of an image that become 0 and 1."""
        ...

    def looks_at_once(self, shape: tuple[int, int]) -> int:
        """How many images of this shape `own_scales` is best given."""
        ...

    def own_scales(
        self, images: Sequence[NDArray[Any]], limits: Sequence[tuple[float, float]], *, fill: bool = True
    ) -> Sequence[float]:
        """The scales that fit images of one shape, dtype and number of channels, by the model's size network.

        fill: as for `predict_batch`.
        """
        ...

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        """Images of this shape in one call at this scale."""
        ...

    def predict_batch(
        self,
        images: Sequence[NDArray[Any]],
        scale: float = 1.0,
        *,
        adapt: Adapt = "no",
        limits: Sequence[tuple[float, float]] | None = None,
        fill: bool = True,
    ) -> Sequence[Result]:
        """Results of images that share dtype, channels and shape (at scale 1 only the padded one).

        limits: the values that become 0 and 1 of each. fill: whether the device may compute them as a full batch,
        which takes more memory; not where one failed. Raises MemoryError where they do not fit.
        """
        ...

    def shrink(self, shape: tuple[int, int], scale: float, size: int) -> bool:
        """Halves the batches of this padded shape, of which one of `size` did not fit; False where that was 1."""
        ...


def process_units(
    tasks: Sequence[UnitTask],
    *,
    images: ImageReader,
    writer: MaskWriter,
    journal: Journal,
    attempts: Attempts,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    table: NucleiTable,
    workers: int,
    advance: Advance,
    tell: Callable[[str], None],
    gauge: StageTimer,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Segments units of whole planes and commits each as soon as its last plane is done.

    A plane that cannot be read, segmented or measured becomes a failure in its unit's marker. Where a batch does not
    fit into memory, smaller ones are used from then on, and `tell` says so. An error while results are written, such as
    a full disk, stops the stream and is raised here. When `stopped` says so no further unit is begun.
    """
    finisher = Finisher(writer, journal, attempts, settings, advance, gauge)
    measuring = max(1, workers // 2)
    begun: list[Unit] = []

    def begin(task: UnitTask) -> UnitInFlight:
        begun.append(task.unit)
        attempts.begin(task.unit)
        return _begin(task, writer, journal)

    sized = scales.adapt == "sized"
    adapt: Adapt = "outliers" if sized else scales.adapt

    def read(item: PlaneInFlight) -> PlaneInFlight:
        with gauge.busy("read"):
            return _read(item, images=images, predictor=predictor, settings=settings, scales=scales)

    def look(items: list[PlaneInFlight]) -> list[PlaneInFlight]:
        with gauge.busy("size"):
            return _sized(items, predictor)

    def segment(batch: list[PlaneInFlight]) -> list[Handed]:
        with gauge.busy("segment"):
            return _segment(batch, predictor, adapt, tell)

    def finished(batch: list[Handed]) -> list[MeasuredPlane]:
        with gauge.busy("measure"):
            return [measured(one, settings, table) for one in batch]

    def alone(item: PlaneInFlight) -> list[MeasuredPlane]:
        items = [read(item)]
        if sized:
            with gauge.busy("size"):
                items = _sized(items, predictor, fill=False)
        with gauge.busy("segment"):
            labelled = _segment(items, predictor, adapt, tell, fill=False)
        return finished(labelled)

    try:
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="read") as readers,
            ThreadPoolExecutor(1, thread_name_prefix="size") as lookers,
            ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="segment") as segmenters,
            ThreadPoolExecutor(measuring, thread_name_prefix="measure") as measurers,
        ):
            ordinary = (begin(task) for task in tasks if not task.history.careful and not stopped())
            room, held = predictor.budget.waiting_bytes, images.held_bytes
            items: Iterable[PlaneInFlight] = read_ahead(ordinary, readers, read, gauge, room, held)
            if sized:
                looks = staged(groups_alike(items, predictor.looks_at_once), lookers, look, 1)
                items = (item for group in looks for item in group)
            batches = full_batches(items, predictor.batch_size, room, held)
            labelled = staged(batches, segmenters, segment, IN_FLIGHT)
            for done in staged(labelled, measurers, finished, measuring):
                finisher.put(done)
        for task in tasks:
            if not task.history.careful or stopped():
                continue
            tell(f"{task.unit.name}: {task.history.deaths} processes died on it; its planes are done one by one")
            finisher.wait()
            _plane_by_plane(begin(task), alone, finisher, attempts)
        finisher.close()
    finally:
        finisher.stop()
        for unit in begun:
            attempts.end(unit)


def label_planes(
    unit: Unit,
    *,
    images: ImageReader,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    tell: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Labels of the planes of a unit, (height, width) each, with their number in the unit, in the order of batches.

    They are those that `process_units` writes; nothing is measured or written. Raises ImageError for a plane that
    cannot be read or segmented.
    """
    sized = scales.adapt == "sized"
    work = UnitInFlight(UnitTask(unit))

    def read(index: int) -> PlaneInFlight:
        return _read(work.item(index), images=images, predictor=predictor, settings=settings, scales=scales)

    items: Iterable[PlaneInFlight] = map(read, range(unit.plane_count))
    if sized:
        items = (item for group in groups_alike(items, predictor.looks_at_once) for item in _sized(group, predictor))
    room = predictor.budget.waiting_bytes
    for batch in full_batches(items, predictor.batch_size, room, images.held_bytes):
        for item, result in _segment(batch, predictor, "outliers" if sized else scales.adapt, tell):
            if isinstance(result, Failure):
                said = result.error == ImageError.__name__ or result.error in result.message
                kind = "" if said else f" ({result.error})"
                raise ImageError(f"{result.image}: {result.message}{kind}")
            yield item.index, result.labels.astype(np.int32, copy=False)


def _plane_by_plane(
    work: UnitInFlight, do: Callable[[PlaneInFlight], list[MeasuredPlane]], finisher: Finisher, attempts: Attempts
) -> None:
    """Does a unit on which processes died: each plane is noted before it is begun, so that the next death names it."""
    history = work.task.history
    for index in _turned(work.task.indices, history.deaths):
        if index not in history.guilty:
            attempts.begin_plane(work.unit, index)
        finisher.put(do(work.item(index)))
        finisher.wait()


def _turned(indices: list[int], deaths: int) -> list[int]:
    """Planes in an order that begins with another one after each death.

    Whoever kills processes from outside, as a scheduler does, often hits them early; so it hits another plane each time
    and none is blamed, while a plane that kills does so wherever it stands.
    """
    start = deaths % max(1, len(indices))
    return indices[start:] + indices[:start]


def _begin(task: UnitTask, writer: MaskWriter, journal: Journal) -> UnitInFlight:
    """The work of a task, with what is kept of earlier calls; all of it where that is damaged."""
    if task.kept is not None:
        rows = kept_rows(task, writer.path, journal)
        if rows is not None:
            kept = {i: plane for i, plane in enumerate(task.kept.whole_planes) if i not in task.again}
            seen = {i: task.kept.seen[i] for i in kept}
            return UnitInFlight(task, results=dict(kept), seen=seen, rows=rows)
    return UnitInFlight(replace(task, kept=None, again=frozenset()))


def _read(
    item: PlaneInFlight, *, images: ImageReader, predictor: Segmenter, settings: SegmentSettings, scales: Scales
) -> PlaneInFlight:
    if item.failure is not None:
        return item
    info = item.plane.image
    state = images.state(info)
    try:
        pixels = STORAGE_RETRY.run(lambda: images.read(item.plane))
        channel = resolve_channel_of_pixels(pixels, info, settings.channel)
        shown = corrected_channels(images, pixels, info, channel)
        limits = predictor.range_of(shown.pixels)
    except Exception as error:  # decoders raise their own classes; one image's trouble is never the batch's
        return replace(item, failure=item.failed("read", error), seen=PlaneFingerprint(*state, ""))
    scale = scales.of(network_channel_count(info, channel))
    seen = PlaneFingerprint(*state, pixels_digest(pixels).hex())
    kept = pixels if settings.with_images else None
    return replace(item, shown=shown, limits=limits, scale=scale, seen=seen, pixels=kept)


def _sized(items: list[PlaneInFlight], predictor: Segmenter, *, fill: bool = True) -> list[PlaneInFlight]:
    """Images of one shape and kind with the scales that fit them, so that those of one scale share batches.

    fill: see `Segmenter.predict_batch`.
    """
    shown = [item for item in items if item.failure is None]
    if not shown:
        return items
    try:
        scales = predictor.own_scales([item.input for item in shown], [item.limits for item in shown], fill=fill)
    except NucsegError:
        raise
    except Exception as error:  # the backend raises its own classes
        if len(items) > 1:  # only the guilty image fails
            return [one for item in items for one in _sized([item], predictor, fill=False)]
        return [replace(items[0], failure=items[0].failed("segment", error))]
    own = iter(scales)
    return [item if item.failure is not None else replace(item, scale=next(own)) for item in items]


def _segment(
    batch: list[PlaneInFlight],
    predictor: Segmenter,
    adapt: Adapt,
    tell: Callable[[str], None],
    *,
    fill: bool = True,
) -> list[Handed]:
    """Labels a batch; where the device refuses it, in smaller batches, so that only a guilty image fails.

    fill: see `Segmenter.predict_batch`.
    """
    if batch[0].failure is not None:
        return [(batch[0], batch[0].failure)]
    shape, scale = batch[0].shape, batch[0].scale
    size = predictor.batch_size(shape, scale)
    if len(batch) <= size:
        try:
            limits = [item.limits for item in batch]
            results = predictor.predict_batch(
                [item.input for item in batch], scale, adapt=adapt, limits=limits, fill=fill
            )
            return list(zip(batch, results, strict=True))
        except NucsegError:
            raise
        except MemoryError as error:
            if not predictor.shrink(shape, scale, size):
                return [(item, item.failed("segment", error)) for item in batch]
            size = predictor.batch_size(shape, scale)
            tell(f"out of memory: images of {shape[0]}x{shape[1]} go in batches of {size} from here on")
        except Exception as error:  # the backend raises its own classes
            if len(batch) == 1:
                return [(batch[0], batch[0].failed("segment", error))]
            size, fill = 1, False  # it may have been a lack of memory that the backend did not call so
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [finished for part in parts for finished in _segment(part, predictor, adapt, tell, fill=fill)]
