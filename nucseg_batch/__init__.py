"""nucseg-batch: nuclei in large collections of microscope images, to OME-Zarr masks and CSV statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from nucseg_batch.files.masks.store import Masks, open_masks

__all__ = ["Masks", "__version__", "open_masks"]


def __getattr__(name: str) -> Any:
    """Loads `open_masks` and `Masks` when they are first used, so that the command line starts without zarr."""
    if name in ("open_masks", "Masks"):
        from nucseg_batch.files.masks import store as mask_store

        return getattr(mask_store, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
