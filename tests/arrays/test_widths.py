from __future__ import annotations

import numpy as np
import pytest
from pictures import disks

from nucseg_batch.arrays.widths import BINS, CELL, distribution, size_target, typical_width


@pytest.mark.parametrize("width", [2.5, 7, 11.3, 26, 60, 113, 170])
def test_a_width_comes_back_from_its_distribution(width: float) -> None:
    """To a few per cent: bins are a quarter of an octave."""
    shares = np.full(5, 0.3)
    assert typical_width(shares, np.tile(distribution(width), (5, 1))) == pytest.approx(width, rel=0.06)


def test_a_width_beyond_the_bins_is_the_last_of_them() -> None:
    """It says in which direction to look again."""
    assert distribution(1000.0).argmax() == BINS.size - 1
    assert distribution(0.1).argmax() == 0
    assert distribution(31.0).sum() == pytest.approx(1)


def test_cells_that_disagree_are_not_averaged() -> None:
    """Between nuclei and the glands that they form there is nothing of the width between."""
    cells = np.stack([distribution(12.0)] * 6 + [distribution(90.0)] * 4)
    assert typical_width(np.ones(10), cells) == pytest.approx(12, rel=0.1)
    assert typical_width(np.r_[np.full(6, 0.1), np.ones(4)], cells) == pytest.approx(90, rel=0.1)


def test_where_there_are_no_nuclei_there_is_no_width() -> None:
    """A guess would enlarge an empty field, in which noise then looks like something."""
    assert typical_width(np.full(9, 0.01), np.tile(distribution(26.0), (9, 1))) is None
    assert typical_width(np.zeros(0), np.zeros((0, BINS.size))) is None


def test_a_target_says_how_much_of_each_cell_is_nucleus() -> None:
    """What lies beyond the image or was not annotated has no weight; what is left over at the ends has no cell."""
    labels = disks((2 * CELL + 5, 3 * CELL + 31), [(16, 16)], 9)
    labels[:, 2 * CELL :] = -1
    target = size_target(labels, 19.0)
    assert target.shape == (2, 3, 2 + BINS.size)
    assert target[0, 0, 0] == pytest.approx((labels == 1).sum() / CELL**2)
    assert target[1, 0, 0] == target[0, 1, 0] == 0
    np.testing.assert_array_equal(target[..., 1], [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(target[0, 0, 2:], distribution(19.0))
