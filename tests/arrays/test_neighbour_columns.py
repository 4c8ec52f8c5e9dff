from __future__ import annotations

import numpy as np
import pytest
from real_nuclei import made_nuclei

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.neighbour_columns import neighbour_columns, touching_fraction


@pytest.mark.parametrize("radius", [0.0, 7.0, 25.5, 1e6])
def test_neighbours_are_those_of_a_table_of_all_distances(radius: float) -> None:
    places = np.random.default_rng(0).integers(0, 90, (137, 2)).astype(np.float64)  # some at one place
    distance = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    found = neighbour_columns(places, radius)
    np.testing.assert_allclose(found["neighbour_distance"], distance.min(axis=1), rtol=1e-15)
    np.testing.assert_array_equal(found["neighbour_count"], (distance <= radius).sum(axis=1))


def test_a_nucleus_alone_has_no_neighbour() -> None:
    for number in (0, 1):
        found = neighbour_columns(np.zeros((number, 2)), 5)
        assert np.isnan(found["neighbour_distance"]).all()
        np.testing.assert_array_equal(found["neighbour_count"], np.zeros(number))
        assert found["neighbour_count"].shape == (number,)


def test_the_border_of_a_box_between_two_touches_them_with_two_sides() -> None:
    labels = np.zeros((11, 23), np.int32)
    labels[3:7, 2:8], labels[3:7, 8:14], labels[3:7, 14:18], labels[9:, 20:] = 3, 1, 9, 4
    found = touching_fraction(Groups.of(labels), labels)
    np.testing.assert_allclose(found, [8 / 20, 4 / 20, 0, 4 / 16])


def test_the_share_of_touching_sides_is_that_of_counting_them_one_by_one() -> None:
    labels = np.where((made := made_nuclei((61, 83), 30, seed=3)) > 0, made, -1)
    groups = Groups.of(labels)
    border, shared = dict.fromkeys(groups.ids.tolist(), 0), dict.fromkeys(groups.ids.tolist(), 0)
    for y, x in np.argwhere(labels > 0):
        for there in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= there[0] < labels.shape[0] and 0 <= there[1] < labels.shape[1]
            if inside and labels[there] != labels[y, x]:
                border[int(labels[y, x])] += 1
                shared[int(labels[y, x])] += int(labels[there] > 0)
    expected = [shared[i] / max(border[i], 1) for i in groups.ids.tolist()]
    np.testing.assert_allclose(touching_fraction(groups, labels), expected, rtol=1e-15)
    some = groups.ids[::3]
    np.testing.assert_array_equal(
        touching_fraction(Groups.of(labels, some), labels), touching_fraction(groups, labels)[::3]
    )
    assert touching_fraction(Groups.of(labels * 0), labels).size == 0
