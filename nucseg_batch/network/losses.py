"""The training loss: where nuclei are, and where each of their pixels says the centre is.

Foreground: cross-entropy, with pixels at the edges of nuclei counting more, plus a soft Dice term that is indifferent
to how empty an image is. Offsets: Huber loss, only inside nuclei, with weights under which a small nucleus is not
drowned by a large one.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from nucseg_batch.network.unet import to_full_resolution


def segmentation_loss(target: Any, heads: Any) -> Any:
    """Loss of a batch, a scalar.

    target: (batch, height, width, 5) float32 as `targets.training_target` makes it. heads: the network's raw output,
    (batch, height/2, width/2, 4 * HEADS).
    """
    target = ops.cast(target, "float32")
    output = to_full_resolution(ops.reshape(heads, (-1, target.shape[1] // 2, target.shape[2] // 2, heads.shape[-1])))
    truth, weight, inside = target[..., 0], target[..., 1], target[..., 4]
    logit = output[..., 0]
    entropy = ops.relu(logit) - logit * truth + ops.log1p(ops.exp(-ops.abs(logit)))
    cross_entropy = ops.sum(entropy * weight) / ops.sum(weight)

    probability = ops.sigmoid(logit)
    known = ops.cast(weight > 0, "float32")
    overlap = ops.sum(probability * truth, axis=(1, 2))
    total = ops.sum(probability * known + truth, axis=(1, 2))
    dice = ops.mean(1.0 - (2.0 * overlap + 100.0) / (total + 100.0))

    error = ops.abs(output[..., 1:3] - target[..., 2:4])
    huber = ops.sum(ops.where(error < 1.0, 0.5 * error * error, error - 0.5), axis=-1)
    offsets = ops.sum(huber * inside) / (ops.sum(inside) + 1.0)
    return cross_entropy + 0.5 * dice + offsets
