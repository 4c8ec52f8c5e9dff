"""The record that each architecture's file ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nucseg_batch.network.architectures.encoder import Encoder


@dataclass(frozen=True)
class Recipe:
    """How to build one architecture, and what must be known to use it."""

    features: Callable[[tuple[int, ...], bool, str | None], tuple[Any, Any]]
    """Takes widths, whether to normalise and a dtype policy; gives the input (batch, height, width, 3) and the features
    (batch, height / block, width / block, channels) that the heads are computed from."""
    widths: tuple[int, ...]
    """Channels at each depth, unless others are asked for."""
    levels: range
    """How many widths it can have."""
    block: int
    """Side in pixels of the square that one output position answers for."""
    stride: Callable[[int], int]
    """Takes the number of widths; sides of the input must be multiples of this many pixels."""
    halo: Callable[[int], int]
    """Takes the number of widths; pixels around a place that can change its output, rounded up to the stride."""
    encoder: Encoder | None = None
    """The part that can start from weights learned elsewhere, if there is one."""
