"""What is written down of a run: how it was begun, what became of each plane, and what its inputs were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nucseg_batch.plan import Assumption, Failure, Plan
from nucseg_batch.settings import SegmentSettings


@dataclass(frozen=True)
class PlaneFingerprint:
    """The input of one plane as it was when it was read."""

    size: int
    """Bytes of its file, as `ImageInfo.size`."""
    mtime_ns: int
    """Time of its last change in nanoseconds."""
    sha256: str
    """Of its pixels as they were read."""
    windows: tuple[tuple[int, int, int, int], ...] = ()
    """First and last row, first and last column of the windows that were read, one after the other, of which the hash
    is; empty where the plane was read whole."""


@dataclass(frozen=True)
class PlaneResult:
    """A segmented plane: its row of images.csv and how much of the unit's part is its own."""

    image: str
    """Key of the image."""
    nuclei: int
    """Nuclei found."""
    summary: dict[str, Any]
    """Values of `columns.PLANE_SUMMARY`."""
    part_bytes: int
    """Length in bytes of its rows in the unit's part of nuclei.csv."""


@dataclass(frozen=True)
class RegionOutcome:
    """A segmented region of a large plane; its nuclei get ids, and the plane its row, when all regions are joined."""

    image: str
    """Key of the image."""
    nuclei: int
    """Nuclei that the region owns."""
    scale: float
    """By how much the plane was enlarged for the network."""


@dataclass(frozen=True)
class Marker:
    """What a finished unit says of itself, an entry for each of its planes in their order."""

    planes: tuple[PlaneResult | RegionOutcome | Failure, ...]
    """Results of planes, or the outcome of the one region, and failures for what has none."""
    shard_bytes: int
    """Size of the unit's shards, of masks and of pixels; 0 where no nucleus was found, and so no file written."""
    sha256: str
    """Of the contents of these shards; of a region, of what was found there."""
    seen: tuple[PlaneFingerprint | None, ...]
    """The input of each plane; None for one that could not be read."""
    part_sha256: str = ""
    """Of the unit's rows of nuclei.csv; `Journal.commit` fills it in."""

    @property
    def whole_planes(self) -> list[PlaneResult | Failure]:
        """The planes of a unit of whole planes."""
        return [plane for plane in self.planes if not isinstance(plane, RegionOutcome)]

    @property
    def failures(self) -> list[Failure]:
        """The planes that failed."""
        return [plane for plane in self.planes if isinstance(plane, Failure)]


@dataclass(frozen=True)
class MergedPlane:
    """What a large plane whose regions were joined says of itself."""

    result: PlaneResult
    """Its row of images.csv, and the length of its rows of nuclei.csv."""
    shard_bytes: tuple[int, ...]
    """Sizes of the shards of its units."""
    sha256: tuple[str, ...]
    """Of the contents of these shards."""
    part_sha256: str
    """Of its rows of nuclei.csv."""


@dataclass(frozen=True)
class RunSpec:
    """All that a run was begun with, so that any process can go on with it."""

    root: str
    """Folder, store or URL that the images' keys are relative to, as an absolute path."""
    model: str
    """Path of the model file, absolute; empty for the one that ships with the package."""
    settings: SegmentSettings
    """How to segment."""
    plan: Plan
    """What is to be done."""
    fingerprint: dict[str, Any]
    """What must be equal in every process that works on the run."""
    files: Mapping[str, tuple[int, int]]
    """Size and time of last change, in nanoseconds, of everything that was found, by key."""
    shares: int = 1
    """Into how many shares the units are divided."""
    in_place: bool = False
    """Whether masks are written as labels into the input store."""
    pattern: str | None = None
    """Which files of the place were meant."""
    assumptions: tuple[Assumption, ...] = ()
    """What was assumed of the input when the run was planned."""
    portions: int = 1
    """In how many portions its images came: 1, and one for each time that some were added."""
    discarded: int = 0
    """How many portions there were when images whose plan was lost were discarded last; 0 if that never happened."""

    @property
    def lacks_discarded(self) -> bool:
        """Whether images were discarded because their plan was lost, and none were added since."""
        return self.discarded == self.portions


@dataclass(frozen=True)
class FinishRecord:
    """What is noted when the tables are written."""

    state: str
    """`Journal.state` of the markers that they were written from."""
    missing: int
    """Planes that were not done then."""
    tables: dict[str, str]
    """The sha256 of each table and of the provenance, by what its name ends in."""
    metadata: list[str] = field(default_factory=list)
    """The files of metadata in the store, by path."""
