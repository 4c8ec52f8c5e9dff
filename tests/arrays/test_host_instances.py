from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from pictures import disks
from scipy import ndimage

from nucseg_batch.arrays import host_instances, instances
from nucseg_batch.arrays.host_instances import NetworkOutput
from nucseg_batch.arrays.kernels import native_grid, separation
from nucseg_batch.arrays.scale import nearest
from nucseg_batch.arrays.separated import SeparatedNuclei

THRESHOLD = 0.45


def heads_of(labels: np.ndarray, seed: int) -> np.ndarray:
    """What a good network might answer: unsure at borders, offsets a little off, some noise outside."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(0, 1.5, (*labels.shape, 3)).astype(np.float32)
    heads[..., 0] += np.where(labels > 0, 3.0, -4.0)
    for label in np.unique(labels[labels > 0]):
        inside = np.argwhere(labels == label)
        heads[labels == label, 1:] += inside.mean(axis=0) - inside
    return heads


def folded(heads: np.ndarray, block: int, unit: float) -> np.ndarray:
    """The same as a network of blocks answers it, with offsets in units."""
    height, width, outputs = heads.shape
    scaled = heads / np.array([1, unit, unit], np.float32)[:outputs]
    blocks = scaled.reshape(height // block, block, width // block, block, outputs).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(height // block, width // block, -1))


def crowded(height: int, width: int, radius: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    count = height * width // (5 * radius**2) + 1
    return disks((height, width), [(int(y), int(x)) for y, x in rng.integers(0, (height, width), (count, 2))], radius)


def both(
    heads: np.ndarray,
    real: tuple[int, int],
    block: int = 1,
    unit: float = 1.0,
    threshold: float = THRESHOLD,
    **options: int,
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], SeparatedNuclei]:
    """Labels, roots and support by the device's program and by its twin."""
    options = {"min_area": 12, **options}
    foreground, offsets = heads[None, ..., 0], heads[None, ..., 1:]
    sizes = [np.array([length], np.int32) for length in real]
    labels, roots, support = instances.separate_rooted(foreground, offsets, *sizes, threshold=threshold, **options)
    answers = folded(heads, block, unit)
    answer = NetworkOutput(answers, np.asarray(ops.sigmoid(heads[..., 0])), block, unit, heads.shape[2])
    twin = host_instances.separate(answer, *real, threshold=threshold, **options)
    return (np.asarray(labels)[0], np.argwhere(np.asarray(roots)[0]), np.asarray(support)[0]), twin


def assert_same(found: SeparatedNuclei, expected: SeparatedNuclei | tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Labels, roots and support are equal."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("shape", "real", "radius"),
    [
        ((64, 96), (64, 96), 7),
        ((96, 64), (83, 61), 5),
        ((32, 32), (9, 32), 4),
        ((97, 131), (89, 127), 6),  # sides that no block divides
        ((23, 7), (23, 7), 3),  # smaller than a block's margin
        ((512, 800), (512, 797), 9),  # in blocks, whose margins must hold all that decides a place
        ((800, 288), (800, 288), 40),
    ],
)
@pytest.mark.parametrize(("blur", "window"), [(7, 7), (5, 5), (3, 6)])
def test_the_twin_gives_the_labels_of_the_device_to_the_last_pixel(
    shape: tuple[int, int], real: tuple[int, int], radius: int, blur: int, window: int
) -> None:
    """Masks must not show where they were computed: ids, borders and roots are equal, not only alike."""
    heads = heads_of(crowded(*shape, radius, seed=shape[0]), seed=shape[1])
    expected, twin = both(heads, real, blur=blur, window=window)
    assert expected[0].max() > 0
    assert_same(twin, expected)


@pytest.mark.parametrize(("block", "unit"), [(2, 8.0), (4, 2.0)])
def test_answers_folded_in_blocks_need_not_be_unfolded(block: int, unit: float) -> None:
    """The twin reads pixels where the network left them, with offsets in its units."""
    heads = heads_of(crowded(96, 64, 6, seed=3), seed=4)
    expected, twin = both(heads, (90, 63), block, unit)
    assert_same(twin, expected)


@pytest.mark.parametrize("threshold", [0.0, 0.002, 0.98, 1.0])
@pytest.mark.parametrize("min_area", [0, 1, 60])
def test_extreme_thresholds_and_areas_are_the_same_in_both(threshold: float, min_area: int) -> None:
    """At 0 every pixel votes, many of them with a weight of 0; at 1 none does."""
    heads = heads_of(crowded(61, 83, 5, seed=7), seed=8)
    expected, twin = both(heads, (61, 83), threshold=threshold, min_area=min_area)
    assert (expected[0].max() > 0) == (threshold < 1)
    assert_same(twin, expected)


@pytest.mark.parametrize("spread", [0.0, 0.4, 3.0])
def test_votes_without_any_agreement_are_the_same_in_both(spread: float) -> None:
    """All is foreground and each pixel votes for a place of its own, as of a network that has learnt nothing."""
    heads = np.random.default_rng(9).normal(0, spread, (103, 89, 3)).astype(np.float32)
    heads[..., 0] += 4
    expected, twin = both(heads, (103, 89))
    assert_same(twin, expected)


def test_links_are_followed_equally_far_in_both() -> None:
    """Votes that grow along a long nucleus link each place to the next: more links than are followed."""
    y, x = np.mgrid[:67, :431]
    heads = np.full((67, 431, 3), 9.0, np.float32)
    heads[..., 0] = np.where(np.abs(y - 33) <= x // 13, 9, -9)
    heads[..., 1], heads[..., 2] = 33 - y, 0
    expected, twin = both(heads, (67, 431))
    assert expected[0].max() > 1
    assert_same(twin, expected)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, 3e9, -3e9])
def test_an_offset_that_is_no_place_points_to_the_first_row_or_column(offset: float, axis: int) -> None:
    """A damaged answer gives some label, and never a place outside the image."""
    heads = heads_of(crowded(61, 83, 5, seed=7), seed=8)
    damaged, far = heads.copy(), heads.copy()
    damaged[20:40, 30:60, axis], far[20:40, 30:60, axis] = offset, -500
    certain = np.asarray(ops.sigmoid(heads[..., 0]))
    found, expected = (
        host_instances.separate(NetworkOutput(one, certain), 61, 83, threshold=THRESHOLD, min_area=12)
        for one in (damaged, far)
    )
    assert expected.labels.max() > 0
    assert_same(found, expected)


def test_the_largest_of_offsets_and_the_most_crowded_of_votes_are_the_same_in_both() -> None:
    """Everything at one place, and votes that point far outside: sums are capped and places cut alike."""
    heads = np.zeros((160, 352, 3), np.float32)
    heads[..., 0] = 9.0
    y, x = np.mgrid[:160, :352]
    heads[..., 1], heads[..., 2] = 77 - y, 133 - x
    heads[100:, 200:, 1:] = (5000.0, -4000.0)
    expected, twin = both(heads, (160, 352))
    assert expected[0].max() >= 2
    assert_same(twin, expected)


def test_votes_are_capped_alike_where_their_sums_would_overflow() -> None:
    """More than 4000 certain votes for each of 13 x 13 places, of which a blurred one is the sum."""
    y, x = np.mgrid[:832, :832]
    heads = np.full((832, 832, 3), 9.0, np.float32)
    heads[..., 1], heads[..., 2] = 400 + y % 13 - y, 300 + x % 13 - x
    expected, twin = both(heads, (832, 832))
    assert expected[0].max() == 1
    assert_same(twin, expected)


def test_an_image_without_foreground_has_no_nuclei() -> None:
    """The most frequent image of a large run."""
    heads = np.full((64, 32, 3), -9, np.float32)
    (labels, _, support), (twin, twin_roots, twin_support) = both(heads, (64, 32))
    assert not labels.any()
    assert not twin.any()
    assert not support.any()
    assert not twin_support.any()
    assert twin_roots.shape == (0, 2)


def test_certainty_is_that_of_the_device() -> None:
    """Looks are compared by it, so the last bit may decide which scale an image gets."""
    heads = heads_of(crowded(64, 96, 7, seed=5), seed=6)
    real = [np.array([length], np.int32) for length in (61, 95)]
    expected = instances.certainty(heads[None, ..., 0], *real, threshold=THRESHOLD)
    answer = NetworkOutput(heads, np.asarray(ops.sigmoid(heads[..., 0])))
    assert host_instances.certainty(answer, 61, 95, threshold=THRESHOLD) == float(np.asarray(expected)[0])


def test_the_support_of_a_plain_foreground_is_its_probability_in_both() -> None:
    """A semantic model has no votes that could disagree."""
    heads = heads_of(crowded(64, 96, 7, seed=5), seed=6)[..., :1]
    real = [np.array([length], np.int32) for length in (61, 95)]
    expected = np.asarray(instances.foreground_support(heads[None, ..., 0], *real, threshold=THRESHOLD))[0]
    answer = NetworkOutput(heads, np.asarray(ops.sigmoid(heads[..., 0])), outputs=1)
    twin = host_instances.foreground(answer, 61, 95, threshold=THRESHOLD)
    np.testing.assert_array_equal(twin.support, expected)
    assert twin.support[twin.labels > 0].min() >= round(THRESHOLD * 255)
    assert not twin.support[twin.labels == 0].any()


def test_threads_may_separate_at_once() -> None:
    """Loops run without Python's lock, so nothing may be shared between calls."""
    answers = []
    for seed in range(6):
        heads = heads_of(crowded(151, 127, 6, seed=seed), seed)
        answers.append(NetworkOutput(heads, np.asarray(ops.sigmoid(heads[..., 0]))))

    def separated(answer: NetworkOutput) -> SeparatedNuclei:
        return host_instances.separate(answer, 151, 127, threshold=THRESHOLD, min_area=12)

    alone = [separated(answer) for answer in answers]
    with ThreadPoolExecutor(6) as threads:
        for found, expected in zip(threads.map(separated, answers * 5), alone * 5, strict=True):
            assert_same(found, expected)


def on_grid(seed: int, shape: tuple[int, int], grid: tuple[int, int]) -> tuple[SeparatedNuclei, SeparatedNuclei]:
    """Nuclei of an answer on another grid, and what they should be there."""
    heads = heads_of(crowded(*shape, 6, seed), seed)
    answer = NetworkOutput(heads, np.asarray(ops.sigmoid(heads[..., 0])))
    one = host_instances.separate(answer, *shape, threshold=THRESHOLD, min_area=90)  # what is smaller stays background
    rows, columns = (nearest(a, b, np.arange(b)) for a, b in zip(shape, grid, strict=True))
    noise = np.random.default_rng(seed).normal(0, 0.2, grid).astype(np.float32)
    probability = answer.probability[rows][:, columns] + noise
    found = host_instances.on_native_grid(one, answer, probability, rows, columns, threshold=THRESHOLD)
    outside = (one.labels == 0) & (answer.probability <= THRESHOLD)
    wider = np.where(outside, ndimage.grey_dilation(one.labels, size=3, mode="nearest"), one.labels)
    labels = np.where(probability > THRESHOLD, wider[rows][:, columns], 0)
    return found, SeparatedNuclei(labels, one.roots, one.support[rows][:, columns])


@pytest.mark.parametrize("grid", [(97, 131), (211, 89), (31, 23), (1, 1)])
def test_on_another_grid_a_pixel_just_outside_takes_the_nucleus_beside_it(grid: tuple[int, int]) -> None:
    """What is nucleus is decided on the image's own grid; outlines must not be as coarse as the network's grid."""
    found, expected = on_grid(11, (79, 107), grid)
    assert_same(found, expected)
    assert found.labels.dtype == np.int32
    assert found.support.dtype == np.uint8


def test_arrays_of_any_layout_need_one_program_each() -> None:
    """Each kind of array would be compiled for seconds: read-only ones, and views as exported networks give them."""
    heads = heads_of(crowded(64, 96, 7, seed=5), seed=6)
    answer = NetworkOutput(heads, np.asarray(ops.sigmoid(heads[..., 0])))
    fixed = heads.copy()
    fixed.setflags(write=False)
    apart = np.stack([answer.probability, answer.probability], axis=-1)[..., 0]
    expected = host_instances.separate(answer, 64, 96, threshold=THRESHOLD, min_area=12)
    rows, columns = np.arange(64, dtype=np.int32), np.arange(96)[::-1]
    for other in (replace(answer, heads=fixed), replace(answer, probability=apart), replace(answer, heads=heads[::1])):
        found = host_instances.separate(other, 64, 96, threshold=THRESHOLD, min_area=12)
        assert_same(found, expected)
        host_instances.on_native_grid(found, other, other.probability, rows, columns, threshold=THRESHOLD)
    for kernel in (separation.cast_votes, separation.follow_links, separation.label_pixels, native_grid.to_native_grid):
        assert len(kernel._kept.signatures) == 1


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Compiled loops do not look where an array ends."""
    certain = np.zeros((8, 12), np.float32)
    with pytest.raises(ValueError, match="12 channels"):
        NetworkOutput(np.zeros((4, 6, 3), np.float32), certain, block=2)
    with pytest.raises(ValueError, match=r"probability \(8, 12\)"):
        NetworkOutput(np.zeros((4, 7, 12), np.float32), certain, block=2)
    answer = NetworkOutput(np.zeros((8, 12, 3), np.float32), certain)
    with pytest.raises(ValueError, match="window of 8"):
        host_instances.separate(answer, 8, 12, threshold=0.5, min_area=1, window=8)
    plain = NetworkOutput(certain[..., None], certain, outputs=1)
    with pytest.raises(ValueError, match="1 outputs"):
        host_instances.separate(plain, 8, 12, threshold=0.5, min_area=1)
    one = host_instances.separate(answer, 8, 12, threshold=0.5, min_area=1)
    with pytest.raises(ValueError, match="7 rows"):
        host_instances.on_native_grid(one, answer, certain, np.arange(7), np.arange(12), threshold=0.5)
    with pytest.raises(IndexError, match="columns"):
        host_instances.on_native_grid(one, answer, certain, np.arange(8), np.arange(1, 13), threshold=0.5)
