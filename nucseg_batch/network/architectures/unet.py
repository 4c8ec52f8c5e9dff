"""The classic U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), at full resolution.

As in the paper: two 3x3 convolutions and ReLU at each depth, 2x2 maximum on the way down, 2x2 transposed convolutions
on the way up, skips joined as channels, five depths. Different from the paper: convolutions are padded, so that the
answer has the size of the image; they are normalised (Ioffe and Szegedy 2015, arXiv:1502.03167), which the paper does
with careful initial weights; and there are half as many channels, because every doubling quadruples the time.

Images may have any size whose sides are multiples of the stride, 16 pixels; the predictor pads all others.
"""

from __future__ import annotations

from typing import Any

from keras import layers

from nucseg_batch.network.architectures.parts import (
    contracting_arm,
    contracting_reach,
    expanding_arm,
    expanding_reach,
    rounded_up,
)
from nucseg_batch.network.architectures.recipe import Recipe


def _features(widths: tuple[int, ...], normalise: bool, dtype: str | None) -> tuple[Any, Any]:
    image = layers.Input((None, None, 3), name="image")
    return image, expanding_arm(contracting_arm(image, widths, normalise, dtype), widths, normalise, dtype)


def _stride(levels: int) -> int:
    return 2 ** (levels - 1)


def _halo(levels: int) -> int:
    return rounded_up(contracting_reach(levels, 1) + expanding_reach(levels, 1), _stride(levels))


RECIPE = Recipe(
    features=_features,
    widths=(32, 64, 128, 256, 512),
    levels=range(2, 6),
    block=1,
    stride=_stride,
    halo=_halo,
)
