"""Segmenting a whole collection from Python: what the command does, with the same result on disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.api.values import setting_value
from nucseg_batch.errors import UsageError, did_you_mean
from nucseg_batch.executors import job, local
from nucseg_batch.executors.kept_models import find_model
from nucseg_batch.files.run.wells import is_wells_table
from nucseg_batch.plan import Failure
from nucseg_batch.results.controls import check_controls
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.well_table import update_wells
from nucseg_batch.settings import NewImages, RunSettings, SegmentSettings

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class SegmentResult:
    """The outcome of `segment`."""

    store: Path
    """The masks."""
    tables: dict[str, Path]
    """The tables by name: images, nuclei, failures, wells if the images are on a plate, volumes with `link="z"`, and
    tracks with `link="t"`."""
    images: int
    """Images with a mask."""
    planes: int
    """Planes with a mask; each time point and z-slice is a plane."""
    nuclei: int
    """Nuclei in all masks."""
    failures: tuple[Failure, ...]
    """Images that could not be segmented, and why."""
    volumes: int | None = None
    """Nuclei over z-slices, with `link="z"`; else None."""
    tracks: int | None = None
    """Tracks of nuclei over time points, with `link="t"`; else None."""


class _NotesOnly:
    """Progress of which only lines are passed on."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.note = tell

    def headers(self, done: int, total: int) -> None: ...

    def start(self, count: int, pixels: int, what: str) -> None: ...

    def plane(self, pixels: int, nuclei: int, failed: bool) -> None: ...

    def detail(self, line: str) -> None: ...


def segment(
    images: PathLike,
    store: PathLike | None = None,
    *,
    model: PathLike | None = None,
    pattern: str | None = None,
    in_place: bool = False,
    overwrite: bool = False,
    new: NewImages = "add",
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> SegmentResult:
    """Segments all images of a collection, as `nucseg-batch segment IN OUT.zarr` does, and resumes an earlier run.

    Args:
        images: IN: a folder, file, glob, `@list.txt`, OME-Zarr store or URL.
        store: OUT, a name that ends in `.zarr`; None with `in_place`.
        model: A file made by `train`, or the name of a model kept by `nucseg-batch models add`; None for the default
            model.
        pattern: Only images whose name matches this glob pattern, or whose path matches if it has a `/`.
        in_place: Whether to write the masks as labels into the OME-Zarr store `images`.
        overwrite: Whether to delete an existing output first.
        new: What becomes of images that came since the run was planned: `add`, `report` (to `tell`) or `refuse`.
        tell: Called with each line of progress.
        options: Fields of `nucseg_batch.SegmentSettings`, such as `diameter=26` (pixels) or `channel="DAPI"`; of
            several words with commas also as a list, such as `measure=["shape", "texture"]` or `ring=(1, 5)`.

    Returns:
        The outcome, once every image has been tried; images that could not be segmented are in its `failures`.

    Raises:
        UsageError: An option is unknown or has an invalid value.
        NucsegError: Anything else that the command reports in one line, see `nucseg_batch.errors`.
    """
    if in_place == (store is not None):
        raise UsageError("store: give a name that ends in .zarr, or in_place=True and none.")
    place = os.fspath(images)
    out = Path(place if store is None else store)
    if store is not None and out.suffix != ".zarr":
        raise UsageError(f"store must be a name that ends in .zarr, such as out.zarr, but is {out}.")
    progress = _NotesOnly(tell or (lambda line: None))
    settings = settings_of(options)
    task = job.prepare(
        place,
        out,
        None if model is None else find_model(model, "model"),
        settings,
        progress,
        overwrite=overwrite,
        pattern=pattern,
        in_place=in_place,
        options=RunSettings(new=new),
    )
    if settings.controls is not None:
        check_controls(settings.controls, task.plan, task.mirror, out, task.begun.root)
    outcome = local.run(task, progress).outcome
    with FinishedRun(out) as run:
        update_wells(run, settings.controls)
    tables, wells = dict(task.layout.tables), task.layout.wells
    if is_wells_table(wells):
        tables["wells"] = wells
    if task.layout.linked:
        tables["volumes"] = task.layout.volumes_csv
    if task.layout.tracked:
        tables["tracks"] = task.layout.tracks_csv
    counts = outcome.images, outcome.planes, outcome.nuclei
    return SegmentResult(out, tables, *counts, outcome.failures, outcome.volumes, outcome.tracks)


def settings_of(options: dict[str, Any]) -> SegmentSettings:
    """Settings from keyword arguments; UsageError for an unknown one, with the most similar name, or a wrong value."""
    known = [field.name for field in dataclasses.fields(SegmentSettings)]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, mark="") or f"; there are {', '.join(known)}."
            raise UsageError(f"there is no option {name}{hint}")
    return SegmentSettings(**{name: setting_value(name, value) for name, value in options.items()})
