"""Compiled loops of training, beside scipy's functions of the same meaning."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nucseg_batch.arrays.kernels.views import blurred, in_three_channels, renumber, sample_linear


@pytest.mark.parametrize("shape", [(31, 17), (31, 17, 1), (13, 29, 3), (1, 5)])
@pytest.mark.parametrize("sigma", [0.3, 0.7, 2.9, 30.0])
def test_a_blur_is_scipys_gaussian(shape: tuple[int, ...], sigma: float) -> None:
    """Also where the Gaussian is wider than the image, which is then mirrored several times."""
    image = np.random.default_rng(1).random(shape, np.float32)
    expected = ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim])
    found = blurred(image, sigma)
    assert (found.shape, found.dtype) == (shape, np.float32)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_blur_of_a_mask_or_of_a_part_of_an_image_is_one_of_its_numbers() -> None:
    """Whatever the dtype and the order in memory."""
    mask = np.random.default_rng(2).random((19, 23)) > 0.5
    np.testing.assert_allclose(blurred(mask[3:, ::2], 1.1), blurred(mask[3:, ::2].astype(np.float32), 1.1))


@pytest.mark.parametrize("size", [7, 29, 64])
def test_another_size_is_scipys_linear_zoom(size: int) -> None:
    """A view of the whole image between the middles of its pixels, smaller or larger."""
    image = np.random.default_rng(3).random((29, 29, 3), np.float32)
    step = 29 / size
    found = sample_linear(image, np.eye(2) * step, np.full(2, (step - 1) / 2), size)
    expected = ndimage.zoom(image, (size / 29, size / 29, 1), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_labels_are_numbered_as_they_are_met() -> None:
    """With what a table says of them; what has no room is not annotated."""
    labels = np.array([[0, 5, 5, -1], [9, 0, 2, 5], [2, 7, 7, 9]], np.int32)
    table = np.arange(30, dtype=np.float32).reshape(10, 3)
    found, rows = renumber(labels, table, 3)
    np.testing.assert_array_equal(found, [[0, 1, 1, -1], [2, 0, 3, 1], [3, -1, -1, 2]])
    np.testing.assert_array_equal(rows, [[0, 0, 0], *table[[5, 9, 2]]])
    assert (found.dtype, rows.dtype) == (np.int16, np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_cut_and_rounded_to_steps(channels: int) -> None:
    """Grey becomes three equal channels."""
    image = np.random.default_rng(4).uniform(-0.5, 2.5, (5, 7, channels)).astype(np.float32)
    found = in_three_channels(image, np.float32(2 / 32767), np.float32(2))
    assert (found.shape, found.dtype, found.min(), found.max()) == ((5, 7, 3), np.int16, 0, 32767)
    assert np.abs(found * (2 / 32767) - image.clip(0, 2)).max() <= 1.01 / 32767
