"""Crops in tests, as the network learns from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from nucseg_batch.training.crops import stacked
from nucseg_batch.training.intensity import in_steps
from nucseg_batch.training.on_device import image_of, target_of


def learnt_from(crop: tuple[NDArray[np.int16], Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image (height, width, 3) and target (height, width, Target), by the operations of the device."""
    values, compact = stacked([crop])
    return ops.convert_to_numpy(image_of(values))[0], target_on_device(compact)[0]


def shown(image: NDArray[Any]) -> NDArray[np.float32]:
    """An image (height, width, 1 or 3) as the network sees it, (height, width, 3)."""
    return ops.convert_to_numpy(image_of(in_steps(image)))


def target_on_device(compact: Any) -> NDArray[np.float32]:
    """Targets (batch, height, width, Target) of compact ones in a batch."""
    return ops.convert_to_numpy(target_of(compact))
