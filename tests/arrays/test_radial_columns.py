from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_nuclei import annotated_images, made_nuclei
from scipy.ndimage import distance_transform_edt, find_objects

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.radial_columns import radial_columns, squared_distance_to_edge


def distances(labels: np.ndarray) -> np.ndarray:
    """Squared, of each nucleus alone, in its box and a pixel around it."""
    found = np.zeros(labels.shape)
    for label, box in enumerate(find_objects(np.maximum(labels, 0)), start=1):
        if box:
            around = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
            inside = labels[around] == label
            found[around][inside] = distance_transform_edt(inside)[inside] ** 2
    return np.rint(found)


def fractions(labels: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """The definition in the docstring, one nucleus after another."""
    edge, rows = np.sqrt(distances(labels)), []
    for label in np.unique(labels[labels > 0]):
        y, x = np.nonzero(labels == label)
        e = edge[y, x]
        middle = e.argmax()
        down, across = abs(y - y[middle]), abs(x - x[middle])
        c = np.maximum(down, across) - np.minimum(down, across) + np.sqrt(2) * np.minimum(down, across)
        zone = np.floor(4 * (c / (c + e + 0.001))).astype(int)
        rows.append([plane[y, x][zone == i].sum() / plane[y, x].sum() for i in range(4)])
    return np.array(rows)


def assert_as_defined(labels: np.ndarray, plane: np.ndarray) -> None:
    found = np.array(list(radial_columns(Groups.of(labels), labels, {"": plane}).values())).T
    # A pixel whose place falls on the limit of a zone goes where rounding sends it.
    assert np.mean(np.abs(found - fractions(labels, plane)).max(axis=1) < 1e-12) > 0.99
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (7, 300), (300, 5), (13, 2**15 + 7), (2**15 + 7, 3)], ids=str)
def test_distances_to_the_edge_are_those_of_each_nucleus_alone(shape: tuple[int, int]) -> None:
    """Touching nuclei are edges to each other; planes are wider and narrower than the bands that are computed."""
    labels = made_nuclei(shape, 31, seed=shape[0])[:, ::-1]
    np.testing.assert_array_equal(squared_distance_to_edge(labels), distances(labels))
    ground = np.where(labels > 0, labels, -1)
    np.testing.assert_array_equal(squared_distance_to_edge(ground), distances(labels))


def test_boxes_that_fill_the_plane_are_edges_to_each_other_only() -> None:
    rng = np.random.default_rng(0)
    labels = np.kron(rng.permutation(12).reshape(3, 4) + 1, np.ones((11, 17), int))
    np.testing.assert_array_equal(squared_distance_to_edge(labels), distances(labels))
    assert squared_distance_to_edge(np.ones((5, 7), int)).min() >= 2**28
    assert squared_distance_to_edge(np.ones((0, 7), int)).shape == (0, 7)


@pytest.mark.parametrize("seed", range(3))
def test_shares_of_zones_are_as_defined(seed: int) -> None:
    labels = made_nuclei((131, 97), 20, seed)
    assert_as_defined(labels, np.random.default_rng(seed).integers(1, 4000, labels.shape).astype(np.uint16))


def test_light_in_the_middle_is_in_the_first_zone_and_light_at_the_edge_in_the_last() -> None:
    y, x = np.indices((31, 33))
    disk = ((y - 15) ** 2 + (x - 16) ** 2 <= 144).astype(np.int32)
    square = squared_distance_to_edge(disk)
    table = radial_columns(Groups.of(disk), disk, {"a": square == square.max(), "b": square == 1, "c": disk * 0})
    assert table["radial_distribution_frac_at_d_1of4-a"] == table["radial_distribution_frac_at_d_4of4-b"] == 1
    assert np.isnan(table["radial_distribution_frac_at_d_1of4-c"]).all()


@pytest.mark.real_data
def test_shares_of_zones_of_annotated_images_are_as_defined(shared: Path) -> None:
    for labels, plane in annotated_images(shared, 4):
        assert_as_defined(labels, plane.astype(np.float64) + 1)


def test_labels_without_pixels_are_nan() -> None:
    labels = made_nuclei((61, 83), 9, seed=4)
    ids = np.append(Groups.of(labels).ids, 99)
    plane = np.ones(labels.shape)
    found = radial_columns(Groups.of(labels, ids), labels, {"": plane})
    for name, column in radial_columns(Groups.of(labels), labels, {"": plane}).items():
        np.testing.assert_array_equal(found[name], np.append(column, np.nan), err_msg=name)
    assert all(column.size == 0 for column in radial_columns(Groups.of(labels * 0), labels * 0, {"": plane}).values())
    with pytest.raises(ValueError, match="channel a is"):
        radial_columns(Groups.of(labels), labels, {"a": plane.T})
