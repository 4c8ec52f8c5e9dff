"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) as encoder of a U-Net that answers from half resolution.

Skips are the outputs of the linear bottlenecks, the narrow ends of the blocks: the wide activations inside blocks are
computed from these by a 1x1 convolution, so they know no more and cost six times as much to join.
"""

from __future__ import annotations

from typing import Any

import keras

from nucseg_batch.network.architectures.encoder import Encoder
from nucseg_batch.network.architectures.parts import expanding_reach, rounded_up
from nucseg_batch.network.architectures.recipe import Recipe

_STRIDE = 32
_REACHES = (1, 2, 2, 4, 4, 8, 8, 8) + (16,) * 7 + (32,) * 3
"""Pixels that each 3x3 convolution reaches: the stem's, then those of blocks 0 to 16; a block has one."""


def _application(**options: Any) -> keras.Model:
    return keras.applications.MobileNetV2(include_top=False, alpha=1.0, **options)


_ENCODER = Encoder(
    title="MobileNetV2",
    application=_application,
    skips=("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_12_add", "block_16_project_BN"),
    weights_url=(
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
)


def _stride(levels: int) -> int:
    return _STRIDE


def _halo(levels: int) -> int:
    return rounded_up(sum(_REACHES) + expanding_reach(levels + 1, 2), _STRIDE)


RECIPE = Recipe(
    features=_ENCODER.unet_features,
    widths=(32, 64, 128, 192),
    levels=range(4, 5),
    block=2,
    stride=_stride,
    halo=_halo,
    encoder=_ENCODER,
)
