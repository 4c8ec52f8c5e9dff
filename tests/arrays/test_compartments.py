from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from real_nuclei import annotated_images
from skimage.segmentation import expand_labels

from nucseg_batch.arrays.compartments import expanded, halo, rings

DISTANCES = (0, 0.5, 1, math.sqrt(2), 2, math.sqrt(13), 2.9, 3, 5, 7.3, 40)


def nearest(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance to, and label of, the nearest nucleus of each pixel, by comparing it with every pixel of one."""
    y, x = np.nonzero(labels > 0)
    rows, columns = np.indices(labels.shape)
    square = (rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2
    least = square.min(axis=-1)
    owner = labels[y, x].astype(np.int64)
    return least, np.where(square == least[..., None], owner, np.iinfo(np.int64).max).min(axis=-1)


def scattered(shape: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Many single pixels and boxes that touch each other and the border, with labels in no order of place."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for label in rng.permutation(count) + 1:
        y, x = rng.integers(0, shape)
        h, w = rng.integers(1, 5, 2)
        labels[y : y + h, x : x + w] = label
    return labels


@pytest.mark.parametrize("distance", DISTANCES, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_each_pixel_belongs_to_the_nearest_nucleus_and_the_smaller_label_wins_ties(seed: int, distance: float) -> None:
    labels = scattered((29, 37), 3 + 4 * seed, seed)
    square, owner = nearest(labels)
    np.testing.assert_array_equal(expanded(labels, distance), np.where(np.sqrt(square) <= distance, owner, 0))
    for gap in (0, 1, 2.3):
        inside = (np.sqrt(square) > gap) & (np.sqrt(square) <= gap + distance)
        np.testing.assert_array_equal(rings(labels, gap, distance), np.where(inside, owner, 0))


@pytest.mark.parametrize("shape", [(1, 23), (23, 1), (1, 1), (2, 17), (31, 3)], ids=str)
def test_planes_narrower_than_the_distance_are_like_any_other(shape: tuple[int, int]) -> None:
    """The end of one row must not reach the start of the next, which follows it in memory."""
    for seed in range(8):
        labels = scattered(shape, 2, seed)
        square, owner = nearest(labels)
        for distance in DISTANCES:
            expected = np.where(np.sqrt(square) <= distance, owner, 0)
            np.testing.assert_array_equal(expanded(labels, distance), expected, err_msg=f"{seed}, {distance}")


def test_a_lattice_of_single_pixels_has_ties_everywhere_and_each_goes_to_the_smaller_label() -> None:
    """Two to four nuclei are equally near along every line between them; labels fall where an order of visits rises."""
    labels = np.zeros((41, 47), np.int32)
    labels[::4, ::6] = np.arange(1, labels[::4, ::6].size + 1)[::-1].reshape(labels[::4, ::6].shape)
    square, owner = nearest(labels)
    largest = nearest(np.where(labels > 0, 1000 - labels, 0))[1]
    assert np.mean(owner != 1000 - largest) > 0.2
    np.testing.assert_array_equal(expanded(labels, 4), np.where(square <= 16, owner, 0))


@pytest.mark.parametrize("side", [13, 31, 47])
@pytest.mark.parametrize(("gap", "width"), [(0, 3), (1.5, 4), (2, 7.5)])
def test_tiles_with_a_halo_are_what_the_whole_plane_is(side: int, gap: float, width: float) -> None:
    labels = scattered((101, 89), 60, seed=side)
    whole_rings, whole_cells = rings(labels, gap, width), expanded(labels, gap + width)
    margin = halo(gap + width)
    assert margin <= math.ceil(gap + width)
    for top in range(0, 101, side):
        for left in range(0, 89, side):
            y, x = max(0, top - margin), max(0, left - margin)
            tile = labels[y : top + side + margin, x : left + side + margin]
            inner = (slice(top - y, top - y + side), slice(left - x, left - x + side))
            outer = (slice(top, top + side), slice(left, left + side))
            np.testing.assert_array_equal(rings(tile, gap, width)[inner], whole_rings[outer])
            np.testing.assert_array_equal(expanded(tile, gap + width)[inner], whole_cells[outer])


def test_the_halo_is_as_wide_as_needed() -> None:
    """One pixel less, and a nucleus just outside is not seen."""
    labels = np.zeros((1, 23), np.int32)
    labels[0, 0] = 1
    for distance in (1, 4.9, 7):
        assert expanded(labels, distance)[0, halo(distance)] == 1
        assert expanded(labels, distance)[0, halo(distance) + 1] == 0


def test_touching_nuclei_keep_their_pixels_and_none_is_in_a_ring() -> None:
    labels = np.zeros((19, 31), np.int32)
    labels[4:12, 3:11], labels[4:12, 11:20] = 7, 2
    cells, ring = expanded(labels, 5), rings(labels, 0, 5)
    np.testing.assert_array_equal(cells[labels > 0], labels[labels > 0])
    assert not ring[labels > 0].any()
    np.testing.assert_array_equal(np.where(labels > 0, labels, ring), cells)


def test_a_nucleus_without_room_has_no_ring() -> None:
    labels = np.full((9, 11), 2, np.int32)
    labels[4, 5] = 1
    assert not rings(labels, 0, 3).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_labels_may_be_of_any_integer_type_which_is_kept(dtype: type) -> None:
    labels = scattered((37, 41), 30, seed=1)
    for found, expected in (
        (expanded(labels.astype(dtype), 4), expanded(labels, 4)),
        (rings(labels.astype(dtype), 1, 4), rings(labels, 1, 4)),
    ):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("background", [0, -1, -(2**40)])
def test_high_labels_cost_no_memory_and_labels_below_zero_are_background(background: int) -> None:
    """Ids that are hashes do not fit into one integer with a distance; their ranks do."""
    labels = scattered((37, 41), 30, seed=2).astype(np.int64)
    high = np.where(labels > 0, labels * 3 + 2**62, background)
    found = expanded(labels, 6)
    np.testing.assert_array_equal(expanded(high, 6), np.where(found > 0, found * 3 + 2**62, 0))
    full = np.maximum(labels, 1) + 2**40
    np.testing.assert_array_equal(expanded(full, 6), full)


def test_distances_and_labels_that_need_more_than_32_bits_together_are_exact() -> None:
    labels = np.zeros((3, 700), np.int64)
    labels[1, 2], labels[1, 697] = 2**33, 5
    found = expanded(labels, 345.0)
    np.testing.assert_array_equal(found[1], np.where(np.arange(700) < 348, 2**33, np.where(np.arange(700) > 351, 5, 0)))
    many = np.arange(1, 1201 * 997 + 1).reshape(1201, 997) * (np.arange(997) % 7 == 0)
    assert (rings(many, 0, 60) > 0).sum() == (many == 0).sum()
    np.testing.assert_array_equal(rings(many, 0, 60)[:, 1], many[:, 0])


def test_planes_without_nuclei_or_pixels_have_no_regions() -> None:
    for shape in ((5, 7), (0, 7), (5, 0)):
        assert not expanded(np.zeros(shape, np.uint16), 3).any()
        assert rings(np.full(shape, -1), 1, 3).shape == shape


def test_views_are_measured_as_their_copies_and_left_as_they_are() -> None:
    labels = scattered((67, 73), 20, seed=3)
    labels.flags.writeable = False
    for view in (labels.T, labels[::-1, 3:50:2]):
        np.testing.assert_array_equal(rings(view, 1, 4), rings(view.copy(), 1, 4))


@pytest.mark.parametrize("distance", [-1, float("nan"), float("inf"), 2**15])
def test_a_distance_that_is_none_is_refused(distance: float) -> None:
    for ask in (lambda: expanded(np.ones((3, 5), int), distance), lambda: rings(np.ones((3, 5), int), 0, distance)):
        with pytest.raises(ValueError, match="pixels"):
            ask()
    with pytest.raises(ValueError, match="plane"):
        expanded(np.ones((2, 3, 5), int), 1)


@pytest.mark.real_data
def test_on_annotated_images_regions_are_those_of_scikit_image_but_for_ties(shared: Path) -> None:
    for labels, _ in annotated_images(shared, 12):
        found, expected = expanded(labels, 10), expand_labels(labels, 10)
        np.testing.assert_array_equal(found > 0, expected > 0)
        assert np.mean(found == expected) > 0.98
        assert (found <= expected)[found != expected].all()
