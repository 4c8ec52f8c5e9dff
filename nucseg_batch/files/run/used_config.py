"""What a run was begun with, as a file for `--config`: the same command with it does the same again.

OUT is not in it, since it is written where OUT is: whoever does a run again gives another place. How a call goes on,
stops or is spread over machines is not in it either, since that is another matter each time and changes no result.
"""

from __future__ import annotations

import dataclasses
import os

from nucseg_batch import __version__
from nucseg_batch.files.run.records import RunSpec
from nucseg_batch.files.toml import Value, to_toml
from nucseg_batch.files.zarr.store import is_url

HEADING = (
    f"What this run was begun with (nucseg-batch {__version__}).",
    "It is a record: changing it changes nothing. To do the same again:",
)


def used_config(place: str, begun: RunSpec) -> str:
    """The text of the file, from IN as it was given and what was planned; the same in every process that plans it."""
    settings: dict[str, Value | None] = {
        name.replace("_", "-"): value for name, value in dataclasses.asdict(begun.settings).items()
    }
    own = {
        "in": absolute_place(place),
        "model": begun.model or "default",
        "pattern": begun.pattern,
        "in-place": begun.in_place,
    }
    tables: dict[str, dict[str, Value | None]] = {"segment": {**own, **settings}}
    if begun.shares > 1:
        tables["plan"] = {"shares": begun.shares}
    again = "nucseg-batch segment" + ("" if begun.in_place else " AGAIN.zarr") + " --config THIS_FILE"
    return to_toml(tables, (*HEADING, f"    {again}"))


def absolute_place(place: str) -> str:
    """IN as it is found from any folder: absolute, unless it is a URL; a list stays a list."""
    if is_url(place) or place.startswith("file://"):
        return place
    return f"@{os.path.abspath(place[1:])}" if place.startswith("@") else os.path.abspath(place)
