from __future__ import annotations

import numpy as np
import pytest

from nucseg_batch.network.architectures import NetworkSpec

HALF = NetworkSpec("default", (4, 6), "instances")
FULL = NetworkSpec("unet", (4, 6), "instances")


def foreground_by_hand(target: np.ndarray, logit: np.ndarray) -> float:
    probability = 1 / (1 + np.exp(-logit))
    truth, weight = target[..., 0], target[..., 1]
    entropy = -truth * np.log(probability) - (1 - truth) * np.log(1 - probability)
    overlap = (probability * truth).sum(axis=(1, 2))
    total = (probability * (weight > 0) + truth).sum(axis=(1, 2))
    dice = np.mean(1 - (2 * overlap + 100) / (total + 100))
    return float((entropy * weight).sum() / weight.sum() + 0.5 * dice)


def offsets_by_hand(target: np.ndarray, offsets: np.ndarray) -> float:
    error = np.abs(offsets - target[..., 2:4])
    huber = np.where(error < 1, error**2 / 2, error - 0.5).sum(axis=-1)
    return float((huber * target[..., 4]).sum() / (target[..., 4].sum() + 1))


@pytest.fixture
def target() -> np.ndarray:
    rng = np.random.default_rng(7)
    values = rng.normal(size=(2, 12, 20, 5))
    values[..., 0] = values[..., 0] > 0
    values[..., 1] = np.maximum(values[..., 1], 0)
    values[..., 4] = np.abs(values[..., 4]) * values[..., 0]
    return values


def folded(full: np.ndarray) -> np.ndarray:
    """(batch, h, w, outputs) as a network with blocks of 2x2 gives it."""
    batch, height, width, outputs = full.shape
    blocks = full.reshape(batch, height // 2, 2, width // 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, height // 2, width // 2, 4 * outputs)


def test_the_loss_is_entropy_and_half_dice_and_offsets(target: np.ndarray) -> None:
    """Computed again in float64, term by term, for both forms of output; pixels of weight 0 are among them."""
    output = np.random.default_rng(8).normal(size=(2, 12, 20, 3)) * 2
    expected = foreground_by_hand(target, output[..., 0]) + offsets_by_hand(target, output[..., 1:])
    for spec, heads in ((HALF, folded(output)), (FULL, output)):
        found = float(spec.loss(target.astype(np.float32), heads.astype(np.float32)))
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_semantic_network_is_not_asked_for_centres(target: np.ndarray) -> None:
    """Cross-entropy and Dice only, on the one output it has."""
    output = np.random.default_rng(9).normal(size=(2, 12, 20, 1)) * 2
    spec = NetworkSpec("default", (4, 6), "semantic")
    found = float(spec.loss(target.astype(np.float32), folded(output).astype(np.float32)))
    assert found == pytest.approx(foreground_by_hand(target, output[..., 0]), rel=1e-5)
