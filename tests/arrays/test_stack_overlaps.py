from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import astuple

import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg_batch.arrays import stack_overlaps as module
from nucseg_batch.arrays.metrics import overlaps
from nucseg_batch.arrays.stack_overlaps import stack_overlaps

Labels = NDArray[np.uint32]
SHAPE = (83, 97)


def columns(depth: int, seed: int, lowest: int = 1) -> Labels:
    """(depth, height, width): nuclei through all slices that move to the side, of labels that are not in a row."""
    random = np.random.default_rng(seed)
    known = np.unique(random.integers(lowest, lowest + 2**20, 80).astype(np.uint32))
    found = np.zeros((depth, *SHAPE), np.uint32)
    for z in range(depth):
        for number, one in enumerate(known):
            y, x = divmod(number, 10)
            found[z, 9 * y : 9 * y + 5, 9 * x + z % 3 : 9 * x + z % 3 + 4] = one
    return found


@pytest.mark.parametrize("least", [0, 7, 500, 2**16])
def test_slices_add_up_to_the_whole_stack(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often sums are made in between; to the last bit of the IoU."""
    monkeypatch.setattr(module, "LEAST", least)
    one, other = columns(13, 1), columns(13, 2, 2**30)
    other[:, ::3] = 0
    one[5] = 0
    expected = overlaps(one.reshape(-1, SHAPE[1]), other.reshape(-1, SHAPE[1]))
    found = stack_overlaps(zip(one, other, strict=True))
    for a, b in zip(astuple(found), astuple(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.truths > 70 < found.predictions


def test_memory_grows_with_volumes_and_not_with_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack of thousands of slices has no more nuclei than one of a hundred slices."""
    monkeypatch.setattr(module, "LEAST", 100)
    one, other = columns(3, 1), columns(3, 2)

    def slices(depth: int) -> Iterator[tuple[Labels, Labels]]:
        return ((one[z % 3], other[z % 3]) for z in range(depth))

    peaks = []
    for depth in (30, 30, 600):
        tracemalloc.start()
        stack_overlaps(slices(depth))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.2 * peaks[1]


def test_a_stack_without_slices_or_nuclei_has_none() -> None:
    empty = np.zeros(SHAPE, np.uint32)
    for stack in ([], [(empty, empty)] * 3):
        found = stack_overlaps(stack)
        assert (found.predictions, found.truths, found.iou.size) == (0, 0, 0)


def test_slices_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="must have one shape"):
        stack_overlaps([(np.zeros((3, 5), np.uint32), np.zeros((5, 3), np.uint32))])
