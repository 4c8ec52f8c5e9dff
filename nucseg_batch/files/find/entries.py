"""What discovery finds: images by name and size, before anything of them is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nucseg_batch.files.find.skipped import SkippedFiles
from nucseg_batch.files.source import ChannelInfo, Header
from nucseg_batch.plan import Assumption, Failure

Kind = Literal["file", "zarr"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An image that was found."""

    key: str
    """Path relative to the root, with `/` and suffix; for the image at a store's own root the store's name."""
    size: int
    """Bytes of its file, or of all its channels' files; of a zarr group, of its metadata."""
    mtime_ns: int
    """Time of the last change, the latest of several files', in nanoseconds."""
    kind: Kind = "file"
    """Whether it is a file or an image in a zarr store."""
    store: str = ""
    """Name of the store it lies in; empty for files."""
    group: str | None = None
    """Path of its group below the root, empty where that is the root; None for files."""
    files: tuple[str, ...] = ()
    """Keys of the files that hold its channels, one each, where a microscope wrote them apart."""
    channels: tuple[ChannelInfo, ...] = ()
    """What is known of these channels."""
    nuclei: int = 0
    """Which of them shows the nuclei."""
    chosen: bool = False
    """Whether its name says that the only channel in it is the one that was asked for."""
    header: Header | None = None
    """What it says of itself, where finding it took reading that."""
    blank: bool = False
    """Whether it is in a zarr store and has no chunk: it is empty, or not written yet."""

    @property
    def name(self) -> str:
        """What a pattern without `/` is compared with: the file's name, or that of the store."""
        return self.store or self.key.rpartition("/")[2]


@dataclass(frozen=True)
class Discovery:
    """What a place holds."""

    root: str
    """Folder, store or URL that keys are relative to."""
    entries: tuple[FileEntry, ...]
    """Images, sorted by key."""
    skipped: dict[str, int]
    """How many other things were passed over, by reason."""
    failures: tuple[Failure, ...] = ()
    """What was asked for by name and cannot be used, sorted by key."""
    unmatched: tuple[FileEntry, ...] = ()
    """Images that do not match the pattern, sorted by key: channels of the others may be among them."""
    notes: tuple[str, ...] = ()
    """What the user should know, a line each."""
    passed: dict[str, SkippedFiles] = field(default_factory=dict)
    """What is known of the things that were passed over, by reason, but for those within stores."""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """OME-Zarr attributes of all groups of the stores that have any, by path below the root."""
    assumptions: tuple[Assumption, ...] = ()
    """What finding assumed, and after `scan_headers` also what readers assumed, merged."""
