from __future__ import annotations

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from nucseg_batch.arrays.instances import blur_votes, certainty, separate_rooted, strongest_nearby
from nucseg_batch.arrays.votes import BLUR, MIN_ROOT_VOTES, WINDOW_RADIUS


def perfect_heads(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a perfect network says of a label image: certain foreground, exact offsets to each nucleus' centroid."""
    count = labels.max()
    centres = np.array([[0, 0], *ndimage.center_of_mass(labels > 0, labels, range(1, count + 1))])
    place = np.moveaxis(np.indices(labels.shape), 0, -1)
    offsets = np.where((labels > 0)[..., None], centres[labels] - place, 0)
    return np.where(labels > 0, 9.0, -9.0).astype(np.float32), offsets.astype(np.float32)


def run(
    labels: np.ndarray, threshold: float = 0.5, min_area: int = 1, real: tuple[int, int] | None = None
) -> np.ndarray:
    logits, offsets = perfect_heads(labels)
    height, width = real or labels.shape
    sizes = np.array([height], np.int32), np.array([width], np.int32)
    found = separate_rooted(logits[None], offsets[None], *sizes, threshold=threshold, min_area=min_area)[0]
    return ops.convert_to_numpy(found)[0]


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = {(x, y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def quarters() -> np.ndarray:
    """Four rectangles of unequal sides that touch along whole edges."""
    labels = np.zeros((61, 83), np.int32)
    labels[5:30, 7:40], labels[5:30, 40:70] = 1, 2
    labels[30:52, 7:33], labels[30:52, 33:70] = 3, 4
    return labels


def test_touching_nuclei_are_separated_where_their_votes_differ() -> None:
    """Touching nuclei are one connected component; only votes tell them apart."""
    labels = quarters()
    assert ndimage.label(labels > 0)[1] == 1
    found = run(labels)
    assert found.max() == 4
    assert same_partition(found, labels)


def test_labels_are_dense_and_ordered_by_the_place_of_their_roots() -> None:
    """1..n without gaps, so that the highest label is the count; the order must not depend on the batch."""
    found = run(quarters())
    assert sorted(np.unique(found).tolist()) == [0, 1, 2, 3, 4]
    assert [found[y, x] for y, x in [(17, 23), (17, 55), (41, 20), (41, 51)]] == [1, 2, 3, 4]


def test_nothing_is_found_where_nothing_is_foreground() -> None:
    """An empty field has no nuclei, whatever its offsets say."""
    assert (run(np.zeros((17, 23), np.int32)) == 0).all()


def test_a_nucleus_below_the_smallest_area_becomes_background_and_leaves_no_gap() -> None:
    """min_area counts pixels; 42 keeps a nucleus of 42 pixels and drops one of 41."""
    labels = np.zeros((40, 50), np.int32)
    labels[4:10, 4:11] = 1
    labels[20:26, 30:37] = 2
    labels[25, 36] = 0
    assert [(labels == i).sum() for i in (1, 2)] == [42, 41]
    found = run(labels, min_area=42)
    assert same_partition(found, np.where(labels == 1, 1, 0))
    assert run(labels, min_area=41).max() == 2


def test_padding_beyond_the_real_image_is_never_labelled() -> None:
    """Images are padded to a common shape; mirrored nuclei there are not real."""
    labels = quarters()
    found = run(labels, real=(40, 50))
    assert (found[40:] == 0).all()
    assert (found[:, 50:] == 0).all()
    assert found[:40, :50].any()


def test_votes_that_leave_the_image_count_at_its_edge() -> None:
    """A nucleus cut by the image's edge has its centre outside and is still one nucleus."""
    logits = np.full((1, 32, 48), -9.0, np.float32)
    logits[0, :7, 10:30] = 9.0
    y, x = np.indices((32, 48))
    offsets = np.stack([-6.0 - y, 20.0 - x], axis=-1)[None].astype(np.float32)
    sizes = np.array([32], np.int32), np.array([48], np.int32)
    found = ops.convert_to_numpy(separate_rooted(logits, offsets, *sizes, threshold=0.5, min_area=1)[0])
    assert found.max() == 1
    assert (found > 0).sum() == 7 * 20


def test_a_lone_pixel_is_no_nucleus_even_without_a_smallest_area() -> None:
    """A root needs the votes of several pixels."""
    logits = np.full((1, 32, 32), -9.0, np.float32)
    logits[0, 16, 16] = 9.0
    sizes = np.array([32], np.int32), np.array([32], np.int32)
    found = separate_rooted(logits, np.zeros((1, 32, 32, 2), np.float32), *sizes, threshold=0.5, min_area=0)[0]
    assert MIN_ROOT_VOTES > 1
    assert ops.convert_to_numpy(found).max() == 0


def test_images_of_a_batch_do_not_meet() -> None:
    """An image's labels must be the same alone and between any neighbours."""
    logits, offsets = perfect_heads(quarters())
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 3, logits.shape).astype(np.float32)
    stray = rng.normal(0, 30, offsets.shape).astype(np.float32)
    batch = np.stack([noise, logits, noise.T.reshape(logits.shape)]), np.stack([stray, offsets, -stray])
    sizes = np.full(3, 61, np.int32), np.full(3, 83, np.int32)
    together = ops.convert_to_numpy(separate_rooted(*batch, *sizes, threshold=0.5, min_area=5)[0])
    np.testing.assert_array_equal(together[1], run(quarters(), min_area=5))


def test_blurred_votes_are_exact_sums_over_boxes() -> None:
    """Sums of integers do not depend on the order in which a device adds."""
    votes = np.random.default_rng(1).integers(0, 256, (1, 29, 37)).astype(np.int32)
    expected = votes[0]
    for axis in (0, 1, 0, 1):
        expected = ndimage.convolve1d(expected, np.ones(BLUR, int), axis=axis, mode="constant")
    np.testing.assert_array_equal(ops.convert_to_numpy(blur_votes(votes))[0], expected)


def test_blurring_never_overflows() -> None:
    """A plane whose every pixel votes for one place must not turn negative."""
    votes = np.full((1, 32, 32), 2**31 - 1, np.int32)
    assert (ops.convert_to_numpy(blur_votes(votes)) > 0).all()


@pytest.mark.parametrize("shape", [(16, 16), (19, 43)])
def test_every_place_is_linked_to_the_strongest_within_the_window(shape: tuple[int, int]) -> None:
    """Against a plain search; places count as equal below 1/49 of a vote, so strengths are multiples of 256 here."""
    strength = np.random.default_rng(4).permutation(shape[0] * shape[1]).reshape(shape)
    y = np.arange(shape[0], dtype=np.int32).reshape(1, -1, 1)
    x = np.arange(shape[1], dtype=np.int32).reshape(1, 1, -1)
    found = ops.convert_to_numpy(strongest_nearby((strength[None] * 256).astype(np.int32) + 256, y, x))[0]
    for place in np.ndindex(shape):
        window = tuple(slice(max(0, p - WINDOW_RADIUS), p + WINDOW_RADIUS + 1) for p in place)
        assert strength.ravel()[found[place]] == strength[window].max()


def test_certainty_is_the_mean_probability_of_the_foreground_that_is_real() -> None:
    """What is below the threshold, and what lies beyond an image's own pixels, says nothing of its nuclei."""
    logit = np.full((3, 7, 11), -5.0, np.float32)
    logit[0, 2:4, 3:5] = 2.0
    logit[0, 6, :] = 9.0  # padding
    logit[1, 0, 0], logit[1, 0, 1] = 1.0, 3.0
    one = np.array([6, 7, 7], np.int32), np.array([11, 11, 11], np.int32)
    found = np.asarray(certainty(logit, *one, threshold=0.5))
    expected = [1 / (1 + np.exp(-2.0)), np.mean(1 / (1 + np.exp([-1.0, -3.0]))), 0.0]
    np.testing.assert_allclose(found, expected, atol=0.003)
