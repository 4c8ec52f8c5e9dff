"""The default network: a U-Net that works at half resolution and answers at full resolution.

A 4x4 convolution of stride 2 halves the image first and the head predicts each 2x2 block of pixels as channels. Nearly
all arithmetic of a U-Net is at its finest level, so this is about four times cheaper than the classic form. The
structure follows Ronneberger et al. 2015 (arXiv:1505.04597), the sub-pixel head Shi et al. 2016 (arXiv:1609.05158).
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

_STEM_REACH = 2


def _features(widths: tuple[int, ...], normalise: bool, dtype: str | None) -> tuple[Any, Any]:
    image = layers.Input((None, None, 3), name="image")
    x = layers.Conv2D(widths[0], 4, strides=2, padding="same", dtype=dtype, name="stem")(image)
    x = layers.ReLU(dtype=dtype, name="stem_relu")(x)
    return image, expanding_arm(contracting_arm(x, widths, normalise, dtype), widths, normalise, dtype)


def _stride(levels: int) -> int:
    return 2**levels


def _halo(levels: int) -> int:
    reach = _STEM_REACH + contracting_reach(levels, 2) + expanding_reach(levels, 2)
    return rounded_up(reach, _stride(levels))


RECIPE = Recipe(
    features=_features,
    widths=(32, 64, 128, 192),
    levels=range(2, 6),
    block=2,
    stride=_stride,
    halo=_halo,
)
