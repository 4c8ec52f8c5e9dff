"""Options that several commands share, and the check of places that are written to after long work."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from nucseg_batch.errors import OutputError


class PrecisionChoice(StrEnum):
    """Values of --precision."""

    auto = "auto"
    float32 = "float32"
    mixed_bfloat16 = "mixed_bfloat16"
    mixed_float16 = "mixed_float16"


class DeviceChoice(StrEnum):
    """Values of --device."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"


class ChannelChoice(StrEnum):
    """Values of --channel."""

    auto = "auto"
    grey = "grey"
    red = "red"
    green = "green"
    blue = "blue"


Precision = Annotated[
    PrecisionChoice,
    typer.Option(help="Arithmetic of the network; auto is bfloat16 where the processor computes in it, else float32."),
]
Device = Annotated[DeviceChoice, typer.Option(help="Where to compute; auto takes a GPU when there is one.")]


def check_place(name: str, path: Path) -> None:
    """Makes the folder of a file that will be written after long work; OutputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(f"{name} {path}: it cannot be written there; give another place.")
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{name} {path}: it cannot be written ({error.strerror}); give another place.") from error
