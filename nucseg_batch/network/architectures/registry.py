"""All architectures by name, the record that names a network, and the function that builds it.

The same function builds a network for training (with normalisation layers) and for inference (without: `fold_weights`
moves them into the convolutions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from nucseg_batch.errors import UsageError
from nucseg_batch.network import backend
from nucseg_batch.network.architectures import efficientnetlite0, half_unet, mobilenetv2, mobilenetv3, unet
from nucseg_batch.network.architectures.blocks import to_full_resolution
from nucseg_batch.network.architectures.recipe import Recipe
from nucseg_batch.network.heads import HEADS, Head
from nucseg_batch.settings import Architecture, Task

RECIPES: dict[Architecture, Recipe] = {
    "default": half_unet.RECIPE,
    "unet": unet.RECIPE,
    "mobilenetv2": mobilenetv2.RECIPE,
    "mobilenetv3": mobilenetv3.RECIPE,
    "efficientnetlite0": efficientnetlite0.RECIPE,
}
MAX_WIDTH = 4096
"""Channels above which a network is refused: far beyond use, and a damaged file must not fill memory."""


@dataclass(frozen=True)
class NetworkSpec:
    """What is needed to build a network again; UsageError where there is no such network."""

    architecture: Architecture
    """Which recipe."""
    widths: tuple[int, ...]
    """Feature channels at each depth, finest first; of the decoder, where the encoder is a given one."""
    task: Task
    """What it answers: nuclei one by one, or only the foreground."""

    def __post_init__(self) -> None:
        for name, value, known in (("architecture", self.architecture, RECIPES), ("task", self.task, HEADS)):
            if value not in known:
                raise UsageError(f"{name} must be one of {', '.join(known)}, but is {value!r}.")
        levels = self.recipe.levels
        if len(self.widths) not in levels or not all(1 <= width <= MAX_WIDTH for width in self.widths):
            counts = " or ".join(map(str, levels))
            raise UsageError(
                f"widths of {self.architecture} must be {counts} numbers from 1 to {MAX_WIDTH}, but are {self.widths}."
            )

    @property
    def recipe(self) -> Recipe:
        """How its architecture is built."""
        return RECIPES[self.architecture]

    @property
    def head(self) -> Head:
        """What depends on its task."""
        return HEADS[self.task]

    @property
    def outputs(self) -> int:
        """Values that it answers for each pixel."""
        return len(self.head.outputs)

    @property
    def block(self) -> int:
        """Side in pixels of the square that one output position answers for."""
        return self.recipe.block

    @property
    def stride(self) -> int:
        """Sides of the input must be multiples of this many pixels."""
        return self.recipe.stride(len(self.widths))

    @property
    def halo(self) -> int:
        """Pixels around a place that can change its output, a multiple of the stride.

        For `mobilenetv3`, whose answer depends on the whole input, a practical value; see its file.
        """
        return self.recipe.halo(len(self.widths))

    def loss(self, target: Any, heads: Any) -> Any:
        """The training loss of a batch, a scalar.

        target: (batch, height, width, Target) float32. heads: what the network answers, folded; see `build`.
        """
        target = ops.cast(target, "float32")
        height, width = (side // self.block for side in target.shape[1:3])
        heads = ops.reshape(heads, (-1, height, width, heads.shape[-1]))
        return self.head.loss(target, to_full_resolution(heads, self.block, self.outputs))


def network_spec(architecture: Architecture, task: Task, widths: tuple[int, ...] | None = None) -> NetworkSpec:
    """The network of that name and task, with the architecture's own widths unless others are given."""
    if widths is None and architecture in RECIPES:
        widths = RECIPES[architecture].widths
    return NetworkSpec(architecture, widths or (), task)


@backend.own_settings()
def build(spec: NetworkSpec, *, normalise: bool, dtype: str | None = None) -> keras.Model:
    """Builds a network: (batch, height, width, 3) in, (batch, height / block, width / block, block**2 * outputs) out.

    It takes float32 pixels, normalised so that most are from 0 to 1, in images whose sides are multiples of the stride,
    and gives raw float32 heads for `to_full_resolution`. `normalise` adds the BatchNormalization layers that training
    needs. `dtype` names the Keras dtype policy of all layers but the head, which is always float32. Layers have the
    same names and order each time.
    """
    image, features = spec.recipe.features(spec.widths, normalise, dtype)
    channels = spec.block**2 * spec.outputs
    heads = layers.Conv2D(channels, 1, dtype="float32", name="heads")(features)
    return keras.Model(image, heads, name=f"nucseg_{spec.architecture}")
