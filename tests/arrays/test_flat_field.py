"""The flat field that is estimated from images, against the one that they were made with."""

from __future__ import annotations

import numpy as np
import pytest
from illumination import plate, vignette

from nucseg_batch.arrays.flat_field import cell_values, estimate_flat_field

SHAPE = (119, 163)


def estimate(images: list[np.ndarray]) -> np.ndarray:
    field = estimate_flat_field([cell_values(image) for image in images], SHAPE)
    assert field is not None
    return field


def error(field: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square of the relative error."""
    return float(np.sqrt(np.mean(np.square(field / truth - 1))))


@pytest.mark.parametrize("count", [16, 40])
def test_an_uneven_illumination_is_found_behind_nuclei(count: int) -> None:
    """Without a correction the error is that of a field of 1; the centre of the light is not that of the image."""
    truth = vignette(SHAPE)
    field = estimate(plate(count, truth, seed=5))
    assert (field.shape, field.dtype, float(field.mean(dtype=np.float64))) == (SHAPE, np.float32, pytest.approx(1))
    assert error(np.ones(SHAPE), truth) > 0.1
    assert error(field, truth) < 0.02


def test_even_images_get_an_even_field() -> None:
    field = estimate(plate(24, np.ones(SHAPE), seed=6))
    assert np.abs(field - 1).max() < 0.02


def test_an_image_full_of_dirt_and_a_bright_corner_of_another_change_little() -> None:
    truth = vignette(SHAPE)
    images = plate(30, truth, seed=7)
    clean = estimate(images)
    images[4] = np.random.default_rng(1).integers(0, 60000, SHAPE).astype(np.uint16)
    images[9][:60, :80] = 60000
    assert error(estimate(images), clean) < 0.01


def test_values_of_another_exposure_give_the_same_field() -> None:
    """The model has a brightness for each image."""
    images = [image.astype(np.float32) for image in plate(12, vignette(SHAPE), seed=8)]
    brighter = [image * (1 + number) for number, image in enumerate(images)]
    np.testing.assert_allclose(estimate(brighter), estimate(images), rtol=1e-4)


def test_images_without_light_in_the_background_give_no_field() -> None:
    dark = np.zeros(SHAPE, np.uint8)
    dark[20:30, 40:52] = 200
    assert estimate_flat_field([cell_values(dark)] * 9, SHAPE) is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 5), (31, 17)])
def test_small_and_narrow_images_have_fields_of_their_shape(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    field = estimate_flat_field([cell_values(random.integers(90, 110, shape)) for _ in range(8)], shape)
    assert field is not None
    assert field.shape == shape
    assert np.abs(field - 1).max() < 0.15


def test_a_cell_is_the_mean_of_the_middle_half_of_its_values() -> None:
    """Few bright pixels in it do not count."""
    plane = np.full((48, 72), 100, np.uint16)
    plane[::5, ::7] = 5000
    cells = cell_values(plane)
    assert cells.shape == (16, 24)
    assert set(cells.ravel().tolist()) == {100.0}
