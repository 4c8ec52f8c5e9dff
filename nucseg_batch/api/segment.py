"""Segmenting a whole collection from Python: what the command does, with the same result on disk."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nucseg_batch.errors import UsageError
from nucseg_batch.executors import job, local
from nucseg_batch.files.names import did_you_mean
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.plan import Failure
from nucseg_batch.settings import SegmentSettings

TEXTS = ("channel", "t", "z")
"""Options that are text, and for which a number may be given."""
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class SegmentResult:
    """What became of a collection."""

    store: Path
    """The masks."""
    tables: dict[str, Path]
    """The tables by name: images, nuclei, failures."""
    images: int
    """Images with a mask."""
    planes: int
    """Planes with a mask: time points and depths are planes of their own."""
    nuclei: int
    """Nuclei in all masks."""
    failures: tuple[Failure, ...]
    """Images without a mask, and why."""


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
    tell: Callable[[str], None] | None = None,
    **options: Any,
) -> SegmentResult:
    """Segments every image of a place, as `nucseg-batch segment IN OUT.zarr` does; what is done is not done again.

    images: IN: a folder, file, glob, `@list.txt`, store or URL. store: OUT, whose name ends in `.zarr`; None with
    `in_place`. model: made by `train`; None for the one that ships. tell: hears lines about how it goes. options: those
    of `nucseg_batch.SegmentSettings`, such as `diameter=26` (pixels) or `channel="DAPI"`.

    Returns when all images were tried; those that cannot be used are in the result's `failures`. Raises UsageError for
    options that cannot be meant, and what the command reports in one line: see `nucseg_batch.errors`.
    """
    if in_place == (store is not None):
        raise UsageError("store: give a name that ends in .zarr, or in_place=True and none.")
    place = os.fspath(images)
    out = Path(place if store is None else store)
    if store is not None and out.suffix != ".zarr":
        raise UsageError(f"store must be a name that ends in .zarr, such as out.zarr, but is {out}.")
    progress = _NotesOnly(tell or (lambda line: None))
    task = job.prepare(
        place,
        out,
        None if model is None else Path(model),
        settings_of(options),
        progress,
        overwrite=overwrite,
        pattern=pattern,
        in_place=in_place,
    )
    outcome = local.run(task, progress).outcome
    counts = outcome.images, outcome.planes, outcome.nuclei
    return SegmentResult(out, RunLayout(out).tables, *counts, outcome.failures)


def settings_of(options: dict[str, Any]) -> SegmentSettings:
    """The settings that keywords say; UsageError for those that there are not, with the nearest that there is."""
    known = [field.name for field in dataclasses.fields(SegmentSettings)]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known, mark="") or f"; there are {', '.join(known)}."
            raise UsageError(f"there is no option {name}{hint}")
    options = {name: str(value) if name in TEXTS and type(value) is int else value for name, value in options.items()}
    try:
        return SegmentSettings(**options)
    except (TypeError, AttributeError) as error:
        raise UsageError(f"an option has a value of a type that it cannot have: {error}.") from error
