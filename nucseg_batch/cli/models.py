"""Model files as users name them."""

from __future__ import annotations

from pathlib import Path

import typer

from nucseg_batch.errors import InputMissingError, did_you_mean
from nucseg_batch.files.names import name_beside

DEFAULT = "default"
"""Name of the model that ships with the package, unless there is a file of that name."""


def model_file(context: typer.Context, value: Path | None) -> Path | None:
    """The file of `--model`, which must be there; None for the model that ships.

    Raises InputMissingError, with the nearest name beside it.
    """
    if value is None or context.resilient_parsing:
        return None
    return existing_model("--model", value)


def existing_model(option: str, path: Path) -> Path | None:
    """The same for any option."""
    if path.is_file():
        return path
    if str(path) == DEFAULT:
        return None
    if path.is_dir():
        raise InputMissingError(f"{option} {path}: it is a folder; give the model file in it, which ends in .keras.")
    near = name_beside(str(path), ".keras") or did_you_mean(str(path), [DEFAULT])
    if not near:
        near = f"; `{DEFAULT}` is the one that ships, and `nucseg-batch train` makes others."
    raise InputMissingError(f"{option} {path}: there is no such file{near}")
