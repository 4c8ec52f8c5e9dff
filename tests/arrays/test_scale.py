from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.transform import rescale

from nucseg_batch.arrays.scale import (
    MAX_ENLARGED_PIXELS,
    MAX_SCALE,
    MIN_SCALE,
    mirrored,
    nearest,
    nuclei_areas,
    numbered,
    padded_resampling,
    resampling,
    scaled_shape,
    step_scale,
    typical_diameter,
)


def test_the_typical_width_is_that_of_most_of_the_nuclei_not_of_specks() -> None:
    """Ten specks of dirt beside five nuclei must not make the nuclei small."""
    disk = round(math.pi * 15**2)
    assert typical_diameter(np.array([disk] * 5 + [3] * 10)) == pytest.approx(30, rel=0.01)
    assert typical_diameter(np.array([0, disk, 0])) == pytest.approx(30, rel=0.01)
    assert typical_diameter(np.array([0])) is None
    assert typical_diameter(np.array([], int)) is None


@pytest.mark.parametrize(("wanted", "step"), [(1.0, 1.0), (1.18, 1.0), (1.2, 2**0.5), (0.5, 0.5), (3.0, 8**0.5)])
def test_estimated_scales_are_few(wanted: float, step: float) -> None:
    """Half octaves: close enough for accuracy, and few shapes to compile."""
    assert step_scale(wanted) == pytest.approx(step)


def test_scales_have_limits() -> None:
    """An estimate gone wrong must not ask for a thousandfold image."""
    assert step_scale(1e-9) == MIN_SCALE
    assert step_scale(1e9) == MAX_SCALE
    height, width = scaled_shape(9001, 9007, 4.0)
    assert height * width <= MAX_ENLARGED_PIXELS * 1.01 or (height, width) == (9001, 9007)
    assert scaled_shape(3, 5, 1 / 16) == (1, 1)
    assert scaled_shape(101, 203, 0.5) == (round(50.5), round(101.5))


@pytest.mark.parametrize(("length", "target"), [(37, 74), (37, 53), (37, 37), (53, 26), (97, 13)])
def test_resampling_keeps_a_ramp_a_ramp_and_a_constant_constant(length: int, target: int) -> None:
    """Positions must not shift by half a pixel: measured areas and outlines would."""
    source, weights = resampling(length, target, np.arange(target))
    values = np.arange(length, dtype=np.float64)[source]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    expected = (np.arange(target) + 0.5) * length / target - 0.5
    inner = slice(math.ceil(target / length) + 1, -math.ceil(target / length) - 1)
    np.testing.assert_allclose((weights @ values)[inner], expected[inner], atol=0.02)


def test_reducing_averages_as_skimage_does_and_does_not_alias() -> None:
    """A grid of single bright pixels becomes an even grey, not a moire."""
    image = np.zeros((64, 96))
    image[::2, ::2] = 1
    rows, columns = (padded_resampling(n, n // 4, n, n // 4) for n in image.shape)
    found = rows @ image @ columns.T
    expected = rescale(image, 0.25, order=1, anti_aliasing=True)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[1:-1, 1:-1], 0.25, atol=0.02)
    np.testing.assert_allclose(found[1:-1, 1:-1], expected[1:-1, 1:-1], atol=0.03)


def test_padding_mirrors_and_what_is_beyond_the_image_is_never_looked_at() -> None:
    """The padded part of a batch holds anything."""
    matrix = padded_resampling(7, 11, 32, 32)
    assert (matrix[:, 7:] == 0).all()
    np.testing.assert_array_equal(matrix[11:22], matrix[10::-1])
    np.testing.assert_array_equal(mirrored(9, 4), [0, 1, 2, 3, 3, 2, 1, 0, 0])


def test_part_of_a_resampling_is_the_same_as_the_whole() -> None:
    """Tiles must show what the whole image shows."""
    whole = padded_resampling(101, 37, 101, 37)
    source, weights = resampling(101, 37, np.arange(11, 23))
    np.testing.assert_allclose(whole[11:23, source], weights, atol=1e-7)
    assert np.delete(whole[11:23], np.arange(101)[source], axis=1).sum() == 0


def test_nearest_pixels_cover_the_axis_evenly() -> None:
    """Going there and back by a whole factor gives every pixel its own block."""
    np.testing.assert_array_equal(nearest(3, 6, np.arange(6)), [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(nearest(6, 3, np.arange(3)), [1, 3, 5])
    assert nearest(5, 7, np.arange(40)).max() == 4


def test_labels_are_renumbered_without_gaps_in_their_order() -> None:
    """Rescaling may lose a nucleus; tables count from 1 to n."""
    labels = np.array([[0, 7, 7], [2, 0, 9]])
    np.testing.assert_array_equal(numbered(labels), [[0, 2, 2], [1, 0, 3]])
    assert numbered(np.zeros((2, 3), np.int32)).max() == 0


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_labels_are_renumbered_and_their_areas_counted_as_sets_of_pixels(dtype: type) -> None:
    """Of random labels, which touch in every way and have gaps, in both types that come from the network."""
    random = np.random.default_rng(5)
    labels = (random.integers(0, 60, (37, 41)) * random.integers(0, 2, (37, 41))).astype(dtype)
    labels[labels == 7] = 8
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    found = numbered(labels)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0))
    counted = nuclei_areas(labels)
    np.testing.assert_array_equal(counted[ids - 1], areas)
    assert (counted.size, counted.sum()) == (ids[-1], areas.sum())


def test_pieces_of_a_plain_mask_are_counted_apart() -> None:
    """As of a semantic model, whose nuclei all have label 1."""
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 1]], np.int32)
    assert sorted(nuclei_areas(mask)) == [2, 2]
    assert nuclei_areas(np.zeros((0, 3), np.int32)).size == 0
