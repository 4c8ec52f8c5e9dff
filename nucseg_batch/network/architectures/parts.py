"""Pieces that the networks share: convolutions, the two arms of a U-Net, and how far they reach.

Names of layers are fixed by depth, so that a network built twice has the same layers in the same order, and so that
`fold_weights` finds the normalisation `x_norm` of the convolution `x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

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
        x = layers.Conv2DTranspose(widths[depth], 2, strides=2, dtype=dtype, name=f"up{depth}_grow")(x)
        x = layers.Concatenate(dtype=dtype, name=f"up{depth}_join")([skips[depth], x])
        for part in "ab":
            x = convolution(x, widths[depth], f"up{depth}{part}", normalise, dtype)
    return x


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
