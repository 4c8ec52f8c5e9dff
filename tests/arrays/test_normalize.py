from __future__ import annotations

import numpy as np
import pytest

from nucseg_batch.arrays.normalize import LIMIT, apply_range, luminance, percentile_range


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_percentiles_are_the_same_for_every_type_of_the_same_values(dtype: type) -> None:
    """Integers are counted, floats are partitioned; a file's type must not change its mask."""
    values = np.random.default_rng(5).integers(0, 251, (71, 53)).astype(dtype)
    expected = np.percentile(values.astype(float), [1, 99.8], method="inverted_cdf")
    assert percentile_range(values) == pytest.approx(tuple(expected))


def test_eight_and_sixteen_bit_versions_of_an_image_normalise_alike() -> None:
    """Exposure and bit depth are the camera's, not the nuclei's."""
    eight = np.random.default_rng(6).integers(3, 200, (31, 67)).astype(np.uint8)
    sixteen = eight.astype(np.uint16) * 257
    first = apply_range(eight, *percentile_range(eight))
    second = apply_range(sixteen, *percentile_range(sixteen))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_few_bright_pixels_on_a_constant_ground_still_set_the_range() -> None:
    """A field with one small nucleus has equal percentiles; dividing by their difference would be by zero."""
    pixels = np.full((100, 101), 7, np.uint16)
    pixels[50, 50:55] = 900
    assert percentile_range(pixels) == (7, 900)


def test_a_constant_image_is_normalised_to_zero() -> None:
    """All-black and saturated images must not become NaN."""
    pixels = np.full((9, 11), 255, np.uint8)
    low, high = percentile_range(pixels)
    assert (apply_range(pixels, low, high) == 0).all()


def test_a_hot_pixel_is_cut() -> None:
    """One dead sensor pixel must not decide what the network sees."""
    pixels = np.arange(10_000, dtype=np.uint16).reshape(100, 100) % 200
    pixels[3, 4] = 65_535
    assert apply_range(pixels, *percentile_range(pixels)).max() == LIMIT


def test_luminance_of_grey_colour_is_the_grey_value() -> None:
    """An RGB export of a grey image must measure as the grey image does."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(luminance(np.repeat(grey[..., None], 3, axis=2)), grey, rtol=1e-6)
