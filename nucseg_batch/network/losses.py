"""The training loss: where nuclei are, and where each of their pixels says the centre is.

Foreground: cross-entropy, with pixels at the edges of nuclei counting more, plus a soft Dice term that is indifferent
to how empty an image is (Milletari et al. 2016, arXiv:1606.04797). Offsets, where the network has them: Huber loss,
only inside nuclei, with weights under which a small nucleus is not drowned by a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from nucseg_batch.network.architectures import NetworkSpec, to_full_resolution

DICE_WEIGHT = 0.5
"""How much the Dice term counts beside the cross-entropy."""
DICE_FLOOR = 100.0
"""Pixels added above and below in the Dice term, so that nearly empty images do not shake it."""


def segmentation_loss(spec: NetworkSpec) -> Callable[[Any, Any], Any]:
    """The loss of a network's raw heads: a function of a batch's target and heads that gives a scalar.

    target: (batch, height, width, 5) float32 as `targets.training_target` makes it, of which a semantic network uses
    the first two. heads: (batch, height / block, width / block, block**2 * outputs) float32.
    """

    def loss(target: Any, heads: Any) -> Any:
        target = ops.cast(target, "float32")
        height, width = (side // spec.block for side in target.shape[1:3])
        heads = ops.reshape(heads, (-1, height, width, heads.shape[-1]))
        output = to_full_resolution(heads, spec.block, spec.outputs)
        foreground = _foreground_loss(target[..., 0], target[..., 1], output[..., 0])
        if spec.task == "semantic":
            return foreground
        return foreground + _offset_loss(target[..., 2:4], target[..., 4], output[..., 1:3])

    return loss


def _foreground_loss(truth: Any, weight: Any, logit: Any) -> Any:
    """Weighted cross-entropy and Dice; all (batch, height, width), pixels of weight 0 are not known."""
    entropy = ops.relu(logit) - logit * truth + ops.log1p(ops.exp(-ops.abs(logit)))
    cross_entropy = ops.sum(entropy * weight) / ops.sum(weight)
    probability = ops.sigmoid(logit)
    known = ops.cast(weight > 0, "float32")
    overlap = ops.sum(probability * truth, axis=(1, 2))
    total = ops.sum(probability * known + truth, axis=(1, 2))
    dice = ops.mean(1.0 - (2.0 * overlap + DICE_FLOOR) / (total + DICE_FLOOR))
    return cross_entropy + DICE_WEIGHT * dice


def _offset_loss(truth: Any, weight: Any, offsets: Any) -> Any:
    """Huber loss of offsets (batch, height, width, 2), by weight (batch, height, width)."""
    error = ops.abs(offsets - truth)
    huber = ops.sum(ops.where(error < 1.0, 0.5 * error * error, error - 0.5), axis=-1)
    return ops.sum(huber * weight) / (ops.sum(weight) + 1.0)
