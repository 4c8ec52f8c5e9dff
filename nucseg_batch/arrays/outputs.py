"""What a network answers for each pixel, and what it is trained to answer: the channels by name, in their order.

All model files use this order. `network.heads` turns the channels into labels.
"""

from __future__ import annotations

from enum import IntEnum

OFFSET_UNIT = 8.0
"""Pixels that an offset of 1 stands for, in outputs and targets, so that outputs are of the order of 1."""


class Output(IntEnum):
    """Values for each pixel; a network for the foreground alone has only the first."""

    FOREGROUND = 0
    """Logit of the probability that the pixel is nucleus."""
    OFFSET_Y = 1
    """Offset along y from the pixel to the centre of its nucleus."""
    OFFSET_X = 2
    """Offset along x."""


class Target(IntEnum):
    """Values for each pixel of a training target; a network for the foreground alone learns from the first two."""

    FOREGROUND = 0
    """How much of the pixel is nucleus, 0 to 1."""
    FOREGROUND_WEIGHT = 1
    """How much the pixel counts for the foreground; 0 where nothing is annotated."""
    OFFSET_Y = 2
    """As the output."""
    OFFSET_X = 3
    """As the output."""
    OFFSET_WEIGHT = 4
    """How much the pixel counts for the offsets; 0 outside nuclei."""


OUTPUT_OFFSETS = slice(Output.OFFSET_Y, Output.OFFSET_X + 1)
TARGET_OFFSETS = slice(Target.OFFSET_Y, Target.OFFSET_X + 1)
"""Both offsets, y first."""
