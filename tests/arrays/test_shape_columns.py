from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_nuclei import annotated_images, made_nuclei
from skimage.measure import regionprops_table

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.hulls import hulls
from nucseg_batch.arrays.measure import measure
from nucseg_batch.arrays.shape_columns import moments_hu, shape_columns

LIKE_REGIONPROPS = ("area_convex", "solidity", "feret_diameter_max", "moments_hu")
TOLERANCE = {"moments_hu": 1e-12}
"""Hulls are counts and must be equal to the last bit; of moments, the seventh is a difference of products near 0."""


def speckled(shape: tuple[int, int], side: int, seed: int) -> np.ndarray:
    """Nuclei in pieces: boxes of which random pixels are missing, down to a single pixel or none."""
    rng = np.random.default_rng(seed)
    box = np.arange(-(-shape[0] // side) * -(-shape[1] // side)).reshape(-1, -(-shape[1] // side)) + 1
    share = rng.uniform(0.02, 1, box.shape)
    labels = np.kron(box, np.ones((side, side), int))[: shape[0], : shape[1]]
    return labels * (rng.random(shape) < np.kron(share, np.ones((side, side)))[: shape[0], : shape[1]])


def assert_like_regionprops(labels: np.ndarray) -> None:
    groups = Groups.of(labels)
    found = shape_columns(groups, measure(labels, labels)["perimeter"]) | moments_hu(groups)
    found["area_convex"] = hulls(groups).area.astype(np.float64)
    for name, expected in regionprops_table(labels, properties=LIKE_REGIONPROPS).items():
        atol = TOLERANCE.get(name.split("-")[0], 0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-9 if atol else 1e-15, atol=atol, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_nuclei_that_touch_and_hide_each_other_measure_as_regionprops_does(seed: int) -> None:
    assert_like_regionprops(made_nuclei((131, 97), 25, seed))


@pytest.mark.parametrize("side", [2, 3, 5, 13])
def test_nuclei_in_pieces_measure_as_regionprops_does(side: int) -> None:
    """Rows without a pixel, single pixels, diagonals: hulls with borders through centres of pixels."""
    assert_like_regionprops(speckled((67, 83), side, seed=side))


@pytest.mark.parametrize("shape", [(1, 13), (13, 1), (1, 1), (5, 7)], ids=str)
def test_a_nucleus_that_fills_the_plane_is_its_own_hull(shape: tuple[int, int]) -> None:
    assert_like_regionprops(np.ones(shape, np.int32))


@pytest.mark.real_data
def test_annotated_nuclei_measure_as_regionprops_does(shared: Path) -> None:
    for labels, _ in annotated_images(shared, 6):
        assert_like_regionprops(labels)


def test_the_form_factor_is_that_of_cellprofiler() -> None:
    """1 for a circle, as far as its perimeter on the grid is; a nucleus of one pixel has none."""
    labels = made_nuclei((61, 83), 3, seed=5)
    labels[0, 0] = 9
    measures = measure(labels, labels)
    found = shape_columns(Groups.of(labels), measures["perimeter"])["form_factor"]
    np.testing.assert_allclose(found[:-1], 4 * np.pi * measures["area"][:-1] / measures["perimeter"][:-1] ** 2)
    assert np.isnan(found[-1])


def test_a_nucleus_far_from_the_origin_measures_as_it_does_at_the_origin() -> None:
    patch = made_nuclei((31, 37), 2, seed=6)
    plane = np.zeros((3001, 2003), np.int32)
    plane[2963:2994, 1951:1988] = patch
    found, expected = (
        shape_columns(groups, np.ones(2)) | moments_hu(groups) for groups in map(Groups.of, (plane, patch))
    )
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)


def test_labels_without_pixels_are_nan_and_planes_without_nuclei_have_no_rows() -> None:
    one = np.zeros((9, 11), np.int32)
    one[3:6, 2:8] = 5
    groups = Groups.of(one, np.array([4, 5]))
    found = shape_columns(groups, np.array([1.0, 14.0])) | moments_hu(groups)
    for name, column in found.items():
        np.testing.assert_array_equal(np.isnan(column), [True, False], err_msg=name)
    none = Groups.of(np.zeros((9, 11), int))
    for column in (shape_columns(none, np.zeros(0)) | moments_hu(none)).values():
        assert column.shape == (0,)
        assert column.dtype == np.float64
