"""The files of metadata in a store: which there are, and whether they can still be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nucseg_batch.files.masks.ngff import label_paths
from nucseg_batch.files.zarr.folders import NODE_FILES, is_array
from nucseg_batch.plan import Plan

METADATA_FILES = frozenset({*NODE_FILES, ".zattrs", ".zmetadata"})
"""Names of files of metadata, in either format."""


def metadata_files(store: Path, plan: Plan, *, in_place: bool) -> list[str]:
    """The files of metadata of a store, or in place of our labels in it, by path below the store, in order."""
    found = []
    labels = (store / label for label_array in plan.label_arrays for label in label_paths(label_array))
    for top in labels if in_place else [store]:
        for folder, folders, names in os.walk(top):
            if "zarr.json" in names and (Path(folder) / "c").is_dir() and is_array(Path(folder)):
                folders.clear()  # chunks, and nothing else
            folders.sort()
            found += [str((Path(folder) / name).relative_to(store)) for name in names if name in METADATA_FILES]
    return sorted(found)


def metadata_damage(store: Path, name: str) -> str | None:
    """What is wrong with a file of metadata; None where it can be read. What it says may have been added to."""
    try:
        content = json.loads((store / name).read_bytes())
    except FileNotFoundError:
        return "it is missing"
    except (OSError, ValueError):
        return "it cannot be read"
    return None if isinstance(content, dict) else "it cannot be read"
