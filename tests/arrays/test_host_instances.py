from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from pictures import disks

from nucseg_batch.arrays import host_instances, instances
from nucseg_batch.arrays.host_instances import NetworkOutput
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
    heads: np.ndarray, real: tuple[int, int], block: int = 1, unit: float = 1.0, **options: int
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], SeparatedNuclei]:
    """Labels, roots and support by the device's program and by its twin."""
    options = {"min_area": 12, **options}
    foreground, offsets = heads[None, ..., 0], heads[None, ..., 1:]
    sizes = [np.array([length], np.int32) for length in real]
    labels, roots, support = instances.separate_rooted(foreground, offsets, *sizes, threshold=THRESHOLD, **options)
    answers = folded(heads, block, unit)
    answer = NetworkOutput(answers, np.asarray(ops.sigmoid(heads[..., 0])), block, unit, heads.shape[2])
    twin = host_instances.separate(answer, *real, threshold=THRESHOLD, **options)
    return (np.asarray(labels)[0], np.argwhere(np.asarray(roots)[0]), np.asarray(support)[0]), twin


@pytest.mark.parametrize(
    ("shape", "real", "radius"),
    [
        ((64, 96), (64, 96), 7),
        ((96, 64), (83, 61), 5),
        ((32, 32), (9, 32), 4),
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
    (labels, roots, support), (twin, twin_roots, twin_support) = both(heads, real, blur=blur, window=window)
    assert labels.max() > 0
    np.testing.assert_array_equal(twin, labels)
    np.testing.assert_array_equal(twin_roots, roots)
    np.testing.assert_array_equal(twin_support, support)


@pytest.mark.parametrize(("block", "unit"), [(2, 8.0), (4, 2.0)])
def test_answers_folded_in_blocks_need_not_be_unfolded(block: int, unit: float) -> None:
    """The twin reads pixels where the network left them, with offsets in its units."""
    heads = heads_of(crowded(96, 64, 6, seed=3), seed=4)
    (labels, roots, support), (twin, twin_roots, twin_support) = both(heads, (90, 63), block, unit)
    np.testing.assert_array_equal(twin, labels)
    np.testing.assert_array_equal(twin_roots, roots)
    np.testing.assert_array_equal(twin_support, support)


def test_the_largest_of_offsets_and_the_most_crowded_of_votes_are_the_same_in_both() -> None:
    """Everything at one place, and votes that point far outside: sums are capped and places cut alike."""
    heads = np.zeros((160, 352, 3), np.float32)
    heads[..., 0] = 9.0
    y, x = np.mgrid[:160, :352]
    heads[..., 1], heads[..., 2] = 77 - y, 133 - x
    heads[100:, 200:, 1:] = (5000.0, -4000.0)
    (labels, roots, support), (twin, twin_roots, twin_support) = both(heads, (160, 352))
    assert labels.max() >= 2
    np.testing.assert_array_equal(twin, labels)
    np.testing.assert_array_equal(twin_roots, roots)
    np.testing.assert_array_equal(twin_support, support)


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
