"""Medians of what lies in parts of a plane, and intensities above them."""

from __future__ import annotations

import numpy as np
import pytest

from nucseg_batch.arrays.background import MedianParts, ValueCounts, background_columns

RANDOM = np.random.default_rng(12)
VALUES: dict[str, np.ndarray] = {
    "uint8": RANDOM.integers(0, 256, 1001).astype(np.uint8),
    "uint16": RANDOM.integers(0, 65536, 1000).astype(np.uint16),
    "int16": RANDOM.integers(-32768, 32768, 1000).astype(np.int16),
    "few": np.array([7, 7, 9, 11], np.uint16),
    "one": np.array([65535], np.uint16),
}
REAL: dict[str, np.ndarray] = {
    "float32": RANDOM.normal(300, 40, 1000).astype(np.float32),
    "about 0": RANDOM.normal(0, 1, 1001).astype(np.float32),
    "negative": -RANDOM.uniform(1e-20, 1e20, 100).astype(np.float32),
    "int32": RANDOM.integers(-(2**31), 2**31, 1000).astype(np.int32),
    "float64": RANDOM.normal(300, 40, 11),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_median_of_whole_numbers_is_exact_however_they_are_divided(name: str) -> None:
    values = VALUES[name]
    assert ValueCounts.of(values).median == np.median(values)
    parts = [ValueCounts.of(part) for part in np.array_split(values, 3)]
    assert ValueCounts.merged(parts).median == np.median(values)
    assert ValueCounts.merged(parts[::-1]).median == np.median(values)


@pytest.mark.parametrize("name", REAL)
def test_the_median_of_other_numbers_is_rounded_and_the_same_however_they_are_divided(name: str) -> None:
    values = REAL[name]
    found = ValueCounts.of(values).median
    middle = np.sort(values)[[(values.size - 1) // 2, values.size // 2]].astype(float)
    assert abs(found - middle.mean()) <= np.abs(middle).max() * 2**-16
    assert ValueCounts.merged([ValueCounts.of(part) for part in np.array_split(values, 7)]).median == found


def test_nothing_has_no_median_and_nan_is_no_value() -> None:
    assert np.isnan(ValueCounts.of(np.zeros(0, np.uint16)).median)
    assert np.isnan(ValueCounts.of(np.array([np.nan], np.float32)).median)
    assert ValueCounts.of(np.array([np.nan, 2, 2, np.nan], np.float32)).median == 2
    empty = ValueCounts.of(np.zeros(0, np.uint8))
    assert ValueCounts.merged([empty, ValueCounts.of(np.array([3], np.uint8)), empty]).median == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_medians_of_labels_are_those_of_numpy_whole_or_in_parts(dtype: type) -> None:
    """Labels lie in one part, in two or in all; one has no pixels."""
    labels = RANDOM.integers(0, 6, (41, 53)).astype(np.int32)
    labels[labels == 4] = 0
    labels[:, 30:][labels[:, 30:] == 5] = 1
    channels = {"": RANDOM.integers(0, 250, labels.shape).astype(dtype)}
    channels["GFP"] = (channels[""] * 3 % 251).astype(dtype)
    ids = np.arange(1, 6)
    whole = MedianParts(np.zeros(6, np.int64))
    whole.add(0, labels, channels)
    parts = MedianParts(np.array([0, 2, 2, 2, 0, 1]))
    for number, columns in enumerate((slice(0, 17), slice(17, 30), slice(30, 53))):
        parts.add(number, labels[:, columns], {name: plane[:, columns] for name, plane in channels.items()})
    for name, plane in channels.items():
        expected = [np.median(plane[labels == one]) if (labels == one).any() else np.nan for one in ids]
        np.testing.assert_array_equal(whole.medians(ids)[name], expected)
        np.testing.assert_array_equal(parts.medians(ids)[name], expected)


def test_values_are_kept_no_longer_than_more_can_come() -> None:
    labels = np.array([[1, 1, 2, 2, 3]])
    plane = {"": np.arange(5.0)[None]}
    parts = MedianParts(np.array([0, 0, 1, 3]))
    for number, kept in enumerate(([2, 2, 3], [3, 3], [3, 3, 3], [])):
        parts.add(number, labels if number == 0 else np.where(labels == 3, 3, 0), plane)
        assert parts._ids.tolist() == kept


def test_means_and_sums_are_above_the_level() -> None:
    measures = {
        "area": np.array([4, 5]),
        "intensity_mean": np.array([10.0, 20.0]),
        "intensity_mean-GFP": np.array([1.0, 2.0]),
    }
    found = background_columns(measures, {"": np.array([3.0, 3.0]), "GFP": np.array([2.0, np.nan])}, "ring_")
    assert {name: column.tolist() for name, column in found.items() if not np.isnan(column).any()} == {
        "ring_corrected_intensity_mean": [7.0, 17.0],
        "ring_corrected_intensity_sum": [28.0, 85.0],
    }
    assert found["ring_corrected_intensity_sum-GFP"][0] == -4
    assert np.isnan(found["ring_corrected_intensity_mean-GFP"][1])
