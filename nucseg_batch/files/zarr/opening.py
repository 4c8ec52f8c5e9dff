"""Arrays of zarr as this program opens them: what zarr's configuration says of all arrays does not count.

Variables such as ZARR_ARRAY__WRITE_EMPTY_CHUNKS, and `~/.config/zarr`, change how zarr lays out arrays, whether chunks
of zeros are files, and whether a missing chunk is an error. Results must not depend on that.

In arrays of ours a missing chunk is zeros, as `replace_part` writes it; whether a file is lost is said by the size in
its unit's marker (`verify`), not by zarr. In inputs it is what `array.read_missing_chunks` of zarr 3.2 and later says:
whoever turns that off knows that every chunk was written, and gets a failure in place of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import zarr

_INPUT = {"order": "C", "write_empty_chunks": False}
_OURS = {**_INPUT, "read_missing_chunks": True}


def array_config(*, ours: bool) -> dict[str, Any]:
    """What results depend on of `zarr.config["array"]`, as far as the installed version of zarr knows it.

    ours: whether the array was written by this program.
    """
    known: Mapping[str, Any] = zarr.config.get("array", {})
    wanted = {**known, **(_OURS if ours else _INPUT)}
    return {name: wanted[name] for name in _OURS if name in known}


def configured(array: zarr.AsyncArray[Any] | zarr.Array[Any], *, ours: bool) -> zarr.AsyncArray[Any]:
    """The same array with `array_config`."""
    config: Any = array_config(ours=ours)
    return zarr.AsyncArray(array.metadata, array.store_path, config)


def open_array(store: Any, mode: str, **options: Any) -> zarr.Array[Any]:
    """An array of ours: `zarr.open_array` with `array_config`; raises what that raises."""
    return zarr.Array(configured(zarr.open_array(store, mode=mode, **options), ours=True))
