"""Sections of nuclei are joined to what the truth says, on simulated stacks and on each case that the rules are for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from stacks import average_precision, ellipsoids, f1, linked, packed, segmented

from nucseg_batch.arrays import volumes
from nucseg_batch.arrays.label_overlaps import LabelRuns, Overlaps, overlaps, summed
from nucseg_batch.arrays.volume_sums import BOX, CENTRE, VolumeSums
from nucseg_batch.arrays.volumes import VolumeLinker


def section(shape: tuple[int, int], *squares: tuple[int, int, int]) -> NDArray[np.uint32]:
    """Squares (row, column, side) labelled 1..n in their order."""
    plane = np.zeros(shape, np.uint32)
    for label, (row, column, side) in enumerate(squares, start=1):
        plane[row : row + side, column : column + side] = label
    return plane


def column(*sides: int) -> NDArray[np.uint32]:
    """A stack with one square in each slice, around one centre; 0 for none."""
    return np.stack([section((41, 43), *([(20 - side // 2, 21 - side // 2, side)] if side else [])) for side in sides])


def ids(stack: NDArray[np.uint32]) -> list[list[int]]:
    """Volumes of the labels 1..n of each slice."""
    found = linked(stack)
    return [
        [int(one[plane == label][0]) for label in range(1, plane.max() + 1)]
        for one, plane in zip(found, stack, strict=True)
    ]


@pytest.mark.parametrize("shape", [(23, 31), (1, 7), (5, 1)])
def test_overlaps_are_those_of_pixels(shape: tuple[int, int]) -> None:
    """Counted over runs, whole and added up over tiles."""
    rng = np.random.default_rng(3)
    first, second = (rng.integers(0, 4, shape).astype(np.uint32) * (rng.random(shape) < 0.8) for _ in range(2))
    pairs = [(a, b) for a, b in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True) if a and b]
    expected = sorted({(*pair, pairs.count(pair)) for pair in pairs})
    tiles = [(slice(a, a + 7), slice(b, b + 11)) for a in range(0, shape[0], 7) for b in range(0, shape[1], 11)]
    parts = [overlaps(LabelRuns.of(first[tile]), LabelRuns.of(second[tile])) for tile in tiles]
    for found in (overlaps(LabelRuns.of(first), LabelRuns.of(second)), summed(parts)):
        assert list(zip(found.first.tolist(), found.second.tolist(), found.pixels.tolist(), strict=True)) == expected


@pytest.mark.parametrize("anisotropy", [1, 2, 4, 6])
def test_touching_nuclei_of_sixty_slices_are_found(anisotropy: int) -> None:
    """F1 of volumes at an IoU of 0.5, where slices are segmented at an AP of about 0.9."""
    truth = packed((60, 110, 120), 28 * anisotropy, 13, anisotropy=anisotropy, seed=anisotropy)
    slices = segmented(truth, errors=0.007, seed=3)
    assert average_precision(slices, truth) > 0.89
    assert f1(linked(slices), truth) >= 0.9


def test_labels_are_dense_and_in_the_order_of_slices_and_labels() -> None:
    """So that they depend on nothing but the masks."""
    slices = segmented(packed((19, 70, 80), 20, 11, seed=2), errors=0.02, seed=5)
    found = linked(slices)
    firsts = [
        min((z, int(plane[found[z] == label].min())) for z, plane in enumerate(slices) if (found[z] == label).any())
        for label in range(1, found.max() + 1)
    ]
    assert firsts == sorted(firsts)
    assert np.array_equal(found > 0, slices > 0)


def test_a_section_that_shrinks_fast_belongs_to_its_nucleus() -> None:
    """Near a pole the IoU is low, but the small section lies in the large one."""
    assert ids(column(4, 20, 24, 20, 4)) == [[1]] * 5


def test_sections_that_hardly_overlap_are_two_nuclei() -> None:
    """Neither by IoU nor by containment."""
    assert ids(np.stack([section((30, 31), (5, 5, 10)), section((30, 31), (10, 11, 10))])) == [[1], [2]]


def test_a_slice_without_the_nucleus_is_bridged_and_two_are_not() -> None:
    """Labels on both sides are one nucleus, which has no pixels between."""
    assert ids(column(20, 22, 0, 21, 19)) == [[1], [1], [], [1], [1]]
    assert ids(column(20, 22, 0, 0, 21, 19)) == [[1], [1], [], [], [2], [2]]


@pytest.mark.parametrize(
    "sides", [(14, 20, 22, 14, 10, 14, 22, 20), (20, 22, 14, 0, 14, 20, 22), (14, 20, 14, 4, 4, 14, 20, 14)]
)
def test_nuclei_on_top_of_each_other_are_split_at_the_neck(sides: tuple[int, ...]) -> None:
    """With or without a slice between them."""
    found = [one[0] for one in ids(column(*sides)) if one]
    assert found == sorted(found)
    assert set(found) == {1, 2}


def test_three_nuclei_on_top_of_each_other_are_split_twice() -> None:
    """At the narrowest neck first."""
    found = [one[0] for one in ids(column(14, 22, 22, 14, 8, 14, 22, 22, 14, 9, 14, 22, 22, 14))]
    assert (found[0], found[6], found[-1], len(set(found))) == (1, 2, 3, 3)


def test_one_section_that_is_too_small_splits_nothing() -> None:
    """The sections around it overlap too well for two nuclei."""
    assert ids(column(18, 20, 21, 10, 21, 20, 18)) == [[1]] * 7


def test_two_nuclei_that_are_merged_in_one_slice_stay_two() -> None:
    """The merged section belongs to one of them, and the other has a gap; neither takes the other's place."""
    apart, merged = section((30, 51), (8, 5, 14), (8, 19, 16)), section((30, 51), (8, 5, 14), (8, 19, 16))
    merged[merged == 2] = 1
    swapped = np.where(apart > 0, 3 - apart, 0).astype(np.uint32)
    found = ids(np.stack([apart, apart, merged, swapped, swapped]))
    assert (found[0], found[1], found[3], found[4]) == ([1, 2], [1, 2], [2, 1], [2, 1])


def test_a_nucleus_that_is_cut_in_one_slice_stays_one() -> None:
    """Both halves lie in it in the slices before and after."""
    whole = section((30, 31), (5, 5, 16))
    cut = whole.copy()
    cut[5:21, 14:21] = 2
    assert ids(np.stack([whole, whole, cut, whole])) == [[1], [1], [1, 1], [1]]


def test_a_small_nucleus_beside_a_large_one_is_no_fragment() -> None:
    """It does not lie in the large one in other slices."""
    large, both = section((30, 41), (5, 5, 16)), section((30, 41), (5, 5, 16), (8, 22, 6))
    assert ids(np.stack([large, both, large])) == [[1], [1, 2], [1]]


def test_stacks_without_nuclei_have_no_volumes() -> None:
    """Nor do those without slices."""
    nothing = np.zeros(0, np.int64)
    none = Overlaps(nothing, nothing, nothing)
    linker = VolumeLinker()
    assert linker.ids() == []
    for near, far in ((None, None), (none, None), (none, none)):
        linker.add(nothing, near, far)
    assert [one.tolist() for one in linker.ids()] == [[0]] * 3


def test_nuclei_that_touch_along_z_and_have_three_slices_each_are_joined() -> None:
    """A limit that the documentation names: so few slices leave no neck between them."""
    truth = ellipsoids((6, 41, 43), [(1, 20, 21), (4, 20, 21)], [(2, 12, 12)] * 2)
    assert np.unique(linked(truth)).tolist() == [0, 1]
    assert np.unique(linked(truth[[0, 1, 1, 2, 3, 4, 4, 5]])).tolist() == [0, 1]


@pytest.mark.parametrize("least", [1, 100])
def test_chains_that_ended_are_resolved_while_slices_come(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """With the volumes of all chains at once; some slices have no nuclei."""
    slices = segmented(packed((31, 83, 89), 40, 11, anisotropy=2, closeness=0.85, seed=5), errors=0.03, seed=5)
    slices[[7, 13, 14, 15]] = 0
    whole = linked(slices)
    monkeypatch.setattr(volumes, "LEAST", least)
    assert np.array_equal(linked(slices), whole)
    assert whole.max() > 40


def test_sums_are_given_once_and_in_order() -> None:
    """Of volumes that have ended, up to the first that goes on; the rest at the end."""
    names = ("area", "confidence", *BOX, *CENTRE, *(f"intensity_{one}" for one in ("mean", "min", "max", "std")))
    rng = np.random.default_rng(2)
    slices = [np.array(ids) for ids in ([1, 2], [2, 3, 4], [2, 5], [5], [6], [6])]
    sections = [{name: rng.uniform(1, 9, ids.size).round() for name in names} for ids in slices]
    whole, parts, given = VolumeSums(), VolumeSums(), list[dict[str, np.ndarray]]()
    for z, (ids, own) in enumerate(zip(slices, sections, strict=True)):
        whole.add(z, ids, own)
        parts.add(z, ids, own)
        given.append(parts.finished(z - 1))
    given.append(parts.finished())
    assert [one["label"].tolist() for one in given] == [[], [], [1], [], [2, 3, 4], [5], [6]]
    for name, values in whole.finished().items():
        assert np.array_equal(np.concatenate([one[name] for one in given]), values), name
    assert whole.count == parts.count == 6
