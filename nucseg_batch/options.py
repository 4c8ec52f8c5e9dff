"""How a field of a record of settings is an option of commands, too."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Option:
    """How a setting is given as an option: `--batch-size` for `batch_size`, also in files of options."""

    panel: str
    """The group of options that it is shown in."""
    help: str
    """What it does, for the help."""
    metavar: str | None = None
    """What its value is called there; None for flags and choices."""


def option(default: Any, panel: str, help: str, metavar: str | None = None, **marks: bool) -> Any:
    """A field of a record that is an option of commands, too.

    marks: `speed_only` where it changes nothing but the speed, `refuses_only` where it only decides whether a run
    begins, `of_wells` where it only changes the table of wells, `listed` where it is several words with commas.
    """
    return field(default=default, metadata={"option": Option(panel, help, metavar), **marks})


def option_names(record: Any, but: Collection[str] = ()) -> tuple[str, ...]:
    """The fields of a record of settings that are options, but for some."""
    return tuple(one.name for one in dataclasses.fields(record) if "option" in one.metadata and one.name not in but)
