"""The last stage of the stream: a thread that puts units together and commits them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.files.masks.pixels import as_stored, empty_pixels, plane_of
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.run.attempts import Attempts
from nucseg_batch.files.run.journal import Journal
from nucseg_batch.files.run.records import Marker, PlaneResult
from nucseg_batch.pipeline.in_flight import MeasuredPlane, PlaneInFlight, UnitInFlight
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.plan import Failure, Plane, Unit
from nucseg_batch.settings import SegmentSettings

FINISH_AHEAD = 2
"""Batches that may wait to be written."""

Advance = Callable[[Plane, PlaneResult | Failure], None]
"""Called once for every plane that was finished, well or not; from one thread at a time."""


class Finisher:
    """A thread that commits units; an error there is raised in the thread that feeds it."""

    def __init__(
        self,
        writer: MaskWriter,
        journal: Journal,
        attempts: Attempts,
        settings: SegmentSettings,
        advance: Advance,
        gauge: StageTimer,
    ) -> None:
        self._gauge = gauge
        self._writer = writer
        self._journal = journal
        self._attempts = attempts
        self._settings = settings
        self._advance = advance
        self._queue: queue.Queue[list[MeasuredPlane] | None] = queue.Queue(FINISH_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="finish", daemon=True)
        self._thread.start()

    def put(self, batch: list[MeasuredPlane] | None) -> None:
        """Hands over a batch, waiting for room; raises what went wrong with an earlier one."""
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(batch, timeout=0.2)
                return
            except queue.Full:
                continue

    def wait(self) -> None:
        """Waits until everything that was handed over is written where its unit is done."""
        while self._queue.unfinished_tasks and self._error is None:
            time.sleep(0.005)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Waits until everything that was handed over is committed."""
        self.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the thread, after the batch in flight, whatever is still waiting."""
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
                self._gauge.depth("write (batches)", self._queue.qsize())
                with self._gauge.busy("write"):
                    for one in batch:
                        self._finish(one)
                self._queue.task_done()
        except BaseException as error:
            self._error = error

    def _finish(self, one: MeasuredPlane) -> None:
        item, result, work = one.item, one.result, one.item.work
        work.results[item.index] = result
        work.seen[item.index] = item.seen
        if one.labels:
            work.rows[item.index] = one.rows
            for name, mask in self._masks_of(work, item).items():
                mask[...] = one.labels[name]
            if item.pixels is not None:
                work.pixels = empty_pixels(work.unit) if work.pixels is None else work.pixels
                plane_of(work.pixels, work.unit, item.index)[...] = as_stored(item.pixels, work.unit.label_array)
        elif work.task.kept is not None and isinstance(work.task.kept.planes[item.index], PlaneResult):
            for mask in self._masks_of(work, item).values():
                mask[...] = 0  # it was of pixels that are gone
        if len(work.results) == work.unit.plane_count:
            self._commit(work)
        self._advance(item.plane, result)

    def _masks_of(self, work: UnitInFlight, item: PlaneInFlight) -> dict[str, NDArray[np.uint32]]:
        """Where the label images of a plane go, among those of its unit."""
        if not work.masks:
            names = work.unit.label_array.labels
            kept = work.task.kept is not None
            work.masks = {name: self._writer.read(work.unit, name) for name in names} if kept else _empty(work.unit)
        return {name: masks.reshape(-1, *item.shape)[item.index] for name, masks in work.masks.items()}

    def _commit(self, work: UnitInFlight) -> None:
        unit, kept = work.unit, work.task.kept
        order = range(unit.plane_count)
        planes, seen = tuple(work.results[index] for index in order), tuple(work.seen[index] for index in order)
        if kept is not None and not work.masks:  # nothing is better than it was
            if planes == kept.planes and seen == kept.seen:
                self._attempts.end(unit)
                return
            marker = replace(kept, planes=planes, seen=seen)
        else:
            self._journal.retract(unit)
            written = self._writer.write(unit, *self._shards(work))
            marker = Marker(planes, written.bytes, written.sha256, seen)
        work.masks, work.pixels = {}, None
        self._journal.commit(unit, marker, "".join(work.rows.pop(index, "") for index in order))
        self._attempts.end(unit)

    def _shards(self, work: UnitInFlight) -> tuple[dict[str, NDArray[np.uint32]], NDArray[Any] | None]:
        """The label images of a unit and, where these are stored, its pixels."""
        masks = work.masks or _empty(work.unit)
        if work.pixels is None and self._settings.with_images:
            return masks, empty_pixels(work.unit)
        return masks, work.pixels


def _empty(unit: Unit) -> dict[str, NDArray[np.uint32]]:
    """Label images of a unit without nuclei."""
    return {name: np.zeros(unit.shape, np.uint32) for name in unit.label_array.labels}
