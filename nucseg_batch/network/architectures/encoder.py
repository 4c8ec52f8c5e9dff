"""Image classifiers of `keras.applications` as encoders: taken apart and put together again as layers of our network.

The copy has what the original lacks: the dtype policy that is asked for, without touching the global one; names that
are the same however many networks a process has built; plain layers in place of bare arithmetic; normalisation
statistics that follow a short training; and, for inference, no normalisation layers at all (`fold_weights` moves them
into the convolutions before them). Layers beyond the coarsest features, which served classification, are left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from nucseg_batch.network.architectures.parts import MOMENTUM, expanding_arm

_NORM_NAME = re.compile(r"bn_(?P<before>.+)|(?P<after>.+)_(?:bn|BN)")


@dataclass(frozen=True)
class Encoder:
    """A classifier that gives features at several resolutions."""

    title: str
    """What people call it."""
    application: Callable[..., keras.Model]
    """Makes the classifier without its top from `weights` and `input_tensor` or `input_shape`; it expects -1..1."""
    skips: tuple[str, ...]
    """Layers whose outputs are used: half, quarter, eighth, ... of the image's sides."""
    weights_url: str
    """Where its ImageNet weights are published."""
    read: Callable[[keras.Model, Path], None] | None = None
    """Gives the classifier the weights in a published file that is not one of Keras's; None where it is."""

    def features(self, normalise: bool, dtype: str | None) -> tuple[Any, list[Any]]:
        """A fresh input (batch, height, width, 3) float32 of values from 0 on, and the features at each depth."""
        copy = _Copy(normalise, dtype)
        copied = keras.models.clone_model(_original(self), clone_function=copy.layer, call_function=copy.call)
        return copied.inputs[0], copied.outputs

    def unet_features(self, widths: tuple[int, ...], normalise: bool, dtype: str | None) -> tuple[Any, Any]:
        """The `Recipe.features` of a U-Net with this encoder, whose expanding arm has these widths."""
        image, skips = self.features(normalise, dtype)
        return image, expanding_arm(skips, widths, normalise, dtype)


@functools.cache
def _original(encoder: Encoder) -> keras.Model:
    """What is copied, the same for all copies: from pixels of 0 to 1 to the features of a classifier."""
    image = layers.Input((None, None, 3), name="image")
    original = encoder.application(weights=None, input_tensor=layers.Rescaling(2.0, offset=-1.0)(image))
    return keras.Model(image, [original.get_layer(name).output for name in encoder.skips])


def copied_name(layer: keras.Layer) -> str:
    """Name in our network of a layer that has weights; `x_norm` for the normalisation behind the convolution `x`."""
    norm = _NORM_NAME.fullmatch(layer.name)
    return f"encoder_{norm['before'] or norm['after']}_norm" if norm else f"encoder_{layer.name}"


class _Copy:
    """Copies a graph operation by operation, in the order in which they are computed."""

    def __init__(self, normalise: bool, dtype: str | None) -> None:
        self._normalise = normalise
        self._dtype = dtype
        self._nameless = 0

    def layer(self, original: Any) -> Any:
        """The copy of one layer; operations that are not layers are replaced where they are called."""
        if not isinstance(original, keras.Layer) or self._is_dropped(original):
            return original
        config = original.get_config()
        config["name"] = copied_name(original) if original.weights else self._next_name(original)
        if self._dtype is not None:
            config["dtype"] = self._dtype
        if isinstance(original, layers.BatchNormalization):
            config["momentum"] = MOMENTUM
        elif "use_bias" in config and not self._normalise:
            config["use_bias"] = True
        return type(original).from_config(config)

    def call(self, operation: Any, *inputs: Any, **options: Any) -> Any:
        """Calls a copy; arithmetic with a constant becomes a layer."""
        if self._is_dropped(operation):
            return inputs[0]
        if isinstance(operation, keras.Layer):
            return operation(*inputs, **options)
        value, constant = inputs
        kind = type(operation).__name__
        scale, offset = {"Add": (1.0, constant), "Multiply": (constant, 0.0)}[kind]
        name = self._next_name(operation)
        return layers.Rescaling(scale, offset=offset, dtype=self._dtype, name=name)(value)

    def _is_dropped(self, operation: Any) -> bool:
        return isinstance(operation, layers.BatchNormalization) and not self._normalise

    def _next_name(self, operation: Any) -> str:
        self._nameless += 1
        return f"encoder_{self._nameless}_{type(operation).__name__.lower()}"
