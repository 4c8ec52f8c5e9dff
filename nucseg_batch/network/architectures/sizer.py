"""The size network: how wide are nuclei? Answered from afar for a few per cent of what segmenting costs.

Convolutions of stride 2 down to cells of 32 pixels, and what each cell shows: see `arrays.widths`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from nucseg_batch.arrays.widths import BINS
from nucseg_batch.network import backend
from nucseg_batch.network.architectures.parts import MOMENTUM

WIDTHS = (16, 32, 64, 96, 128)
"""Channels after each halving."""
STRIDE = 2 ** len(WIDTHS)
"""Sides of the input must be multiples of this many pixels."""


@backend.own_settings()
def build_sizer(*, normalise: bool, dtype: str | None = None) -> keras.Model:
    """Builds it: (batch, height, width, 3) in, (batch, height / 32, width / 32, 1 + bins) logits out, float32.

    Pixels and `normalise`, `dtype` as `architectures.build` takes them.
    """
    image = layers.Input((None, None, 3), name="size_image")
    x = layers.Conv2D(WIDTHS[0], 4, strides=2, padding="same", dtype=dtype, name="size_stem")(image)
    x = layers.ReLU(dtype=dtype, name="size_stem_relu")(x)
    for depth, width in enumerate(WIDTHS[1:], start=1):
        x = _convolution(x, width, 2, f"size_down{depth}", normalise, dtype)
        x = _convolution(x, width, 1, f"size_keep{depth}", normalise, dtype)
    answer = layers.Conv2D(1 + BINS.size, 1, dtype="float32", name="size_heads")(x)
    return keras.Model(image, answer, name="nucseg_sizer")


def _convolution(x: Any, width: int, stride: int, name: str, normalise: bool, dtype: str | None) -> Any:
    options: dict[str, Any] = {"strides": stride, "padding": "same", "use_bias": not normalise}
    x = layers.Conv2D(width, 3, **options, dtype=dtype, name=name)(x)
    if normalise:
        x = layers.BatchNormalization(momentum=MOMENTUM, dtype=dtype, name=f"{name}_norm")(x)
    return layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)
