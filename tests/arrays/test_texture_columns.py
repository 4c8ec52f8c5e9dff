from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_nuclei import annotated_images, made_nuclei
from skimage.feature import graycomatrix, graycoprops

from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.texture_columns import LEVELS, TEXTURES, texture_columns


def expected_of(labels: np.ndarray, plane: np.ndarray, label: int) -> dict[str, float]:
    """By scikit-image: 0 is what is not of the nucleus, and its row and column of the matrix are taken out."""
    inside = labels == label
    values = plane[inside].astype(np.float64)
    shown = np.zeros(labels.shape, np.uint8)
    span = values.max() - values.min()
    shown[inside] = 1 + np.minimum((values - values.min()) * LEVELS / (span if span else 1), LEVELS - 1).astype(int)
    y, x = np.nonzero(inside)
    crop = shown[y.min() : y.max() + 1, x.min() : x.max() + 1]
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    matrix = graycomatrix(crop, [1], angles, LEVELS + 1, symmetric=True)[1:, 1:].astype(np.float64)
    matrix = matrix[..., matrix.sum(axis=(0, 1, 2)) > 0]
    if not matrix.size:
        return dict.fromkeys(TEXTURES, np.nan)
    matrix /= matrix.sum(axis=(0, 1), keepdims=True)
    return {name: graycoprops(matrix, {"asm": "ASM"}.get(name, name)).mean() for name in TEXTURES}


def assert_like_scikit_image(labels: np.ndarray, plane: np.ndarray) -> None:
    groups = Groups.of(labels)
    found = texture_columns(groups, {"": plane})
    assert tuple(found) == tuple(f"texture_{name}" for name in TEXTURES)
    for place, label in enumerate(groups.ids.tolist()):
        for name, value in expected_of(labels, plane, label).items():
            assert found[f"texture_{name}"][place] == pytest.approx(value, rel=1e-11, abs=1e-12, nan_ok=True), (
                label,
                name,
            )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_textures_are_those_of_scikit_image(dtype: type) -> None:
    """Of nuclei that touch, and that end where the image does: a pair never has a pixel of another nucleus."""
    labels = made_nuclei((71, 97), 19, seed=2)
    smooth = np.cumsum(np.random.default_rng(3).normal(0, 9, labels.shape), axis=1)
    assert_like_scikit_image(labels, (smooth - smooth.min()).clip(0, 250).astype(dtype))
    assert_like_scikit_image(labels, np.random.default_rng(4).integers(0, 100, labels.shape).astype(dtype))


@pytest.mark.real_data
def test_textures_of_annotated_images_are_those_of_scikit_image(shared: Path) -> None:
    for labels, plane in annotated_images(shared, 3):
        assert_like_scikit_image(labels, plane)


def test_a_nucleus_of_one_value_is_uniform_and_one_of_a_pixel_has_no_texture() -> None:
    labels = np.zeros((9, 11), np.int32)
    labels[2:5, 3:8], labels[7, 1], labels[7, 4:7] = 3, 5, 9
    plane = np.full(labels.shape, 7.0)
    plane[7, 4] = 9
    found = texture_columns(Groups.of(labels, np.array([3, 4, 5, 9])), {"a": plane})
    for name, uniform in zip(TEXTURES, (0, 0, 1, 1, 1, 1), strict=True):
        column = found[f"texture_{name}-a"]
        assert column[0] == uniform
        assert np.isnan(column[1:3]).all()
        assert column[3] == pytest.approx(expected_of(labels, plane, 9)[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_spoils_its_nucleus_alone(value: float) -> None:
    labels = made_nuclei((61, 83), 12, seed=5)
    plane = np.random.default_rng(6).random(labels.shape)
    spoilt = plane.copy()
    groups = Groups.of(labels)
    spoilt.flat[groups.place[groups.first[4] + 3]] = value
    expected = texture_columns(groups, {"": plane})
    for name, column in texture_columns(groups, {"": spoilt}).items():
        assert np.isnan(column[4])
        np.testing.assert_array_equal(np.delete(column, 4), np.delete(expected[name], 4))


def test_a_tile_gives_the_bits_of_the_plane_and_an_empty_plane_has_no_rows() -> None:
    labels = made_nuclei((151, 163), 40, seed=7)
    plane = np.random.default_rng(8).integers(0, 5000, labels.shape).astype(np.uint16)
    groups = Groups.of(labels)
    part = (slice(30, 120), slice(40, 130))
    tile = Groups.of(labels[part])
    whole = [label for label, count in zip(tile.ids, tile.count, strict=True) if count == np.sum(labels == label)]
    assert len(whole) > 5
    for name, column in texture_columns(groups, {"": plane}).items():
        of_tile = texture_columns(tile, {"": plane[part]})[name]
        np.testing.assert_array_equal(
            of_tile[np.searchsorted(tile.ids, whole)], column[np.searchsorted(groups.ids, whole)], err_msg=name
        )
    for column in texture_columns(Groups.of(labels * 0), {"": plane}).values():
        assert column.shape == (0,)
    with pytest.raises(ValueError, match="channel a is"):
        texture_columns(groups, {"a": plane[1:]})
