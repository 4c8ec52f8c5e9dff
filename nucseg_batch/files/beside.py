"""Where the tables and the run folder of a store lie: beside it, and never within a store."""

from __future__ import annotations

import os
from pathlib import Path

from nucseg_batch.files.find.stores import is_store


def beside(store: Path, ending: str) -> Path:
    """`out.run` for the store `out.zarr` and the ending `.run`.

    For what lies within a store, as with --in-place it may, that is beside the outermost store: `plate.A-2-0.run` for
    `plate.zarr/A/2/0`.
    """
    whole = os.path.abspath(store)
    around = next((str(parent) for parent in reversed(Path(whole).parents) if is_store(str(parent))), None)
    if around is None:
        return store.with_suffix(ending)
    inner = os.path.relpath(whole, around).replace(os.sep, "-")
    folder = os.path.dirname(around)
    return Path(folder if store.is_absolute() else os.path.relpath(folder), f"{Path(around).stem}.{inner}{ending}")
