"""The stream that turns units into committed masks: read -> predict -> measure -> write, at the same time.

Reader threads decode images ahead of need, the calling thread feeds the device, one thread measures and writes. Batches
are filled across units, so that many small stacks cost no half-empty batches. Every queue is bounded, by pixels where
images are read and by batches where they are finished, so memory does not grow with the number of images.

What an image gets does not depend on the stream: batches are padded to a fixed shape and images in them do not meet.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.measure import measure
from nucseg_batch.errors import NucsegError
from nucseg_batch.files.masks.pixels import as_stored, empty_pixels, plane_of
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.opened import Images
from nucseg_batch.files.run.journal import Journal, Marker, PlaneResult
from nucseg_batch.files.run.tables import NucleiTable, summary
from nucseg_batch.pipeline.channels import Shown, show
from nucseg_batch.pipeline.failures import failure_of
from nucseg_batch.plan import Adapt, Failure, Plane, Scales, Unit, bucket_shape
from nucseg_batch.settings import SegmentSettings

READ_AHEAD_PIXELS = 6_000_000
"""Images are read ahead until this many pixels wait; one image always may."""
FINISH_AHEAD = 2
"""Batches that may wait to be measured and written."""


class Result(Protocol):
    """What the stream needs to know of an image's result."""

    @property
    def labels(self) -> NDArray[np.int32]:
        """(height, width): 0 is background, 1..n are nuclei."""
        ...

    @property
    def scale(self) -> float:
        """By how much the image was enlarged for the network."""
        ...


class Segmenter(Protocol):
    """What the stream needs of a predictor."""

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

    def shrink(self, shape: tuple[int, int], scale: float = 1.0) -> bool:
        """Halves the batches of this padded shape; False where they are of one image already."""
        ...


Advance = Callable[[Plane, PlaneResult | Failure], None]
"""Called once for every plane that was finished, well or not; from one thread at a time."""


@dataclass
class _Work:
    """A unit on its way through the stream."""

    unit: Unit
    masks: NDArray[np.uint32] | None = None
    pixels: NDArray[Any] | None = None
    results: dict[int, PlaneResult | Failure] = field(default_factory=dict)
    rows: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Item:
    """One plane on its way through the stream: after reading it has pixels, or the failure that stopped it."""

    work: _Work
    index: int
    plane: Plane
    shown: Shown | None = None
    failure: Failure | None = None
    scale: float = 1.0
    pixels: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.plane.image.height, self.plane.image.width

    @property
    def batch_key(self) -> tuple[Any, ...]:
        """Planes with one key may share a batch."""
        pixels = _pixels(self)
        shape = bucket_shape(*self.shape) if self.scale == 1 else self.shape
        return shape, self.scale, pixels.shape[2:], pixels.dtype.str

    def failed(self, stage: str, error: Exception) -> Failure:
        """Why this plane has no mask."""
        return failure_of(self.plane, stage, error)


_Finished = tuple[_Item, Result | Failure]


def process_units(
    units: Iterable[Unit],
    *,
    images: Images,
    writer: MaskWriter,
    journal: Journal,
    predictor: Segmenter,
    settings: SegmentSettings,
    scales: Scales,
    table: NucleiTable,
    workers: int,
    advance: Advance,
    tell: Callable[[str], None],
) -> None:
    """Segments units of whole planes and commits each as soon as its last plane is done.

    A plane that cannot be read, segmented or measured becomes a failure in its unit's marker. Where a batch does not
    fit into memory, smaller ones are used from then on, and `tell` says so. An error while results are written, such as
    a full disk, stops the stream and is raised here.
    """
    finisher = _Finisher(writer, journal, settings, table, advance)
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="read") as readers:
            items = _read_ahead(units, readers, partial(_read, images=images, settings=settings, scales=scales))
            for batch in _batches(items, predictor.batch_size):
                finisher.put(_segment(batch, predictor, scales.adapt, tell))
        finisher.close()
    finally:
        finisher.stop()


def _read_ahead(units: Iterable[Unit], readers: ThreadPoolExecutor, read: Callable[[_Item], _Item]) -> Iterator[_Item]:
    """Items in the order of the units, read by the pool up to READ_AHEAD_PIXELS before they are asked for."""
    waiting: deque[tuple[int, Future[_Item]]] = deque()
    pixels = 0
    try:
        for work in map(_Work, units):
            for index, plane in enumerate(work.unit.planes):
                size = plane.image.height * plane.image.width * max(1, len(plane.image.names))
                while waiting and pixels + size > READ_AHEAD_PIXELS:
                    first, future = waiting.popleft()
                    pixels -= first
                    yield future.result()
                waiting.append((size, readers.submit(read, _Item(work, index, plane))))
                pixels += size
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        for _, future in waiting:
            future.cancel()


def _read(item: _Item, *, images: Images, settings: SegmentSettings, scales: Scales) -> _Item:
    try:
        pixels = images.read(item.plane)
        shown = show(pixels, item.plane.image, settings.channel)
    except Exception as error:  # decoders raise their own classes; one image's trouble is never the batch's
        return replace(item, failure=item.failed("read", error))
    scale = scales.of(1 if shown.pixels.ndim == 2 else 3)
    return replace(item, shown=shown, scale=scale, pixels=pixels if settings.with_images else None)


def _batches(items: Iterable[_Item], batch_size: Callable[[tuple[int, int], float], int]) -> Iterator[list[_Item]]:
    """Full batches of images that may share one; what is left of a padded shape goes when the shape changes."""
    filling: dict[tuple[Any, ...], list[_Item]] = {}
    shape: tuple[int, int] | None = None
    for item in items:
        bucket = bucket_shape(*item.shape)
        if bucket != shape:
            yield from filling.values()
            filling, shape = {}, bucket
        if item.failure is not None:
            yield [item]
            continue
        batch = filling.setdefault(item.batch_key, [])
        batch.append(item)
        if len(batch) == batch_size(item.shape, item.scale):
            yield filling.pop(item.batch_key)
    yield from filling.values()


def _segment(batch: list[_Item], predictor: Segmenter, adapt: Adapt, tell: Callable[[str], None]) -> list[_Finished]:
    """Labels a batch; where the device refuses it, in smaller batches, so that only a guilty image fails."""
    if batch[0].failure is not None:
        return [(batch[0], batch[0].failure)]
    shape, scale = batch[0].shape, batch[0].scale
    size = predictor.batch_size(shape, scale)
    if len(batch) <= size:
        try:
            results = predictor.predict_batch([_pixels(item) for item in batch], scale, adapt=adapt)
            return list(zip(batch, results, strict=True))
        except NucsegError:
            raise
        except MemoryError as error:
            if not predictor.shrink(shape, scale):
                return [(item, item.failed("segment", error)) for item in batch]
            size = predictor.batch_size(shape, scale)
            tell(f"out of memory: images of {shape[0]}x{shape[1]} go in batches of {size} from here on")
        except Exception as error:  # the backend raises its own classes
            if len(batch) == 1:
                return [(batch[0], batch[0].failed("segment", error))]
            size = 1
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    return [finished for part in parts for finished in _segment(part, predictor, adapt, tell)]


def _pixels(item: _Item) -> NDArray[Any]:
    assert item.shown is not None
    return item.shown.pixels


class _Finisher:
    """A thread that measures images and commits units; an error there is raised in the thread that feeds it."""

    def __init__(
        self, writer: MaskWriter, journal: Journal, settings: SegmentSettings, table: NucleiTable, advance: Advance
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._settings = settings
        self._table = table
        self._advance = advance
        self._queue: queue.Queue[list[_Finished] | None] = queue.Queue(FINISH_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="finish", daemon=True)
        self._thread.start()

    def put(self, batch: list[_Finished] | None) -> None:
        """Hands over a batch, waiting for room; raises what went wrong with an earlier one."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(batch, timeout=0.2)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """Waits until everything that was handed over is committed."""
        self.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the thread, after the batch in hand, whatever is still waiting."""
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
            try:
                self._queue.put_nowait(None)
            except queue.Full:
                continue
            self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._queue.get()) is not None:
                for item, outcome in batch:
                    self._finish(item, outcome)
        except BaseException as error:
            self._error = error

    def _finish(self, item: _Item, outcome: Result | Failure) -> None:
        work = item.work
        result = outcome if isinstance(outcome, Failure) else self._measured(item, outcome)
        work.results[item.index] = result
        if isinstance(result, PlaneResult):
            assert not isinstance(outcome, Failure)
            if work.masks is None:
                work.masks = np.zeros(work.unit.shape, np.uint32)
            work.masks.reshape(-1, *outcome.labels.shape)[item.index] = outcome.labels
            if item.pixels is not None:
                work.pixels = empty_pixels(work.unit) if work.pixels is None else work.pixels
                plane_of(work.pixels, work.unit, item.index)[...] = as_stored(item.pixels, work.unit.stack)
        if len(work.results) == work.unit.plane_count:
            self._commit(work)
        self._advance(item.plane, result)

    def _commit(self, work: _Work) -> None:
        order = sorted(work.results)
        if work.masks is None:
            work.masks = np.zeros(work.unit.shape, np.uint32)
        if work.pixels is None and self._settings.with_images:
            work.pixels = empty_pixels(work.unit)
        shard_bytes = self._writer.write(work.unit, work.masks, work.pixels)
        work.masks = work.pixels = None
        marker = Marker(tuple(work.results[index] for index in order), shard_bytes)
        self._journal.commit(work.unit, marker, "".join(work.rows.pop(index, "") for index in order))

    def _measured(self, item: _Item, found: Result) -> PlaneResult | Failure:
        assert item.shown is not None
        pixel_size = self._settings.pixel_size or item.plane.image.pixel_size
        try:
            measures = measure(found.labels, item.shown.intensity, item.shown.channels)
            rows = self._table.text(item.plane, measures, pixel_size)
            values = summary(found.labels, item.shown.intensity, measures, found.scale, pixel_size)
        except Exception as error:  # as above: this plane fails, not its unit
            return item.failed("measure", error)
        item.work.rows[item.index] = rows
        return PlaneResult(item.plane.image.key, int(measures["label"].size), values, len(rows.encode()))
