from __future__ import annotations

import pytest

from nucseg_batch.network.batching import MOST, grown
from nucseg_batch.plan import BATCH_PIXELS


def test_batches_grow_until_larger_ones_gain_nothing() -> None:
    """A GPU needs far more pixels at once than a processor, and memory that is not needed is for others."""
    saturated = 8 * BATCH_PIXELS
    best, tried = grown(lambda pixels: min(pixels, saturated) / 1e6)
    assert best == saturated
    assert [one.pixels for one in tried] == [BATCH_PIXELS * 2**i for i in range(6)]


def test_one_size_that_gains_nothing_may_be_noise() -> None:
    """Others use the machine too; a single slow measurement must not end the search."""
    speeds = {BATCH_PIXELS: 100.0, 2 * BATCH_PIXELS: 90.0, 4 * BATCH_PIXELS: 150.0}
    assert grown(lambda pixels: speeds.get(pixels, 150.0))[0] == 4 * BATCH_PIXELS


def test_the_largest_that_fits_is_taken_where_memory_ends_the_search() -> None:
    """The size that failed is reported, so that `bench` can say why no larger one was taken."""

    def speed(pixels: int) -> float:
        if pixels > 2 * BATCH_PIXELS:
            raise MemoryError
        return pixels / 1e6

    best, tried = grown(speed)
    assert best == 2 * BATCH_PIXELS
    assert tried[-1].pixels == 4 * BATCH_PIXELS
    assert tried[-1].speed is None


def test_a_device_without_room_for_the_smallest_says_so() -> None:
    """There is nothing to choose; the stream then halves batches as it goes."""

    def speed(pixels: int) -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        grown(speed)


def test_the_search_ends() -> None:
    """Even on a device that never has enough."""
    assert grown(lambda pixels: float(pixels))[0] == MOST
