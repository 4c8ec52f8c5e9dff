"""Arrays of our own stores: what zarr's configuration says of all arrays does not count for them.

Variables such as ZARR_ARRAY__WRITE_EMPTY_CHUNKS, and `~/.config/zarr`, change how zarr lays out arrays, whether chunks
of zeros are files, and whether a missing chunk is an error. Results must not depend on that.
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


def open_array(store: Any, mode: str) -> zarr.Array[Any]:
    """`zarr.open_array` with `array_config`; raises what that raises."""
    array: Any = zarr.open_array(store, mode=mode)
    config: Any = array_config()
    return zarr.Array(zarr.AsyncArray(array.metadata, array.store_path, config))
