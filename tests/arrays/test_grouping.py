from __future__ import annotations

import numpy as np
import pytest
from real_nuclei import made_nuclei

from nucseg_batch.arrays.grouping import Groups


def test_pixels_of_a_label_follow_each_other_in_raster_order() -> None:
    labels = made_nuclei((61, 83), 20, seed=1)
    groups = Groups.of(labels)
    np.testing.assert_array_equal(groups.ids, np.unique(labels[labels > 0]))
    for label, first, count in zip(groups.ids, groups.first, groups.count, strict=True):
        np.testing.assert_array_equal(groups.place[first : first + count], np.flatnonzero(labels == label))


@pytest.mark.parametrize("low", [0, 10**6, 2**62])
def test_labels_as_high_as_hashes_are_grouped_as_small_ones(low: int) -> None:
    labels = made_nuclei((61, 83), 20, seed=2).astype(np.int64)
    high = np.where(labels > 0, labels + low, -5)
    found, expected = Groups.of(high), Groups.of(labels)
    np.testing.assert_array_equal(found.ids, expected.ids + low)
    np.testing.assert_array_equal(found.place, expected.place)


def test_ids_that_are_asked_for_have_a_row_each_and_others_none() -> None:
    """A nucleus without a ring keeps its row; a nucleus that another part of the plane measures has none."""
    labels = np.array([[0, 3, 3, 7], [9, 9, 0, 7]])
    groups = Groups.of(labels, np.array([2, 3, 9, 11]))
    np.testing.assert_array_equal(groups.count, [0, 2, 2, 0])
    np.testing.assert_array_equal(groups.place, [1, 2, 4, 5])
    np.testing.assert_array_equal(groups.reduce(np.maximum, groups.place, np.nan), [np.nan, 2, 5, np.nan])


def test_more_labels_than_sixteen_bits_can_count_stay_apart() -> None:
    labels = np.arange(257 * 263, 0, -1).reshape(257, 263)
    np.testing.assert_array_equal(Groups.of(labels).place, np.arange(labels.size)[::-1])


def test_runs_end_with_their_row_and_their_label() -> None:
    labels = np.array([[1, 1, 0, 2], [2, 2, 1, 1], [1, 0, 0, 2]])
    group, y, x, length = Groups.of(labels).runs()
    np.testing.assert_array_equal(group, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(y, [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(x, [0, 2, 0, 3, 0, 3])
    np.testing.assert_array_equal(length, [2, 2, 1, 1, 2, 1])


@pytest.mark.parametrize("shape", [(5, 7), (0, 7), (5, 0)], ids=str)
def test_a_plane_without_nuclei_has_no_groups(shape: tuple[int, int]) -> None:
    groups = Groups.of(np.zeros(shape, np.uint16))
    assert (groups.ids.size, groups.place.size, groups.runs().y.size) == (0, 0, 0)
    with pytest.raises(ValueError, match="plane"):
        Groups.of(np.zeros((2, *shape), int))
