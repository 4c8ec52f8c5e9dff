"""Which places are zarr stores, and the images in them as entries of a discovery."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from nucseg_batch.errors import ImageError
from nucseg_batch.files.find.entries import FileEntry
from nucseg_batch.files.find.skipped import OURS
from nucseg_batch.files.zarr.find import find_images
from nucseg_batch.files.zarr.store import is_url
from nucseg_batch.plan import Failure


@dataclass(frozen=True)
class StoreContent:
    """What one store below a root holds."""

    entries: tuple[FileEntry, ...] = ()
    """Its images."""
    failures: tuple[Failure, ...] = ()
    """Images that cannot be read, or are listed and not there."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What else it holds, by reason."""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """OME-Zarr attributes of its groups, by path below the root."""
    unused_axes: int = 0
    """Images of which other axes are known than were given, which therefore are not used."""


def read_store(root: str, group: str, *, axes: str | None = None) -> StoreContent:
    """The images of the store at a path below a root, which is the store itself where the path is empty.

    axes: those of arrays that do not say them. Raises InputMissingError where there is no such store, and ImageError
    where it cannot be read or holds no image.
    """
    content = find_images(os.path.join(root, group) if group else root, axes=axes)
    if content.ours:
        return StoreContent(skipped={OURS: 1})
    if not content.images and not content.troubles and not content.missing:
        zipped = group.lower().endswith(".zip") or root.lower().endswith(".zip")
        hint = " If image files are in the zip, unpack it." if zipped else ""
        raise ImageError(f"the zarr store holds no image.{hint}")
    name = (root.rstrip("/") if is_url(root) else os.path.abspath(os.path.join(root, group))).rpartition("/")[2]

    def below(path: str) -> str:
        return "/".join(part for part in (group, path) if part)

    entries = []
    for image in content.images:
        path, header = below(image.path), image.header
        key, state = path or name, (header.size, header.mtime_ns)
        entries.append(FileEntry(key, *state, "zarr", name, path, header=header, blank=image.blank))
    troubles = [(trouble.path, trouble.message) for trouble in content.troubles]
    troubles += [(path, "the store's metadata list it, but it is not there.") for path in content.missing]
    return StoreContent(
        tuple(entries),
        tuple(Failure(below(path) or name, "plan", "ImageError", message) for path, message in troubles),
        content.passed_over,
        {below(path): attributes for path, attributes in content.metadata.items()},
        content.unused_axes,
    )
