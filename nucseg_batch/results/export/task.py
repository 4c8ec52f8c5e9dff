"""What a format is given to write: an image and its planes, and what the files say of where they are from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.errors import DamageError
from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.spacing import Spacing
from nucseg_batch.results.tables import PlaneRow
from nucseg_batch.results.tracks import ImageTracks


class FormatRefusal(Exception):
    """Why a format cannot hold an image or plane; its text is one line for the user."""


@dataclass(frozen=True)
class ExportTask:
    """One file of a format that holds an image, or one of its planes."""

    path: Path
    """Where it is written."""
    rows: tuple[PlaneRow, ...]
    """The planes, in the order of the table; those without a mask, too."""
    spacing: Spacing
    """How far apart its pixels are."""
    about: Mapping[str, str]
    """What the file says of where it is from."""
    label: str = NUCLEI_LABEL
    """Which label image it holds, of formats that hold one."""
    well_of: Callable[[PlaneRow], tuple[str, str]] = lambda row: ("", "")
    """Says plate and well of a plane; empty texts where not known."""
    tracks_of: Callable[[PlaneRow], ImageTracks | None] = lambda row: None
    """The tracks of the image of a plane; None where its nuclei are not linked over time points."""

    @property
    def good(self) -> list[PlaneRow]:
        """The planes that have a mask; at least one."""
        return [row for row in self.rows if row.segmented]

    def check_done(self) -> None:
        """Raises FormatRefusal where a plane is not segmented yet: an empty page would read as one without nuclei."""
        left = sum(row.status is PlaneStatus.MISSING for row in self.rows)
        if left:
            planes = "plane is" if left == 1 else "planes are"
            raise FormatRefusal(f"{self.rows[0].image}: {left} of its {planes} not segmented yet.")

    @property
    def most(self) -> int:
        """No label is above this: the most nuclei of a plane or, of volumes, the nuclei of all slices of a stack."""
        nuclei: Counter[tuple[int | None, int | None]] = Counter()
        for row in self.good:
            nuclei[row.t, None if self.label == VOLUMES else row.z] += row.nuclei
        return max(nuclei.values())


def linked_tracks(task: ExportTask) -> ImageTracks:
    """The tracks of an image; FormatRefusal where its nuclei are not linked over time points."""
    row = task.good[0]
    tracks = task.tracks_of(row)
    if tracks is None:
        why = "it has no time points" if row.t is None else "the run has no tracks; segment with --link t"
        raise FormatRefusal(f"{row.image}: {why}.")
    return tracks


def track_ids(tracks: ImageTracks, plane: LabelledPlane) -> NDArray[np.int64]:
    """(n,): the track of each label 1..n of a plane; DamageError where the tables are not of each other."""
    ids = tracks.ids.get(plane.row.key, np.zeros(0, np.int64))
    if not ids.size and plane.row.nuclei:
        raise FormatRefusal(f"{plane.row.name}: not linked yet, because other time points are not done.")
    if ids.size != plane.row.nuclei:
        raise DamageError(
            f"{plane.row.name}: tracks.csv has {ids.size} nuclei, and images.csv {plane.row.nuclei}; "
            "`nucseg-batch finish` rewrites them."
        )
    return ids


class Sink(Protocol):
    """A file that is being written."""

    def add(self, plane: LabelledPlane) -> None:
        """Adds the next plane of the task that has a mask."""


Opener = Callable[[ExportTask], AbstractContextManager[Sink]]
"""Begins a file, which appears under its name when the block ends well. Raises Refused where the image does not fit."""


@dataclass(frozen=True)
class ImageFormat:
    """A format with a file for each image, or for each plane."""

    ending: str
    """How its files end."""
    opener: str
    """Module and function of its Opener; imported when it is asked for."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    extra: str = ""
    """The extra of the package that installs them."""
    per: Literal["image", "plane"] = "image"
    """What a file is for."""
    labels: bool = False
    """Whether each label image of a run, such as rings, has files of its own."""
    volumes: bool = False
    """Whether volumes, which are stacks, have files of their own, too."""
    wells: bool = False
    """Whether its files say plate and well."""
    tracks: bool = False
    """Whether its files hold tracks."""
    is_store: bool = False
    """Whether its files are folders, such as zarr stores, which are replaced whole."""
    witness: str = "zarr.json"
    """The file in each of these folders by which it is known that it was written."""

    @property
    def what(self) -> str:
        """What one of its results is called in messages."""
        return "file" if not self.is_store else "store" if self.witness == "zarr.json" else "folder"


@dataclass(frozen=True)
class RunFormat:
    """A format with few files for all images."""

    files: tuple[str, ...]
    """Names of the files; the last is written last."""
    writer: str
    """Module and function of its Writer; imported when it is asked for."""
    needs: tuple[str, ...] = ()
    """Modules that must be installed."""
    extra: str = ""
    """The extra of the package that installs them."""


@dataclass(frozen=True)
class RunExport:
    """All of a run, or those of its images that match a pattern, to be written in few files."""

    run: FinishedRun
    """The run."""
    pattern: str | None
    """Which images; None for all."""
    folder: Path
    """Where the files go."""
    about: Mapping[str, str]
    """What the files say of where they are from."""
    progress: Callable[[int, int], None]
    """Is told how many planes or rows of all are done."""
    planes: int
    """Planes of the run."""


Writer = Callable[[RunExport], list[str]]
"""Writes the files of a format; why planes were left out, a line each.

Raises FormatRefusal where it cannot hold the run.
"""
