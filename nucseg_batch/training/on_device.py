"""The device's part of training: images and targets from what crops hand over, which is less than a third of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from nucseg_batch.arrays.outputs import OFFSET_UNIT
from nucseg_batch.training.intensity import VALUE_STEP
from nucseg_batch.training.targets import COVER_STEPS

EDGE_WEIGHT = 3.0
"""How much more a pixel at the edge of a nucleus counts in the cross-entropy."""
TYPICAL_AREA = 530.0
"""Area in pixels of a nucleus whose pixels count once; those of smaller ones count more, of larger ones less."""


def image_of(values: Any) -> Any:
    """Normalised images (batch, height, width, 3) float32 of steps of VALUE_STEP, int16."""
    return ops.cast(values, "float32") * VALUE_STEP


def target_of(compact: Mapping[str, Any]) -> Any:
    """What a network of any task is trained to answer, (batch, height, width, Target), of `targets.CompactTarget`s.

    In float32 throughout: TensorFlow keeps integers of 32 bits in the memory of the host.
    """
    labels = ops.cast(compact["labels"], "float32")
    rows = _rows(compact["nuclei"])
    before = ops.cumsum(ops.ones_like(labels[:, :1, :1]), axis=0) - 1.0
    places = ops.cast(labels + 1.0 + before * rows.shape[1], "int32")
    y, x, of_foreground, of_offset = ops.unstack(ops.take(ops.reshape(rows, (-1, 4)), places, axis=0), axis=-1)
    inside = ops.cast(labels > 0, "float32")
    along_y, along_x = (ops.arange(length, dtype="float32") / OFFSET_UNIT for length in labels.shape[1:])
    channels = (
        ops.cast(compact["cover"], "float32") / COVER_STEPS,
        of_foreground * (1.0 + (EDGE_WEIGHT - 1.0) * _edges(labels)),
        y - inside * along_y[:, None],
        x - inside * along_x,
        of_offset,
    )
    return ops.stack(channels, axis=-1)  # in the order of Target


def _rows(nuclei: Any) -> Any:
    """What a pixel's label says of it, (batch, labels, 4): centre, y and x, and weights of foreground and offsets.

    nuclei: as in `CompactTarget`, (batch, nuclei + 1, 3). Labels begin at -1, whose row is 0.
    """
    y, x, areas = ops.unstack(nuclei[:, 1:], axis=-1)
    weight = ops.sqrt(TYPICAL_AREA / ops.maximum(areas, 1.0))
    of_nuclei = (y / OFFSET_UNIT, x / OFFSET_UNIT, ops.clip(weight, 0.7, 2.0), ops.clip(weight, 0.3, 3.0))
    others = ops.zeros_like(nuclei[:, :1, :1]) + ops.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    return ops.concatenate([others, ops.stack(of_nuclei, axis=-1)], axis=1)


def _edges(labels: Any) -> Any:
    """1 where a neighbour along an axis has another label, else 0. Where annotation ends, no nucleus does."""
    down = _differs(labels[:, 1:], labels[:, :-1])
    aside = _differs(labels[:, :, 1:], labels[:, :, :-1])
    either_row = ops.maximum(ops.pad(down, ((0, 0), (1, 0), (0, 0))), ops.pad(down, ((0, 0), (0, 1), (0, 0))))
    either_column = ops.maximum(ops.pad(aside, ((0, 0), (0, 0), (1, 0))), ops.pad(aside, ((0, 0), (0, 0), (0, 1))))
    return ops.maximum(either_row, either_column)


def _differs(one: Any, other: Any) -> Any:
    return ops.cast(ops.logical_and(one != other, ops.minimum(one, other) >= 0), "float32")


class CropLearner(keras.Model):
    """A network in training: takes images as crops hand them over, and learns by a loss of its own.

    loss: of a target, and of an output in float32. target: what makes a target of what crops hand over.
    """

    def __init__(
        self, network: keras.Model, loss: Callable[[Any, Any], Any], target: Callable[[Any], Any] = target_of
    ) -> None:
        super().__init__(dtype="float32")
        self.network = network
        self._loss_of, self._target_of = loss, target
        self.built = True

    def call(self, values: Any, training: bool | None = None) -> Any:
        """The network's output for images."""
        return self.network(image_of(values), training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch, a scalar."""
        return self._loss_of(self._target_of(y), ops.cast(y_pred, "float32"))
