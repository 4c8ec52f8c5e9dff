"""MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244) as encoder of a U-Net that answers from half resolution.

Its squeeze-and-excite blocks weigh channels by their mean over the whole input. So there is no finite halo: every
answer depends a little on the whole tile, and an image that is segmented in tiles is not bit-identical to the image in
one piece. `HALO` is a practical value that covers the neighbourhood; images within one tile are exact as ever.

The large variant, because only it has a block at half resolution, which the small one skips: nuclei end there.
"""

from __future__ import annotations

from typing import Any

import keras

from nucseg_batch.network.architectures.encoder import Encoder
from nucseg_batch.network.architectures.recipe import Recipe

HALO = 192
"""Pixels of overlap between tiles: several nuclei to each side, not all that the network sees."""
_STRIDE = 32


def _application(**options: Any) -> keras.Model:
    return keras.applications.MobileNetV3Large(include_top=False, alpha=1.0, include_preprocessing=False, **options)


_ENCODER = Encoder(
    title="MobileNetV3Large",
    application=_application,
    skips=(
        "expanded_conv_add",
        "expanded_conv_2_add",
        "expanded_conv_5_add",
        "expanded_conv_11_add",
        "expanded_conv_14_add",
    ),
    weights_url=(
        "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/"
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"
    ),
)


def _stride(levels: int) -> int:
    return _STRIDE


def _halo(levels: int) -> int:
    return HALO


RECIPE = Recipe(
    features=_ENCODER.unet_features,
    widths=(32, 64, 128, 192),
    levels=range(4, 5),
    block=2,
    stride=_stride,
    halo=_halo,
    encoder=_ENCODER,
)
