"""Which folders are zarr nodes, from their files alone: without zarr, and without reading more than one of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

NODE_FILES = ("zarr.json", ".zgroup", ".zarray")
"""Files that make a folder a zarr group or array, of formats 3 and 2."""


def is_store(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a zarr group or array; its name does not matter."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in NODE_FILES)


def is_array(folder: Path) -> bool:
    """Whether a folder is a zarr array."""
    if (folder / ".zarray").is_file():
        return True
    try:
        return bool(json.loads((folder / "zarr.json").read_bytes())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
