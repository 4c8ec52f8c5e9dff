"""Targets as the device makes them, beside the same in numpy, pixel by pixel from what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from crops import target_on_device
from keras import ops
from numpy.typing import NDArray
from pictures import disks

from nucseg_batch.arrays.outputs import OFFSET_UNIT, Target
from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.training.crops import stacked
from nucseg_batch.training.on_device import EDGE_WEIGHT, TYPICAL_AREA, CropLearner, image_of
from nucseg_batch.training.targets import PIXELS_A_NUCLEUS, centres_and_areas, compact_target


def by_numpy(
    labels: NDArray[np.int32], centres: NDArray[np.float64], areas: NDArray[np.float64], cover: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(height, width, Target), one pixel after the other."""
    height, width = labels.shape
    target = np.zeros((height, width, len(Target)), np.float32)
    for y, x in np.ndindex(height, width):
        label = labels[y, x]
        if label < 0:
            continue
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        edge = any(labels[at] not in (label, -1) for at in near if 0 <= at[0] < height and 0 <= at[1] < width)
        weight = np.sqrt(TYPICAL_AREA / max(areas[label], 1)) if label else 1.0
        pixel = target[y, x]
        pixel[Target.FOREGROUND] = cover[y, x]
        pixel[Target.FOREGROUND_WEIGHT] = np.clip(weight, 0.7, 2.0) * (EDGE_WEIGHT if edge else 1.0)
        if label:
            pixel[Target.OFFSET_Y] = (centres[label, 0] - y) / OFFSET_UNIT
            pixel[Target.OFFSET_X] = (centres[label, 1] - x) / OFFSET_UNIT
            pixel[Target.OFFSET_WEIGHT] = np.clip(weight, 0.3, 3.0)
    return target


def view(seed: int) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Labels with gaps in their numbers, touching and cut, some of them not annotated, of sizes far apart."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((37, 53), np.int32)
    for number in (3, 7, 8, 19, 400):
        y, x, tall, wide = rng.integers(-4, 36), rng.integers(-4, 50), rng.integers(1, 17), rng.integers(1, 17)
        labels[max(y, 0) : max(y + tall, 0), max(x, 0) : max(x + wide, 0)] = number
    labels[:, : rng.integers(0, 9)] = -1
    centres = rng.uniform(-30, 90, (401, 2))
    areas = np.exp(rng.uniform(0, 10, 401))
    return labels, centres, areas, rng.random(labels.shape, np.float32)


@pytest.mark.parametrize("seed", range(6))
def test_the_device_makes_of_a_compact_target_what_it_means(seed: int) -> None:
    """Offsets and weights to the last bits of float32; how much of a pixel is nucleus, to half a step of 1/255."""
    first, second = view(seed), view(seed + 100)
    _, batch = stacked([(np.zeros((1, 1, 3), np.int16), compact_target(*one)) for one in (first, second)])
    made = target_on_device(batch)
    for target, one in zip(made, (first, second), strict=True):
        expected = by_numpy(*one)
        np.testing.assert_allclose(target[..., 1:], expected[..., 1:], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(target[..., 0], expected[..., 0], atol=0.5001 / 255)


def test_without_cover_a_pixel_is_nucleus_or_not() -> None:
    """As labels say; -1 is neither."""
    labels = disks((23, 31), [(9, 11)], 5)
    labels[:, 20:] = -1
    compact = compact_target(labels, *centres_and_areas(np.maximum(labels, 0)))
    _, batch = stacked([(np.zeros((1, 1, 3), np.int16), compact)])
    np.testing.assert_array_equal(target_on_device(batch)[0, ..., Target.FOREGROUND], labels > 0)


def test_nuclei_beyond_the_room_for_them_are_not_learnt() -> None:
    """A table has one size, so that one program serves all batches; what is left out must not be background."""
    labels = np.zeros((32, 20), np.int32)
    labels[::2, ::2] = np.arange(1, 161).reshape(16, 10)
    compact = compact_target(labels, *centres_and_areas(labels))
    room = labels.size // PIXELS_A_NUCLEUS
    assert compact["nuclei"].shape == (room + 1, 3)
    assert (compact["labels"].max(), room) == (20, 20)
    assert (compact["labels"] == -1).sum() == 160 - room
    _, batch = stacked([(np.zeros((1, 1, 3), np.int16), compact)])
    weight = target_on_device(batch)[0, ..., Target.FOREGROUND_WEIGHT]
    np.testing.assert_array_equal(weight == 0, (labels > room))


def test_a_target_is_handed_over_in_a_sixth_of_its_bytes() -> None:
    """A batch passes through the host's memory several times before it is on the device."""
    labels = disks((256, 256), [(30, 40), (100, 200)], 14)
    compact = compact_target(labels, *centres_and_areas(labels))
    handed = sum(array.nbytes for array in (compact["labels"], compact["cover"], compact["nuclei"]))
    assert handed == 256 * 256 * 3 + 12 * (256 * 256 // PIXELS_A_NUCLEUS + 1)
    assert handed < 256 * 256 * 4 * len(Target) / 5.5


def test_a_learner_has_the_loss_of_its_network_and_target() -> None:
    """What is learnt from int16 and labels is what would be learnt from the images and targets that these stand for."""
    spec = network_spec("default", "instances", (4, 6))
    learner = CropLearner(build(spec, normalise=True), spec.loss)
    labels, centres, areas, cover = view(3)
    labels, cover = np.pad(labels, ((0, 27), (0, 11))), np.pad(cover, ((0, 27), (0, 11)))
    rng = np.random.default_rng(1)
    values = rng.integers(0, 32768, (*labels.shape, 3)).astype(np.int16)
    images, compact = stacked([(values, compact_target(labels, centres, areas, cover))])
    loss = learner.compute_loss(y=compact, y_pred=learner(images))
    output = learner.network(image_of(images))
    expected = spec.loss(by_numpy(labels, centres, areas, cover)[None], output)
    np.testing.assert_allclose(ops.convert_to_numpy(loss), ops.convert_to_numpy(expected), rtol=2e-3)
    assert [weight.path for weight in learner.weights] == [weight.path for weight in learner.network.weights]


def test_a_large_crop_has_no_more_nuclei_than_an_int16_can_number() -> None:
    """Larger numbers would be negative ones, or those of other nuclei."""
    labels = np.arange(1, 1100 * 1000 + 1, dtype=np.int32).reshape(1100, 1000)
    labels[:, 40:] = 0
    table = np.ones(labels.max() + 1)
    compact = compact_target(labels, np.stack([table, table], axis=1), table)
    assert compact["nuclei"].shape == (32768, 3)
    assert (compact["labels"].min(), compact["labels"].max()) == (-1, 32767)
    assert (compact["labels"] > 0).sum() == 32767
