from __future__ import annotations

import numpy as np
import pytest
from pictures import disks

from nucseg_batch.arrays import host_instances
from nucseg_batch.arrays.confidence import FULL, REACH, closeness, nuclei_confidence, supported
from nucseg_batch.arrays.host_instances import NetworkOutput
from nucseg_batch.arrays.measure import measure


def confidence_of(labels: np.ndarray, logit: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Of the nuclei that are found where a network answers so."""
    heads = np.concatenate([logit[..., None], offsets], axis=2).astype(np.float32)
    answer = NetworkOutput(heads, 1 / (1 + np.exp(-heads[..., 0])))
    found = host_instances.separate(answer, *labels.shape, threshold=0.5, min_area=12)
    return nuclei_confidence(found.labels, found.support, np.arange(1, found.labels.max() + 1))


def towards(labels: np.ndarray, centres: dict[int, tuple[float, float]]) -> np.ndarray:
    """Offsets of every pixel to the centre of its nucleus."""
    offsets = np.zeros((*labels.shape, 2))
    for label, centre in centres.items():
        inside = np.argwhere(labels == label)
        offsets[labels == label] = np.array(centre) - inside
    return offsets


def test_a_nucleus_on_which_all_pixels_agree_is_certain_and_a_faint_one_less() -> None:
    """Votes that meet in one place: then only the probability counts."""
    labels = disks((64, 96), [(30, 25), (30, 70)], 11)
    logit = np.where(labels == 0, -9.0, np.where(labels == 1, 9.0, 1.0))
    sure, faint = confidence_of(labels, logit, towards(labels, {1: (30, 25), 2: (30, 70)}))
    assert sure > 0.99
    assert faint == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)


def test_two_nuclei_that_were_not_divided_are_doubted() -> None:
    """Their pixels vote for two centres of which only one became the root: the mistake that costs counts most."""
    labels = disks((64, 96), [(30, 40)], 13)
    logit = np.where(labels == 0, -9.0, 9.0)
    offsets = towards(labels, {1: (30, 37)})
    other = (labels > 0) & (np.arange(96) > 40)
    offsets[other] = np.array((30, 43)) - np.argwhere(other)
    found = confidence_of(labels, logit, offsets)
    assert found.size == 1
    assert 0.5 < found[0] < 0.8


def test_support_falls_with_distance_and_never_below_one() -> None:
    """0 means that a pixel did not vote, which rescaling makes along edges."""
    squared = np.array([0, 1, REACH**2 // 2, REACH**2, 10**6])
    support = supported(np.full(5, FULL), closeness(squared))
    assert support[0] == FULL
    assert (np.diff(support) <= 0).all()
    assert support[-1] == support[-2] == 1


def test_pixels_that_did_not_vote_do_not_count() -> None:
    """Else a nucleus of an enlarged image would be doubted for its edge."""
    labels = np.kron(np.array([[1, 0, 3], [0, 0, 3]]), np.ones((3, 5), int))
    support = np.where(labels == 1, 255, 51).astype(np.uint8)
    support[0] = 0
    support[3:, 10:] = 0
    np.testing.assert_allclose(nuclei_confidence(labels, support, np.array([1, 3])), [1.0, 0.2])
    support[labels == 3] = 0
    np.testing.assert_allclose(nuclei_confidence(labels, support, np.array([1, 3])), [1.0, 0.0])
    assert nuclei_confidence(labels * 0, support, np.array([], int)).shape == (0,)


def test_measuring_gives_the_same_confidence() -> None:
    """It has the pixels of nuclei at hand, so that no further pass over the plane is needed."""
    labels = disks((53, 71), [(20, 20), (24, 40), (44, 66)], 9) * 3
    support = np.random.default_rng(0).integers(0, 3, labels.shape).astype(np.uint8) * 100
    found = measure(labels, labels, support=support)
    assert list(found)[-1] == "confidence"
    np.testing.assert_array_equal(found["confidence"], nuclei_confidence(labels, support, found["label"]))
    assert measure(labels * 0, labels, support=support)["confidence"].shape == (0,)
