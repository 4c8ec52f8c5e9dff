from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_nuclei import annotated_images, made_nuclei
from skimage.measure import regionprops_table
from skimage.segmentation import find_boundaries

from nucseg_batch.arrays.compartments import halo, rings
from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import edges, intensity_columns, intensity_ratios, weighted_centroids


def quartiles(region: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.percentile(values[region].astype(np.float64), (25, 50, 75))  # which wraps around in integers


def total(region: np.ndarray, values: np.ndarray) -> float:
    return float(values[region].sum(dtype=np.float64))


PROPERTIES = ("intensity_mean", "intensity_min", "intensity_max", "intensity_std")


def assert_like_regionprops(labels: np.ndarray, plane: np.ndarray, rtol: float) -> None:
    found = intensity_columns(Groups.of(labels), {"": plane})
    extra = (quartiles, total)
    expected = regionprops_table(labels, plane, properties=PROPERTIES, extra_properties=extra)
    for name, other in (("p25", "quartiles-0"), ("median", "quartiles-1"), ("p75", "quartiles-2"), ("sum", "total")):
        expected[f"intensity_{name}"] = expected.pop(other)
    assert set(found) == set(expected)
    for name, column in found.items():
        np.testing.assert_allclose(column, expected[name], rtol=rtol, atol=rtol * 1e3, err_msg=name)
        assert column.dtype == np.float64


@pytest.mark.parametrize(
    ("dtype", "low", "high", "rtol"),
    [
        (np.uint8, 0, 256, 1e-12),
        (np.uint16, 60_000, 65_536, 1e-12),
        (np.int16, -(2**15), 2**15, 1e-12),
        (np.int32, -(2**31), 2**31, 1e-12),
        (np.uint64, 0, 2**50, 1e-12),
        (np.float32, -3, 5, 2e-6),
        (np.float64, -3, 5, 1e-10),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_intensities_of_any_type_are_those_of_regionprops(dtype: type, low: int, high: int, rtol: float) -> None:
    """uint16 near its top overflows in its own type. regionprops averages float32 in float32: only so close."""
    labels = made_nuclei((71, 97), 17, seed=2)
    plane = np.random.default_rng(3).uniform(low, high, labels.shape).astype(dtype)
    assert_like_regionprops(labels, plane, rtol)


@pytest.mark.real_data
def test_rings_and_nuclei_of_annotated_images_measure_as_regionprops_does(shared: Path) -> None:
    for labels, plane in annotated_images(shared, 6):
        assert_like_regionprops(labels, plane, 1e-12)
        assert_like_regionprops(rings(labels, 1, 5), plane, 1e-12)


def test_a_nucleus_without_a_ring_has_a_row_and_its_ratio_is_nan() -> None:
    labels = np.full((9, 11), 2, np.int32)
    labels[4, 3], labels[:, 6:] = 1, 0
    plane = np.arange(99, dtype=np.uint16).reshape(9, 11)
    nuclei = Groups.of(labels)
    inside = intensity_columns(nuclei, {"a": plane, "b": plane + 7})
    ring = rings(labels, 0, 1)
    around = intensity_columns(Groups.of(ring, nuclei.ids), {"a": plane, "b": plane * 0}, "ring_")
    assert around["ring_intensity_sum-a"][0] == 0
    for name, column in around.items():
        assert np.isnan(column[0]) == ("sum" not in name), name
    ratios = intensity_ratios(inside, around, "ring_")
    assert tuple(ratios) == ("intensity_ratio-a", "intensity_ratio-b")
    expected = plane[labels == 2].mean() / plane[ring == 2].mean()
    np.testing.assert_allclose(ratios["intensity_ratio-a"], [np.nan, expected])
    assert np.isnan(ratios["intensity_ratio-b"]).all()


def test_percentiles_are_those_that_are_asked_for() -> None:
    labels = made_nuclei((61, 83), 9, seed=4)
    plane = np.random.default_rng(1).integers(0, 999, labels.shape).astype(np.uint16)
    found = intensity_columns(Groups.of(labels), {"": plane}, percentiles=(0, 1, 33.3, 99.9, 100))
    for share in (0, 1, 33.3, 99.9, 100):
        expected = [np.percentile(plane[labels == i], share) for i in np.unique(labels[labels > 0])]
        np.testing.assert_allclose(found[f"intensity_p{share:g}"], expected, rtol=1e-12)


def test_a_nan_pixel_spoils_its_own_region_only_and_infinite_ones_give_no_warning() -> None:
    labels = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]])
    plane = np.arange(10.0).reshape(2, 5)
    plane[1, 1] = np.nan
    for name, column in intensity_columns(Groups.of(labels), {"": plane}).items():
        np.testing.assert_array_equal(np.isnan(column), [True, False], err_msg=name)
    plane[1, :2] = np.inf, -np.inf
    assert intensity_columns(Groups.of(labels), {"": plane})["intensity_max"][0] == np.inf


def test_a_tile_gives_the_bits_that_the_whole_plane_gives() -> None:
    """Of nuclei whose ring lies in the tile, with floats, whose sums depend on their order."""
    labels = made_nuclei((211, 193), 40, seed=7)
    plane = np.random.default_rng(5).normal(7, 3, labels.shape).astype(np.float32)
    whole = intensity_columns(Groups.of(rings(labels, 1, 4)), {"": plane})
    ids = Groups.of(rings(labels, 1, 4)).ids
    top, left, side, margin = 37, 41, 131, halo(5)
    cut = (slice(top - margin, top + side + margin), slice(left - margin, left + side + margin))
    inner = rings(labels[cut], 1, 4)[margin:-margin, margin:-margin]
    complete = np.bincount(rings(labels, 1, 4).ravel(), minlength=labels.max() + 1)[ids]
    found = Groups.of(inner, ids)
    of_tile = intensity_columns(found, {"": plane[top : top + side, left : left + side]})
    same = found.count == complete
    assert same.sum() > 5
    for name, column in of_tile.items():
        np.testing.assert_array_equal(column[same], whole[name][same], err_msg=name)


def test_edges_are_the_inner_boundaries_of_scikit_image() -> None:
    labels = made_nuclei((97, 131), 30, seed=8)
    expected = np.where(find_boundaries(labels, mode="inner"), labels, 0)
    np.testing.assert_array_equal(edges(labels), expected)
    np.testing.assert_array_equal(edges(np.where(labels > 0, labels, -1)), expected)
    assert not edges(np.ones((5, 7), int)).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_weighted_centroids_are_those_of_regionprops(dtype: type) -> None:
    labels = made_nuclei((97, 131), 30, seed=9)
    plane = np.random.default_rng(6).integers(1, 251, labels.shape).astype(dtype)
    found = weighted_centroids(Groups.of(labels), {"": plane, "b": plane})
    for name, expected in regionprops_table(labels, plane, properties=("centroid_weighted",)).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6 if dtype == np.float32 else 1e-12)
        np.testing.assert_array_equal(found[f"{name}-b"], found[name])
    assert np.isnan(weighted_centroids(Groups.of(labels), {"": plane * 0})["centroid_weighted-0"]).all()


def test_planes_without_nuclei_have_columns_without_rows_and_others_are_refused() -> None:
    groups = Groups.of(np.zeros((9, 11), int))
    for columns in (intensity_columns, weighted_centroids):
        assert {column.shape for column in columns(groups, {"": np.zeros((9, 11))}).values()} == {(0,)}
        with pytest.raises(ValueError, match="channel a is"):
            columns(groups, {"a": np.zeros((11, 9))})
