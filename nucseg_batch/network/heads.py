"""What networks are trained for: one `Head` for each task, which all code asks instead of the task's name.

A head says what the network answers for each pixel, how that is learnt, and how labels are made of it on the device and
on the host. `arrays.outputs` names the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.arrays.host_instances import BY_TASK
from nucseg_batch.arrays.instances import foreground_mask, foreground_support, separate_rooted
from nucseg_batch.arrays.outputs import OFFSET_UNIT, OUTPUT_OFFSETS, Output
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.network.losses import foreground_loss, nuclei_loss
from nucseg_batch.settings import Task


@dataclass(frozen=True)
class Head:
    """All that depends on the task of a network."""

    outputs: tuple[Output, ...]
    """Values for each pixel, in the order of their channels."""
    loss: Callable[[Any, Any], Any]
    """Takes a target (batch, height, width, Target) and an output (batch, height, width, outputs), float32 both, and
    gives a scalar."""
    separate: Callable[..., tuple[Any, Any, Any]]
    """Takes an output, heights, widths and the options of `instances.separate_rooted`, and gives what that gives."""
    separate_on_host: Callable[..., SeparatedNuclei]
    """Takes a `NetworkOutput`, height, width and the same options, and gives the same of one image."""
    one_by_one: bool
    """Whether nuclei are separated. If not, the foreground is label 1 without a root: a smallest area does nothing, and
    planes cannot be done by regions, whose nuclei are joined by their roots."""

    def expected(self, truth: NDArray[np.int32]) -> NDArray[np.int32]:
        """The labels that a perfect network finds where nuclei are annotated as 1..n, (height, width)."""
        return truth if self.one_by_one else (truth > 0).astype(np.int32)


def _nuclei(output: Any, heights: Any, widths: Any, **options: Any) -> tuple[Any, Any, Any]:
    offsets = output[..., OUTPUT_OFFSETS] * OFFSET_UNIT
    return separate_rooted(output[..., Output.FOREGROUND], offsets, heights, widths, **options)


def _mask(output: Any, heights: Any, widths: Any, *, threshold: float, **_: Any) -> tuple[Any, Any, Any]:
    foreground = output[..., Output.FOREGROUND]
    mask = foreground_mask(foreground, heights, widths, threshold=threshold)
    return mask, ops.zeros_like(mask), foreground_support(foreground, heights, widths, threshold=threshold)


HEADS: Mapping[Task, Head] = {
    "instances": Head(tuple(Output), nuclei_loss, _nuclei, BY_TASK["instances"], one_by_one=True),
    "semantic": Head((Output.FOREGROUND,), foreground_loss, _mask, BY_TASK["semantic"], one_by_one=False),
}
