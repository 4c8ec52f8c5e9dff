from __future__ import annotations

import numpy as np
import pytest
from pictures import disks, fluorescence
from scipy import ndimage

from nucseg_batch.arrays.exposure import APART, EVERY, Exposure


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_plane_is_the_sum_of_its_parts_however_it_is_cut(dtype: type) -> None:
    """Large planes are only ever seen in parts; whole numbers add up to the last bit."""
    plane = np.random.default_rng(1).integers(0, 251, (101, 67)).astype(dtype)
    whole = Exposure.of(plane)
    parts = [
        Exposure.of(plane[y : y + 28, x : x + 31 + APART], 31, top_row=y)
        for y in range(0, 101, 28)
        for x in range(0, 67, 31)
    ]
    joined = Exposure.joined(parts)
    assert joined == whole
    assert Exposure.from_numbers(whole.numbers()) == whole


def test_values_are_those_of_their_definitions() -> None:
    """Written out in plain numpy."""
    plane = np.random.default_rng(2).integers(0, 4096, (23, 41)).astype(np.uint16)
    plane[:7, :11] = 4095
    exposure = Exposure.of(plane)
    assert exposure.total == plane.sum()
    assert exposure.saturated_fraction == (plane == 4095).mean()
    rows = plane[::EVERY].astype(float)
    expected = np.square(rows[:, APART:] - rows[:, :-APART]).mean() / (2 * rows.var())
    assert exposure.sharpness == pytest.approx(expected, rel=1e-12)


def test_an_image_out_of_focus_is_less_sharp_whatever_its_exposure() -> None:
    """So that it can be told from its neighbours in a plate."""
    sharp = fluorescence(disks((131, 127), [(30, 30), (80, 90), (100, 40)], 11), seed=1).astype(float)
    values = [Exposure.of(ndimage.gaussian_filter(sharp, sigma)).sharpness for sigma in (0, 2, 5, 9)]
    assert values == sorted(values, reverse=True)
    assert values[1] < 0.5 * values[0]
    assert Exposure.of(sharp * 37 + 1000).sharpness == pytest.approx(values[0])


def test_a_plane_of_one_value_or_none_has_no_sharpness() -> None:
    """Nothing to compare; and no warning of a division by nothing."""
    assert Exposure.of(np.full((9, 13), 7, np.uint8)).sharpness is None
    assert Exposure.of(np.full((9, 1), 7.5)).sharpness is None
    assert Exposure.of(np.zeros((0, 13))).saturated_fraction == 0
