from __future__ import annotations

import numpy as np
import pytest
from real_nuclei import made_nuclei

from nucseg_batch.arrays.compartment_sums import CompartmentSums, measured_compartments
from nucseg_batch.arrays.compartments import expanded, rings
from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import intensity_columns
from nucseg_batch.columns import channel_columns, compartment_columns, names

LABELS = made_nuclei((121, 173), 40, seed=4)
IDS = np.unique(LABELS)[1:].astype(np.int64)
rng = np.random.default_rng(5)
CHANNELS: dict[str, np.ndarray] = {
    "": rng.integers(0, 2**16, LABELS.shape).astype(np.uint16),
    "GFP": rng.normal(1e6, 3, LABELS.shape).astype(np.float32),
}


def reference(compartment: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    groups = Groups.of(compartment, IDS)
    table = intensity_columns(groups, CHANNELS, f"{prefix}_", ())
    return {f"{prefix}_area": groups.count} | {name: c for name, c in table.items() if "median" not in name}


def parts(compartment: np.ndarray, cut: tuple[int, int]) -> list[CompartmentSums]:
    """Of four windows, in no order."""
    windows = [(rows, columns) for rows in split(cut[0]) for columns in split(cut[1])]
    return [CompartmentSums.of(compartment[w], {n: p[w] for n, p in CHANNELS.items()}) for w in windows[::-1]]


def split(place: int) -> tuple[slice, slice]:
    return slice(None, place), slice(place, None)


@pytest.mark.parametrize("cut", [(60, 80), (1, 172), (0, 90)], ids=str)
def test_sums_of_parts_are_those_of_the_plane_and_of_sorted_pixels(cut: tuple[int, int]) -> None:
    """The values of GFP are far from 0 and alike: the sum of their squares alone would lose their deviation."""
    for prefix, compartment in (("ring", rings(LABELS, 1, 5)), ("cell", expanded(LABELS, 7))):
        whole = CompartmentSums.of(compartment, CHANNELS).columns(IDS, prefix)
        merged = CompartmentSums.merged(parts(compartment, cut)).columns(IDS, prefix)
        expected = reference(compartment, prefix)
        assert set(whole) == set(merged) == set(expected)
        for name, column in expected.items():
            np.testing.assert_allclose(whole[name], column, rtol=1e-9, err_msg=name)
            np.testing.assert_allclose(merged[name], column, rtol=1e-9, err_msg=name)
            assert whole[name].dtype == column.dtype


def test_a_nucleus_without_a_compartment_has_no_pixels_and_no_mean() -> None:
    """Whether the label does not occur, was asked for, or has a higher number than all that occur."""
    compartment = np.array([[0, 3, 3, 5]])
    plane = {"": np.array([[9, 1, 3, 7]], np.uint8)}
    for asked in (None, np.array([1, 3, 5, 8])):
        sums = CompartmentSums.of(compartment, plane, asked)
        for one in (
            sums,
            CompartmentSums.merged([sums]),
            CompartmentSums.merged([sums, CompartmentSums.of(compartment * 0, plane)]),
        ):
            found = one.columns(np.array([8, 3, 1, 5]), "ring")
            assert found["ring_area"].tolist() == [0, 2, 0, 1]
            assert found["ring_intensity_sum"].tolist() == [0, 4, 0, 7]
            for name, values in (("mean", [2, 7]), ("std", [1, 0]), ("min", [1, 7]), ("max", [3, 7])):
                np.testing.assert_array_equal(found[f"ring_intensity_{name}"], [np.nan, values[0], np.nan, values[1]])


def test_the_columns_are_those_of_the_records_with_the_ratio_of_each_channel() -> None:
    nuclei = intensity_columns(Groups.of(LABELS), CHANNELS)
    sums = {
        "ring": CompartmentSums.of(rings(LABELS, 1, 5), CHANNELS),
        "cell": CompartmentSums.of(expanded(LABELS, 7), CHANNELS),
    }
    found = measured_compartments({"label": IDS, **nuclei}, sums)
    records = compartment_columns(ring=True, cell=True)
    assert set(found) == set(names((*records, *channel_columns(["GFP"], records))))
    for suffix in ("", "-GFP"):
        expected = nuclei[f"intensity_mean{suffix}"] / found[f"ring_intensity_mean{suffix}"]
        np.testing.assert_array_equal(found[f"intensity_ratio{suffix}"], expected)
    only = measured_compartments({"label": IDS}, {"cell": sums["cell"]})
    assert tuple(only) == names(
        (
            *compartment_columns(ring=False, cell=True),
            *channel_columns(["GFP"], compartment_columns(ring=False, cell=True)),
        )
    )


def test_a_pixel_that_is_not_a_number_makes_its_compartment_none() -> None:
    plane = np.array([[1, np.nan, 3, 4]])
    one, other = (CompartmentSums.of(np.array([[1, 1, 2, 1]])[:, w], {"": plane[:, w]}) for w in split(2))
    found = CompartmentSums.merged([one, other]).columns(np.array([1, 2]), "cell")
    assert found.pop("cell_area").tolist() == [3, 1]
    for name, column in found.items():
        assert np.isnan(column[0]), name
        assert not np.isnan(column[1]), name


def test_planes_of_other_sizes_and_parts_with_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channel a is \(3, 5\)"):
        CompartmentSums.of(LABELS, {"a": np.zeros((3, 5))})
    one, other = (CompartmentSums.of(LABELS, {name: LABELS}) for name in "ab")
    with pytest.raises(ValueError, match=r"\('a',\) and \('b',\)"):
        CompartmentSums.merged([one, other])
