from __future__ import annotations

import math

import numpy as np
import pytest

from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.report.charts import axis_for, nice
from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.outliers import OutlierLimits, judge
from nucseg_batch.results.report.ranking import Finding, Ranking
from nucseg_batch.results.report.windows import SIDE, scale_bar, window, windows_through
from nucseg_batch.results.tables import PlaneRow


def distribution(values: np.ndarray) -> Distribution:
    made = Distribution()
    for piece in np.array_split(values, 7):
        made.add(piece)
    return made


def row(**values: float) -> PlaneRow:
    return PlaneRow(
        ("a.tif", "", ""), "a.tif", PlaneStatus.OK, "m", 0, None, None, 0, 0, {"height": 10.0, "width": 10.0, **values}
    )


def test_counts_of_whole_numbers_are_exact_and_do_not_depend_on_order() -> None:
    """Areas and counts are whole numbers, and a histogram of them must be what counting by hand gives."""
    values = np.random.default_rng(1).integers(0, 30_000, 20_011).astype(float)
    there, back = distribution(values), distribution(values[::-1])
    edges = np.arange(0, 31_001, 500.0)
    assert there.histogram(edges).tolist() == np.histogram(values, edges)[0].tolist() == back.histogram(edges).tolist()
    assert there.median == np.sort(values)[10_005]
    assert there.quantile(1.0) == values.max()
    assert there.mean == pytest.approx(values.mean(), rel=1e-12)


def test_quantiles_of_any_range_are_true_to_four_digits() -> None:
    """Intensities are of 8, 12 or 16 bits, or floats of any size and sign."""
    rng = np.random.default_rng(2)
    for values in (rng.normal(0, 1e-6, 9001), rng.lognormal(9, 3, 9001), 40_000 + rng.normal(0, 10, 9001)):
        made = distribution(values)
        for share in (0.05, 0.5, 0.95):
            exact = np.sort(values)[math.ceil(share * 9001) - 1]
            assert made.quantile(share) == pytest.approx(exact, rel=1e-4)


def test_memory_is_bounded_whatever_is_counted() -> None:
    """A billion nuclei have a billion different intensities."""
    made, rng = Distribution(), np.random.default_rng(3)
    for _ in range(8):
        made.add(rng.uniform(1, 256, 2**17))
    assert made.count == 2**20
    assert made._counted()[0].size <= 8 * 2**14


def test_the_spread_hardly_notices_outliers() -> None:
    """Else one broken well would hide all others."""
    values = np.random.default_rng(4).normal(100, 5, 9999)
    values[:900] = 1e6
    assert distribution(values).spread() == pytest.approx(5.9, abs=0.5)
    assert distribution(2 ** (values[900:] / 5)).spread(log=True) == pytest.approx(1.0, abs=0.05)


def test_what_does_not_exist_is_no_value() -> None:
    """Cells are empty where nothing was measured."""
    made = distribution(np.array([math.nan, 3.0, math.inf, 5.0]))
    assert (made.count, made.median) == (2, 4.0)
    empty = Distribution()
    assert math.isnan(empty.median)
    assert math.isnan(empty.mean)
    assert math.isnan(empty.spread())


@pytest.mark.parametrize(
    ("values", "whole"),
    [([7.0], True), ([0.0] * 9, True), ([-5.0, 3.0], False), ([1e-9, 2e-9], False), ([39_990.0, 40_010.0], False)],
)
def test_an_axis_holds_the_values_whatever_they_are(values: list[float], whole: bool) -> None:
    """One image, a constant, negative and tiny values: a histogram must not fail on any."""
    made = distribution(np.array(values))
    axis = axis_for(made, whole=whole)
    assert axis.edges[0] <= made.quantile(0) <= made.quantile(1) <= axis.edges[-1]
    assert axis.bars <= 60
    assert made.histogram(axis.edges).sum() == len(values)


def test_steps_are_round() -> None:
    """People read 20, 40, 60 and not 17, 34, 51."""
    assert [nice(step) for step in (0.3, 1, 1.01, 2.5, 70, 0.0011)] == [0.5, 1, 2, 5, 100, 0.002]


def test_a_ranking_keeps_the_first_and_counts_all() -> None:
    """Ties go to the first in the table, so that the page is the same every time."""
    ranking = Ranking(3)
    for number, weight in enumerate([1.0, 5.0, 5.0, 2.0, 5.0, 5.0]):
        ranking.add(Finding(number, row(), weight))
    assert ([one.number for one in ranking.first], ranking.count) == ([1, 2, 4], 6)


USUAL = OutlierLimits(confidence=0.5, sharpness=0.1, crowded=0.4, size=(50.0, 200.0), middle=100.0, micrometres=False)


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ({"nuclei": 9, "area_median": 100, "confidence": 0.9, "sharpness": 0.3}, set()),
        ({"nuclei": 0}, {"empty"}),
        ({"nuclei": 9, "area_median": 100, "confidence": 0.49}, {"unsure"}),
        ({"nuclei": 9, "area_median": 100, "sharpness": 0.09}, {"blurred"}),
        ({"nuclei": 9, "area_median": 100, "area_fraction": 0.41}, {"crowded"}),
        ({"nuclei": 9, "area_median": 49}, {"size"}),
        ({"nuclei": 9, "area_median": 201, "area_fraction": 0.5}, {"size", "crowded"}),
        ({"nuclei": 9, "area_median": 99, "saturated_fraction": 0.02, "intensity_mean": 9}, {"saturated"}),
        (
            {
                "nuclei": 9,
                "area_median": 99,
                "saturated_fraction": 0.5,
                "intensity_mean": 9,
                "intensity_background": 99,
            },
            set(),
        ),
    ],
)
def test_what_is_odd_about_a_plane(values: dict[str, float], kinds: set[str]) -> None:
    """Each rule by itself; white ground of tissue is no saturation."""
    assert judge(row(**values), USUAL).keys() == kinds


def test_a_window_lies_where_most_nuclei_are() -> None:
    """A picture of an empty corner tells nothing of a slide."""
    centres = np.array([[100.0, 200.0]] * 3 + [[2500.0, 3100.0]] * 5 + [[2500.0, 3101.0]] * 5)
    part = window((3001, 4003), centres, np.ones(13), 20.0)
    assert part.rows.start <= 2500 < part.rows.stop
    assert part.columns.start <= 3100 < part.columns.stop
    assert (part.rows.stop - part.rows.start, part.reduce, part.enlarge) == (SIDE, 1, 1)
    unsure = window((3001, 4003), centres, np.array([9.0] * 3 + [0.1] * 10), 20.0)
    assert unsure.rows.start <= 100 < unsure.rows.stop


@pytest.mark.parametrize(
    ("shape", "diameter", "reduce", "enlarge"),
    [((67, 83), 20.0, 1, 6), ((600, 701), 20.0, 1, 1), ((2048, 2048), 80.0, 3, 1), ((2048, 1999), None, 4, 1)],
)
def test_small_planes_are_enlarged_and_large_nuclei_made_smaller(
    shape: tuple[int, int], diameter: float | None, reduce: int, enlarge: int
) -> None:
    """Outlines have to be seen, and there have to be enough nuclei to judge."""
    centres = np.empty((0, 2)) if diameter is None else np.array([[30.0, 40.0]])
    part = window(shape, centres, np.ones(len(centres)), diameter)
    assert (part.reduce, part.enlarge) == (reduce, enlarge)
    assert part.rows.stop <= shape[0]
    assert part.columns.stop <= shape[1]


def test_further_windows_go_from_dense_to_sparse_and_never_overlap() -> None:
    """A slide is judged by more than its densest place."""
    rng = np.random.default_rng(5)
    centres = rng.uniform(0, 1, (5000, 2)) ** 3 * [5003, 7001]
    parts = windows_through((5003, 7001), centres, 20.0, 12)
    inside = [
        int(
            ((centres >= [p.rows.start, p.columns.start]) & (centres < [p.rows.stop, p.columns.stop])).all(axis=1).sum()
        )
        for p in parts
    ]
    assert len({(part.rows.start, part.columns.start) for part in parts}) == 12
    assert inside == sorted(inside, reverse=True)
    assert inside[-1] > 0


def test_scale_bars_are_round_and_as_long_as_they_say() -> None:
    """20 um at 0.65 um a pixel are 30.8 pixels."""
    length, pixels = scale_bar(256, 0.65)
    assert (length, pixels) == (20, pytest.approx(20 / 0.65))
    for size in (0.02, 0.1, 0.5, 3.3, 10):
        length, pixels = scale_bar(512, size)
        assert 512 / 12 < pixels <= 512 / 4
        assert length in {factor * 10.0**power for factor in (1, 2, 5) for power in range(-1, 4)}
