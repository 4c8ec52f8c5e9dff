"""Arrays of zarr as this program opens them: what zarr's configuration says of all arrays does not count.

Variables such as ZARR_ARRAY__WRITE_EMPTY_CHUNKS, and `~/.config/zarr`, change how zarr lays out arrays, whether chunks
of zeros are files, and whether a missing chunk is an error. Results must not depend on that.

A missing chunk is zeros, as `replace_part` writes it and as most inputs mean it. Whether a file of ours is lost is said
by the size in its unit's marker (`verify`), not by zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zarr

_WANTED = {"order": "C", "write_empty_chunks": False, "read_missing_chunks": True}


def array_config() -> dict[str, Any]:
    """What results depend on of `zarr.config["array"]`, as far as the installed version of zarr knows it."""
    known: Mapping[str, Any] = zarr.config.get("array", {})
    return {name: value for name, value in _WANTED.items() if name in known}


def configured(array: zarr.AsyncArray[Any] | zarr.Array[Any]) -> zarr.AsyncArray[Any]:
    """The same array with `array_config`."""
    config: Any = array_config()
    return zarr.AsyncArray(array.metadata, array.store_path, config)


def open_array(store: Any, mode: str, **options: Any) -> zarr.Array[Any]:
    """`zarr.open_array` with `array_config`; raises what that raises."""
    return zarr.Array(configured(zarr.open_array(store, mode=mode, **options)))
