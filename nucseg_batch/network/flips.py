"""Answers of a network averaged over an image and its mirror images: slower, and a little better at outlines.

What is known as test-time augmentation. The answers for mirror images are mirrored back, where an offset along a
mirrored axis changes its sign, so that the average for a mirror image is the mirror image of the average.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from keras import ops

from nucseg_batch.arrays.outputs import Output
from nucseg_batch.network.architectures import NetworkSpec

PASSES = 4
"""Passes of the network over each image."""


def averaged_over_flips(network: Callable[[Any], Any], spec: NetworkSpec, image: Any) -> Any:
    """Mean of the answers for the four mirror images of a batch.

    network: takes images (batch, height, width, 3) and gives heads (batch, height / block, width / block,
    block**2 * outputs), float32, as `spec` says. image: such a batch; shapes must be static.
    """
    total: Any = 0.0
    for rows, columns in product((False, True), repeat=2):
        axes = [axis for axis, mirrored in ((1, rows), (2, columns)) if mirrored]
        total = total + _mirrored_back(network(_mirrored(image, axes)), spec, rows=rows, columns=columns)
    return total / PASSES


def _mirrored_back(heads: Any, spec: NetworkSpec, *, rows: bool, columns: bool) -> Any:
    """Heads of a mirrored image as those of the image: places, pixels within blocks, and signs of offsets."""
    batch, height, width, channels = ops.shape(heads)
    x = ops.reshape(heads, (batch, height, width, spec.block, spec.block, spec.outputs))
    x = _mirrored(x, [axis for axes, mirrored in (((1, 3), rows), ((2, 4), columns)) if mirrored for axis in axes])
    turned = {Output.OFFSET_Y: rows, Output.OFFSET_X: columns}
    signs = [-1.0 if turned.get(output) else 1.0 for output in spec.head.outputs]
    return ops.reshape(x * ops.convert_to_tensor(signs, dtype="float32"), (batch, height, width, channels))


def _mirrored(x: Any, axes: list[int]) -> Any:
    return ops.flip(x, axes) if axes else x
