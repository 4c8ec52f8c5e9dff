"""How planes move between the stages of the stream: read ahead of need, in groups that share a call, in flight.

Every queue is bounded, by bytes of images where they are read or wait for a full batch, and by batches elsewhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from nucseg_batch.pipeline.in_flight import PlaneInFlight, UnitInFlight
from nucseg_batch.pipeline.stage_timer import StageTimer
from nucseg_batch.plan import ImageInfo, bucket_shape

Before = TypeVar("Before")
After = TypeVar("After")
LATER_IMAGES = 256
"""Limit on unfilled batches, beside the bytes of a budget: images read after the first one of a batch. Then the oldest
batch is segmented as it is, so that an image of a rare scale does not keep its unit in memory."""
SEEN = 32
"""The bytes of waiting images are recorded once every so many images."""


def staged(
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


def read_ahead(
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
    held, taken, ready = 0, 0, 0
    counting = threading.Lock()

    def counted(item: PlaneInFlight, size: int) -> PlaneInFlight:
        nonlocal ready
        found = read(item)
        with counting:
            ready += size
        return found

    def first() -> PlaneInFlight:
        nonlocal held, taken, ready
        if taken % SEEN == 0:
            gauge.depth("images that were read and wait (MB)", ready / 1e6)
        taken += 1
        size, future = waiting.popleft()
        held -= size
        found = future.result()
        with counting:
            ready -= size
        return found

    try:
        for work in works:
            for index in work.task.indices:
                item = work.item(index)
                size = held_bytes(item.plane.image)
                while waiting and held + size > room:
                    yield first()
                waiting.append((size, readers.submit(counted, item, size)))
                held += size
        while waiting:
            yield first()
    finally:
        for _, future in waiting:
            future.cancel()


def groups_alike(
    items: Iterable[PlaneInFlight], at_once: Callable[[tuple[int, int]], int]
) -> Iterator[list[PlaneInFlight]]:
    """Items in their order, in groups whose images have one shape and kind; failures are in any of them."""
    group: list[PlaneInFlight] = []
    kind: tuple[Any, ...] | None = None
    for item in items:
        if group and (
            len(group) >= at_once(group[0].shape) or (item.failure is None and kind not in {None, item.kind})
        ):
            yield group
            group, kind = [], None
        group.append(item)
        kind = kind if item.failure is not None else item.kind
    if group:
        yield group


def full_batches(
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
        key, bucket = None if item.failure is not None else item.batch_key, bucket_shape(*item.shape)
        if bucket != shape:
            yield from filling.values()
            filling, shape = {}, bucket
        if key is None:
            yield [item]
            continue
        if key not in filling:
            filling[key], begun[key] = [], number
        batch = filling[key]
        batch.append(item)
        if len(batch) == batch_size(item.shape, item.scale):
            yield filling.pop(key)
        waiting = sum(map(len, filling.values())) * held_bytes(item.plane.image)
        oldest = next(iter(filling), None)
        if oldest is not None and (number - begun[oldest] >= LATER_IMAGES or waiting > room):
            yield filling.pop(oldest)
    yield from filling.values()
