from __future__ import annotations

import numpy as np
import pytest
from crops import learnt_from
from pictures import disks
from scipy import ndimage

from nucseg_batch.arrays.outputs import OFFSET_UNIT
from nucseg_batch.training import augment
from nucseg_batch.training.augment import plain_crop, training_crop
from nucseg_batch.training.data import Sample
from nucseg_batch.training.on_device import EDGE_WEIGHT
from nucseg_batch.training.targets import centres_and_areas, compact_target


def training_target(labels: np.ndarray, centres: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """As the network learns from it, (height, width, Target)."""
    return learnt_from((np.zeros((1, 1, 3), np.int16), compact_target(labels, centres, areas)))[1]


def sample_of(labels: np.ndarray, colour: bool = False) -> Sample:
    image = (labels > 0).astype(np.float32)
    image = np.repeat(image[..., None], 3, axis=2) if colour else image
    return Sample("a", "fluorescence", image, image, labels, *centres_and_areas(labels))


NUCLEI = disks((157, 173), [(30, 30), (80, 90), (120, 40), (100, 140), (30, 140)], 14)


def test_every_pixel_of_a_nucleus_points_at_its_centre() -> None:
    """The offset target is what the separation will follow."""
    target = training_target(NUCLEI, *centres_and_areas(NUCLEI))
    y, x = np.nonzero(NUCLEI == 2)
    np.testing.assert_allclose(y + target[y, x, 2] * OFFSET_UNIT, 80, atol=1e-4)
    np.testing.assert_allclose(x + target[y, x, 3] * OFFSET_UNIT, 90, atol=1e-4)
    assert (target[NUCLEI == 0][:, 2:] == 0).all()


def test_edges_between_touching_nuclei_weigh_more() -> None:
    """There is where nuclei are merged or split wrongly."""
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2
    weight = training_target(labels, *centres_and_areas(labels))[..., 1]
    assert weight[10, 14] == weight[10, 15] == EDGE_WEIGHT * weight[10, 10]
    assert weight[0, 0] == 1
    assert weight[10, 10] > 1, "these are small nuclei"


def test_small_nuclei_are_not_drowned_by_large_ones() -> None:
    """A nucleus of a quarter of the area weighs twice as much a pixel."""
    labels = np.zeros((60, 60), np.int32)
    labels[:20, :20], labels[30:40, 30:40] = 1, 2
    weight = training_target(labels, *centres_and_areas(labels))[..., 4]
    assert weight[35, 35] == pytest.approx(2 * weight[5, 5])


@pytest.mark.parametrize("seed", range(6))
def test_image_labels_and_centres_move_together(seed: int) -> None:
    """After any crop the pixels of a whole nucleus still point at its own middle, to a pixel and a half."""
    _, target = learnt_from(training_crop(sample_of(NUCLEI), 96, 28.0, np.random.default_rng(seed)))
    inside = target[..., 4] > 0
    numbered, count = ndimage.label(inside, np.ones((3, 3)))
    place = np.moveaxis(np.indices(inside.shape), 0, -1)
    for number in range(1, count + 1):
        pixels = numbered == number
        y, x = np.nonzero(pixels)
        if y.min() == 0 or x.min() == 0 or y.max() == 95 or x.max() == 95:
            continue
        pointed = (place + target[..., 2:4] * OFFSET_UNIT)[pixels]
        assert np.abs(pointed.mean(0) - [y.mean(), x.mean()]).max() < 1.5
        assert np.abs(pointed - pointed.mean(0)).max() < 1e-3


def test_a_cut_nucleus_keeps_its_true_centre() -> None:
    """Its centre lies outside the crop, and so it must be learned."""
    cut = disks((40, 40), [(20, -3)], 14)
    centres = np.array([[0, 0], [20, -3]])
    pointed = training_target(cut, centres, np.array([0, 600]))
    y, x = np.nonzero(cut)
    np.testing.assert_allclose(x + pointed[y, x, 3] * OFFSET_UNIT, -3, atol=1e-4)


def test_what_lies_beyond_the_image_has_no_weight_in_a_crop() -> None:
    """It is mirrored: nuclei to the eye, but not annotated; as background they would teach to miss nuclei at edges."""
    labels = disks((60, 60), [(30, 30)], 12)
    for seed in range(5):
        image, target = learnt_from(training_crop(sample_of(labels), 192, 24.0, np.random.default_rng(seed)))
        known = target[..., 1] > 0
        assert 0 < known.mean() < 0.9
        assert (target[~known][:, [0, 4]] == 0).all()
        assert image[~known].std() > 0, "the mirrored nuclei are there to be seen"


def test_a_small_image_is_mirrored_without_weight() -> None:
    """What is not real must not teach."""
    sample = sample_of(NUCLEI)
    image, target = learnt_from(plain_crop(sample, 193, sample.diameter))
    assert image.shape == (193, 193, 3)
    assert target[:18].sum() == target[175:].sum() == target[:, :10].sum() == target[:, 183:].sum() == 0
    np.testing.assert_allclose(image[18:175, 10:183], np.repeat((NUCLEI > 0)[..., None], 3, axis=2), atol=4e-5)
    np.testing.assert_allclose(image[175:], image[174:156:-1], atol=1e-6)


def test_crops_are_fixed_by_their_seed_and_differ_between_seeds() -> None:
    """Training can be repeated, and sees something new each time."""
    first, second, other = (
        learnt_from(training_crop(sample_of(NUCLEI, colour=True), 64, 28.0, np.random.default_rng(s)))
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == np.float32
    assert first[0].min() >= 0
    assert first[0].max() <= 2


@pytest.mark.parametrize("radius", [5, 14, 30])
def test_nuclei_of_any_size_are_brought_to_the_nominal_one(radius: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network then learns one size well; the random magnification is switched off here."""
    monkeypatch.setattr(augment, "SPREAD", 0.0)
    monkeypatch.setattr(augment, "WIDE_SHARE", 0.0)
    monkeypatch.setattr(augment, "BLANK_SHARE", 0.0)
    labels = disks((211, 223), [(105, 111)], radius)
    _, target = learnt_from(training_crop(sample_of(labels), 64, 24.0, np.random.default_rng(3)))
    plain = learnt_from(plain_crop(sample_of(labels), 64, 24.0))[1]
    assert plain[..., 0].sum() == pytest.approx(np.pi * 12**2, rel=0.05)
    assert target[..., 0].sum() <= 1.3 * np.pi * 12**2


def test_some_crops_are_empty_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentile normalisation shows noise at full contrast; the network must know it."""
    monkeypatch.setattr(augment, "BLANK_SHARE", 1.0)
    for seed in range(8):
        image, target = learnt_from(training_crop(sample_of(NUCLEI), 64, 28.0, np.random.default_rng(seed)))
        assert image.shape == (64, 64, 3)
        assert image.std() > 0.01
        assert target[..., 0].sum() == target[..., 4].sum() == 0
        assert (target[..., 1] == 1).all()
