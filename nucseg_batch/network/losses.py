"""The training loss: where nuclei are, and where each of their pixels says the centre is.

Foreground: cross-entropy, with pixels at the edges of nuclei counting more, plus a soft Dice term that is indifferent
to how empty an image is (Milletari et al. 2016, arXiv:1606.04797). Offsets, where the network has them: Huber loss,
only inside nuclei, with weights under which a small nucleus is not drowned by a large one.

All are functions of a target, (batch, height, width, Target) float32 as `on_device.target_of` makes it, and an
output, (batch, height, width, outputs) float32, and give a scalar.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from nucseg_batch.arrays.outputs import OUTPUT_OFFSETS, TARGET_OFFSETS, Output, Target

DICE_WEIGHT = 0.5
"""How much the Dice term counts beside the cross-entropy."""
DICE_FLOOR = 100.0
"""Pixels added above and below in the Dice term, so that nearly empty images do not shake it."""


def nuclei_loss(target: Any, output: Any) -> Any:
    """Of nuclei that are separated: foreground and offsets."""
    return foreground_loss(target, output) + _offset_loss(target, output)


def foreground_loss(target: Any, output: Any) -> Any:
    """Weighted cross-entropy and Dice; pixels of weight 0 are not known."""
    logit = output[..., Output.FOREGROUND]
    truth, weight = target[..., Target.FOREGROUND], target[..., Target.FOREGROUND_WEIGHT]
    entropy = ops.relu(logit) - logit * truth + ops.log1p(ops.exp(-ops.abs(logit)))
    cross_entropy = ops.sum(entropy * weight) / ops.sum(weight)
    probability = ops.sigmoid(logit)
    known = ops.cast(weight > 0, "float32")
    overlap = ops.sum(probability * truth, axis=(1, 2))
    total = ops.sum(probability * known + truth, axis=(1, 2))
    dice = ops.mean(1.0 - (2.0 * overlap + DICE_FLOOR) / (total + DICE_FLOOR))
    return cross_entropy + DICE_WEIGHT * dice


def _offset_loss(target: Any, output: Any) -> Any:
    """Weighted Huber loss."""
    weight = target[..., Target.OFFSET_WEIGHT]
    error = ops.abs(output[..., OUTPUT_OFFSETS] - target[..., TARGET_OFFSETS])
    huber = ops.sum(ops.where(error < 1.0, 0.5 * error * error, error - 0.5), axis=-1)
    return ops.sum(huber * weight) / (ops.sum(weight) + 1.0)
