"""Views of annotated images, beside the same by scipy.ndimage, which goes over an image once for each plane."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import disks
from scipy import ndimage

from nucseg_batch.training.data import Sample
from nucseg_batch.training.stain import smooth_field
from nucseg_batch.training.targets import centres_and_areas
from nucseg_batch.training.warp import view_of

LABELS = disks((61, 83), [(10, 12), (30, 40), (50, 70), (20, 66)], 8)


def sample_of(colour: bool) -> Sample:
    """Noise with nuclei, one corner of which is not annotated."""
    shape = (*LABELS.shape, 3) if colour else LABELS.shape
    image = np.random.default_rng(0).random(shape, np.float32)
    labels = LABELS.copy()
    labels[:9, -11:] = -1
    return Sample("a", "fluorescence", image, image, labels, *centres_and_areas(LABELS))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("magnification", [0.31, 0.79, 1.0, 2.7])
@pytest.mark.parametrize("angle", [0.0, math.pi / 2, 0.7])
def test_a_view_is_what_an_affine_transform_shows(colour: bool, magnification: float, angle: float) -> None:
    """Inside the image and beyond it, where pixels are mirrored and labels are -1."""
    sample, size = sample_of(colour), 48
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn / magnification
    offset = np.array([33.3, 47.9]) - matrix @ np.full(2, (size - 1) / 2)
    view = view_of(sample, matrix, offset, size, magnification)
    assert (view.image.dtype, view.labels.dtype, view.cover.dtype) == (np.float32, np.int32, np.float32)
    planes = np.moveaxis(sample.image, 2, 0) if colour else sample.image[None]
    expected = [by_scipy(plane, matrix, offset, size, magnification) for plane in planes]
    np.testing.assert_allclose(view.image, np.stack(expected, axis=-1), atol=1e-5)
    inside = (sample.labels > 0).astype(np.float32)
    np.testing.assert_allclose(view.cover, by_scipy(inside, matrix, offset, size, magnification), atol=1e-5)
    nearest = {"order": 0, "mode": "constant", "cval": -1, "output": np.int32}
    labels = ndimage.affine_transform(sample.labels, matrix, offset, (size, size), **nearest)
    assert (view.labels != labels).mean() < 0.002, "where a place is as near to two pixels, either is right"


def test_a_view_far_outside_the_image_is_mirrored_again_and_again() -> None:
    """A crop may be several times as large as its image."""
    sample = sample_of(False)
    view = view_of(sample, np.eye(2), np.array([-150.0, -200.0]), 400, 1.0)
    tiled = np.pad(sample.image, ((150, 400 - 150 - 61), (200, 400 - 200 - 83)), mode="symmetric")
    np.testing.assert_allclose(view.image[..., 0], tiled, atol=1e-6)
    assert (view.labels[150:211, 200:283] == sample.labels).all()
    assert (view.labels == -1).sum() == 400 * 400 - LABELS.size + 99


def test_uneven_light_is_a_cubic_spline_of_few_values() -> None:
    """Made from weights that are kept, as zooming each time would make it."""
    coarse = np.random.default_rng(3).standard_normal((4, 4))
    field = ndimage.zoom(coarse, 97 / 4, order=3, mode="nearest", grid_mode=True)
    field = (field - field.mean()) / field.std()
    np.testing.assert_allclose(smooth_field(97, np.random.default_rng(3))[..., 0], field, atol=1e-5)


def by_scipy(
    plane: NDArray[np.float32], matrix: NDArray[np.float64], offset: NDArray[np.float64], size: int, zoom: float
) -> NDArray[np.float32]:
    """The same of one plane, blurred as a whole where it is made smaller."""
    if zoom < 0.8:
        plane = ndimage.gaussian_filter(plane, 0.4 / zoom)
    return np.asarray(ndimage.affine_transform(plane, matrix, offset, (size, size), order=1, mode="reflect"))
