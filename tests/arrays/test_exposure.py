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
    assert exposure.row_squares == np.square(rows).sum()
    assert exposure.difference == np.square(rows[:, APART:] - rows[:, :-APART]).sum()
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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (9, 1), (9, 2), (5, 3), (33, 64), (40, 259)], ids=str)
def test_sums_are_those_of_numpy(shape: tuple[int, int], dtype: type) -> None:
    """Of all columns or the first, from any row on; values that are no whole numbers are added in another order."""
    rng = np.random.default_rng(3)
    plane = rng.uniform(0, 250, shape).astype(dtype)
    recorded = rng.integers(0, 9, shape).astype(np.uint16)
    for width in {1, max(1, shape[1] - APART), shape[1]}:
        for top_row in (0, 1, 6):
            found = Exposure.of(plane, width, top_row=top_row, recorded=recorded)
            own, camera = plane[:, :width].astype(float), recorded[:, :width]
            rows = plane[-top_row % EVERY :: EVERY].astype(float)
            mine, there = rows[:, :width], rows[:, APART : width + APART]
            apart = there - mine[:, : there.shape[1]]
            expected = [own.sum(), np.square(apart).sum(), mine.sum(), np.square(mine).sum()]
            sums = [found.total, found.difference, found.row_total, found.row_squares]
            np.testing.assert_allclose(sums, expected, rtol=0 if plane.dtype.kind == "u" else 1e-12)
            assert (found.pixels, found.compared, found.rows) == (own.size, apart.size, mine.size)
            assert (found.top, found.at_top) == (camera.max(), np.count_nonzero(camera == camera.max()))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [5, 69], ids=["in the first columns", "in the last"])
def test_pixels_that_are_no_numbers_count_as_numpy_has_them(broken: float, place: int) -> None:
    """NaN is the highest value, which no pixel equals; columns are looked at in groups, and what is left alone."""
    plane = np.random.default_rng(4).normal(size=(9, 70))
    plane[4, place] = broken
    exposure = Exposure.of(plane)
    np.testing.assert_equal(exposure.top, plane.max())
    assert exposure.at_top == np.count_nonzero(plane == plane.max())
    np.testing.assert_equal(exposure.total, plane.sum())
