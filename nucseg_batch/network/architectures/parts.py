"""Pieces that the networks share: convolutions, the two arms of a U-Net, and how far they reach.

Names of layers are fixed by depth, so that a network built twice has the same layers in the same order, and so that
`fold_weights` finds the normalisation `x_norm` of the convolution `x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers, ops

from nucseg_batch.network.architectures.blocks import to_full_resolution

MOMENTUM = 0.98
"""Of the normalisation layers' running statistics: some hundred steps, so that short trainings forget the start."""


def convolution(x: Any, width: int, name: str, normalise: bool, dtype: str | None) -> Any:
    """A 3x3 convolution to `width` channels, with normalisation if asked for, and ReLU."""
    x = layers.Conv2D(width, 3, padding="same", use_bias=not normalise, dtype=dtype, name=name)(x)
    if normalise:
        x = layers.BatchNormalization(momentum=MOMENTUM, dtype=dtype, name=f"{name}_norm")(x)
    return layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)


def contracting_arm(x: Any, widths: Sequence[int], normalise: bool, dtype: str | None) -> list[Any]:
    """Two convolutions at each depth, 2x2 maximum between depths; returns what each depth ends with, finest first."""
    skips: list[Any] = []
    for depth, width in enumerate(widths):
        if depth:
            x = layers.MaxPooling2D(dtype=dtype, name=f"down{depth}_pool")(x)
        for part in "ab":
            x = convolution(x, width, f"down{depth}{part}", normalise, dtype)
        skips.append(x)
    return skips


def expanding_arm(skips: Sequence[Any], widths: Sequence[int], normalise: bool, dtype: str | None) -> Any:
    """From the coarsest of `skips` up to the finest: 2x2 transposed convolution, joining, two convolutions.

    skips: features of each depth, finest first, each with half the sides of the one before. widths: channels at each
    depth; those of the coarsest are not used.
    """
    x = skips[-1]
    for depth in reversed(range(len(skips) - 1)):
        grow = layers.Conv2DTranspose(widths[depth], 2, strides=2, dtype=dtype, name=f"up{depth}_grow")
        x = (grow if normalise else PlainConv2DTranspose(widths[depth], dtype=dtype, name=grow.name))(x)
        x = layers.Concatenate(dtype=dtype, name=f"up{depth}_join")([skips[depth], x])
        for part in "ab":
            x = convolution(x, widths[depth], f"up{depth}{part}", normalise, dtype)
    return x


class PlainConv2DTranspose(layers.Layer):
    """`Conv2DTranspose(filters, 2, strides=2)`, with the same weights, as a product for each position, unfolded.

    For inference. oneDNN keeps working memory for each transposed convolution and each shape of images that it has
    seen: 1.4 GB after 100 images of 50 shapes (measured with TensorFlow 2.21 in bfloat16). A product keeps none.
    """

    def __init__(self, filters: int, **options: Any) -> None:
        super().__init__(**options)
        self._filters = filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes the weights: kernel (2, 2, filters, channels) and bias (filters,)."""
        self._kernel = self.add_weight(name="kernel", shape=(2, 2, self._filters, input_shape[-1]))
        self._bias = self.add_weight(name="bias", shape=(self._filters,), initializer="zeros")

    def call(self, x: Any) -> Any:
        """(batch, height, width, channels) to (batch, 2 * height, 2 * width, filters)."""
        kernel = ops.reshape(self._kernel, (1, 1, 4 * self._filters, -1))
        x = ops.conv(x, ops.transpose(kernel, (0, 1, 3, 2)))
        return to_full_resolution(x + ops.tile(self._bias, 4), 2, self._filters)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """See `call`."""
        batch, height, width, _ = input_shape
        return batch, height and 2 * height, width and 2 * width, self._filters


def contracting_reach(levels: int, finest: int) -> int:
    """Pixels that the contracting arm looks to each side, where one position of its finest depth is `finest` pixels.

    Each of two 3x3 convolutions reaches one position of its depth; pooling stays inside blocks.
    """
    return sum(2 * finest * 2**depth for depth in range(levels))


def expanding_reach(levels: int, finest: int) -> int:
    """The same for the expanding arm, which has no convolutions at its coarsest depth.

    At each step down to a coarser depth the reach grows to whole positions of that depth, which are seen or not seen.
    """
    reach = 0
    for depth in range(levels - 1):
        position = finest * 2**depth
        reach = rounded_up(reach + 2 * position, 2 * position)
    return reach


def rounded_up(reach: int, stride: int) -> int:
    """The smallest multiple of the stride that is not below `reach`."""
    return -(-reach // stride) * stride
