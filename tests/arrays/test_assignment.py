"""Points are assigned to points as one solver of the whole problem does it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from nucseg_batch.arrays import assignment
from nucseg_batch.arrays.assignment import assigned

pytest.importorskip("laptrack")

Floats = NDArray[np.float64]


def best(first: Floats, second: Floats, reach: float, allowed: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The same by a dense matrix, in which every point may be left alone."""
    squares = ((first[:, None] - second[None]) ** 2).sum(axis=2)
    alone = 1.05 * reach**2
    costs = np.full((len(first) + len(second),) * 2, 0.0)
    costs[: len(first), : len(second)] = np.where((squares <= reach**2) & allowed, squares, 1e9)
    costs[: len(first), len(second) :] = costs[len(first) :, : len(second)] = alone
    rows, columns = linear_sum_assignment(costs)
    return [(a, b) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if a < len(first) and b < len(second)]


@pytest.mark.parametrize("at_once", [1, 200])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("reach", [5.0, 9.0, 200.0])
def test_the_whole_is_as_good_as_its_parts(
    monkeypatch: pytest.MonkeyPatch, reach: float, limited: bool, at_once: int
) -> None:
    """Whatever hangs together, and however much of it is solved at once."""
    monkeypatch.setattr(assignment, "AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    first, second = rng.uniform(0, 60, (53, 2)), rng.uniform(0, 60, (47, 2))
    allowed = rng.random((53, 47)) < 0.4 if limited else np.ones((53, 47), bool)
    found = assigned(first, second, reach, (lambda row, column: allowed[row, column]) if limited else None)
    assert found == best(first, second, reach, allowed)
    assert found


def test_points_that_are_all_too_far_apart() -> None:
    """None is in a pair."""
    assert assigned(np.zeros((2, 2)), np.full((3, 2), 9.0), 5.0) == []
