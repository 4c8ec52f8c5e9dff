"""The stream that turns units into committed masks: read -> predict -> measure -> write, at the same time.

Reader threads decode images ahead of need, two threads feed the device, so that it computes one batch while labels of
another are made and the next is filled, others measure, and one thread writes. Batches are filled across units, so that
small label arrays cost no half-empty batches. Every queue is bounded, by pixels where images are read and by batches
where they are finished, so memory does not grow with the number of images. A `StageTimer` measures how busy stages are.

What an image gets does not depend on the stream: batches are padded to a fixed shape and images in them do not meet.
A unit on which several processes died is done apart from the others, plane by plane, so that the guilty one is found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, TypeVar

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
from nucseg_batch.pipeline.in_flight import Handed, MeasuredPlane, PlaneInFlight, Result, UnitInFlight
from nucseg_batch.pipeline.measuring import measured
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.pipeline.tasks import UnitTask, kept_rows, killer
from nucseg_batch.plan import Adapt, Budget, Failure, ImageInfo, Scales, Unit, bucket_shape
from nucseg_batch.settings import SegmentSettings

Before = TypeVar("Before")
After = TypeVar("After")
IN_FLIGHT = 2
"""Batches that are on their way through the device at once."""
LATER_IMAGES = 256
"""Limit on unfilled batches, beside the bytes of a budget: images read after the first one of a batch. Then the oldest
batch is segmented as it is, so that an image of a rare scale does not keep its unit in memory."""
SEEN = 32
"""Of so many images, how many wait is counted once."""


class Segmenter(Protocol):
    """What the stream needs of a predictor."""

    @property
    def budget(self) -> Budget:
        """How much memory may be taken."""
        ...

    def own_scale(self, pixels: NDArray[Any]) -> float:
        """The scale that fits an image, by the model's size network."""
        ...

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        """Images of this shape in one call at this scale."""
        ...

    def predict_batch(
        self, images: Sequence[NDArray[Any]], scale: float = 1.0, *, adapt: Adapt = "no"
    ) -> Sequence[Result]:
        """Results of images that share dtype, channels and shape (at scale 1 only the padded one).

        Raises MemoryError where they do not fit.
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
            item = _read(item, images=images, settings=settings, scales=scales)
        if not sized:
            return item
        with gauge.busy("size"):
            return _sized(item, predictor)

    def segment(batch: list[PlaneInFlight]) -> list[Handed]:
        with gauge.busy("segment"):
            return _segment(batch, predictor, adapt, tell)

    def finished(batch: list[Handed]) -> list[MeasuredPlane]:
        with gauge.busy("measure"):
            return [measured(one, settings, table) for one in batch]

    try:
        with (
            ThreadPoolExecutor(workers, thread_name_prefix="read") as readers,
            ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="segment") as segmenters,
            ThreadPoolExecutor(measuring, thread_name_prefix="measure") as measurers,
        ):
            ordinary = (begin(task) for task in tasks if not task.history.careful and not stopped())
            room, held = predictor.budget.waiting_bytes, images.held_bytes
            ahead = _read_ahead(ordinary, readers, read, gauge, room, held)
            batches = _batches(ahead, predictor.batch_size, room, held)
            labelled = _in_flight(batches, segmenters, segment, IN_FLIGHT)
            for done in _in_flight(labelled, measurers, finished, measuring):
                finisher.put(done)
        for task in tasks:
            if not task.history.careful or stopped():
                continue
            tell(f"{task.unit.name}: {task.history.deaths} processes died on it; its planes are done one by one")
            finisher.wait()
            _plane_by_plane(begin(task), lambda item: finished(segment([read(item)])), finisher, attempts)
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
        item = _read(_item(work, index), images=images, settings=settings, scales=scales)
        return _sized(item, predictor) if sized else item

    items = map(read, range(unit.plane_count))
    room = predictor.budget.waiting_bytes
    for batch in _batches(items, predictor.batch_size, room, images.held_bytes):
        for item, result in _segment(batch, predictor, "outliers" if sized else scales.adapt, tell):
            if isinstance(result, Failure):
                said = result.error == ImageError.__name__ or result.error in result.message
                kind = "" if said else f" ({result.error})"
                raise ImageError(f"{result.image}: {result.message}{kind}")
            yield item.index, result.labels


def _plane_by_plane(
    work: UnitInFlight, do: Callable[[PlaneInFlight], list[MeasuredPlane]], finisher: Finisher, attempts: Attempts
) -> None:
    """Does a unit on which processes died: each plane is noted before it is begun, so that the next death names it."""
    history = work.task.history
    for index in _turned(work.task.indices, history.deaths):
        if index not in history.guilty:
            attempts.begin_plane(work.unit, index)
        finisher.put(do(_item(work, index)))
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


def _item(work: UnitInFlight, index: int) -> PlaneInFlight:
    """A plane before it is read; one on which processes died becomes a failure at once."""
    plane = work.unit.label_array.plane(work.unit.place(index))
    return PlaneInFlight(work, index, plane, failure=killer(plane) if index in work.task.history.guilty else None)


def _in_flight(
    batches: Iterable[list[Before]], pool: ThreadPoolExecutor, stage: Callable[[list[Before]], list[After]], count: int
) -> Iterator[list[After]]:
    """What becomes of batches in a stage of so many threads, in their order; each thread has one, and one waits."""
    waiting: deque[Future[list[After]]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(stage, batch))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read_ahead(
    works: Iterable[UnitInFlight],
    readers: ThreadPoolExecutor,
    read: Callable[[PlaneInFlight], PlaneInFlight],
    gauge: StageTimer,
    room: int,
    held_bytes: Callable[[ImageInfo], int],
) -> Iterator[PlaneInFlight]:
    """Items in the order of the units, read by the pool before they are asked for, up to `room` bytes of images.

    One image may always be read ahead. held_bytes: of a plane of an image.
    """
    waiting: deque[tuple[int, Future[PlaneInFlight]]] = deque()
    held, taken = 0, 0

    def first() -> PlaneInFlight:
        nonlocal held, taken
        if taken % SEEN == 0:
            gauge.depth("images that were read and wait (MB)", sum(size for size, one in waiting if one.done()) / 1e6)
        taken += 1
        size, future = waiting.popleft()
        held -= size
        return future.result()

    try:
        for work in works:
            for index in work.task.indices:
                item = _item(work, index)
                size = held_bytes(item.plane.image)
                while waiting and held + size > room:
                    yield first()
                waiting.append((size, readers.submit(read, item)))
                held += size
        while waiting:
            yield first()
    finally:
        for _, future in waiting:
            future.cancel()


def _read(item: PlaneInFlight, *, images: ImageReader, settings: SegmentSettings, scales: Scales) -> PlaneInFlight:
    if item.failure is not None:
        return item
    info = item.plane.image
    state = images.state(info)
    try:
        pixels = STORAGE_RETRY.run(lambda: images.read(item.plane))
        channel = resolve_channel_of_pixels(pixels, info, settings.channel)
        shown = corrected_channels(images, pixels, info, channel)
    except Exception as error:  # decoders raise their own classes; one image's trouble is never the batch's
        return replace(item, failure=item.failed("read", error), seen=PlaneFingerprint(*state, ""))
    scale = scales.of(network_channel_count(info, channel))
    seen = PlaneFingerprint(*state, pixels_digest(pixels).hex())
    return replace(item, shown=shown, scale=scale, seen=seen, pixels=pixels if settings.with_images else None)


def _sized(item: PlaneInFlight, predictor: Segmenter) -> PlaneInFlight:
    """An image with the scale that fits it, so that it shares batches with others of that scale."""
    if item.failure is not None:
        return item
    try:
        return replace(item, scale=predictor.own_scale(item.input))
    except NucsegError:
        raise
    except Exception as error:  # the backend raises its own classes
        return replace(item, failure=item.failed("segment", error))


def _batches(
    items: Iterable[PlaneInFlight],
    batch_size: Callable[[tuple[int, int], float], int],
    room: int,
    held_bytes: Callable[[ImageInfo], int],
) -> Iterator[list[PlaneInFlight]]:
    """Full batches of images that may share one.

    What is left of a padded shape goes when the shape changes, and the oldest batch when it has waited long enough or
    images of more than `room` bytes wait.
    """
    filling: dict[tuple[Any, ...], list[PlaneInFlight]] = {}  # the oldest batch first
    begun: dict[tuple[Any, ...], int] = {}
    shape: tuple[int, int] | None = None
    for number, item in enumerate(items):
        bucket = bucket_shape(*item.shape)
        if bucket != shape:
            yield from filling.values()
            filling, shape = {}, bucket
        if item.failure is not None:
            yield [item]
            continue
        if item.batch_key not in filling:
            filling[item.batch_key], begun[item.batch_key] = [], number
        batch = filling[item.batch_key]
        batch.append(item)
        if len(batch) == batch_size(item.shape, item.scale):
            yield filling.pop(item.batch_key)
        waiting = sum(map(len, filling.values())) * held_bytes(item.plane.image)
        oldest = next(iter(filling), None)
        if oldest is not None and (number - begun[oldest] >= LATER_IMAGES or waiting > room):
            yield filling.pop(oldest)
    yield from filling.values()


def _segment(
    batch: list[PlaneInFlight], predictor: Segmenter, adapt: Adapt, tell: Callable[[str], None]
) -> list[Handed]:
    """Labels a batch; where the device refuses it, in smaller batches, so that only a guilty image fails."""
    if batch[0].failure is not None:
        return [(batch[0], batch[0].failure)]
    shape, scale = batch[0].shape, batch[0].scale
    size = predictor.batch_size(shape, scale)
    if len(batch) <= size:
        try:
            results = predictor.predict_batch([item.input for item in batch], scale, adapt=adapt)
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
            size = 1
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [finished for part in parts for finished in _segment(part, predictor, adapt, tell)]
