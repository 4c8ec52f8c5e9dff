"""Writes a run in other formats: image by image, each mask read once for all, and only what is not there yet."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nucseg_batch.compartments import NUCLEI_LABEL, OPTIONS, VOLUMES
from nucseg_batch.errors import NothingToDoError
from nucseg_batch.results.export.folder import ExportFolder, export_folder, remove_empty_folders
from nucseg_batch.results.export.formats import IMAGE_FORMATS, RUN_FORMATS, check_installed, load
from nucseg_batch.results.export.names import Names, plane_suffix
from nucseg_batch.results.export.planes import LabelledPlane, MaskBlocks
from nucseg_batch.results.export.task import ExportTask, FormatRefusal, Opener, RunExport, Sink
from nucseg_batch.results.export.wells import WellNames
from nucseg_batch.results.origin import origin
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.spacing import Spacing, spacing_of
from nucseg_batch.results.tables import PlaneKey, PlaneNuclei, PlaneRow
from nucseg_batch.results.tracks import RunTracks

TOLD = 20
"""Reasons that are kept to be told; the others are counted."""
Progress = Callable[[str, int, int], None]
"""Is told what is being done, and how much of how much is."""


@dataclass
class FormatOutcome:
    """What became of one format."""

    written: int = 0
    """Files that were written."""
    kept: int = 0
    """Files that were there, and younger than the run."""
    removed: int = 0
    """Files of an earlier call that were deleted, because what they show is no longer so."""
    refused: int = 0
    """Images or planes that the format cannot hold."""
    reasons: list[str] = field(default_factory=list)
    """Why, of the first of them."""

    def refuse(self, reason: str) -> None:
        """Counts one more that the format cannot hold."""
        self.refused += 1
        if len(self.reasons) < TOLD:
            self.reasons.append(reason)


@dataclass
class ExportOutcome:
    """What became of a call."""

    formats: dict[str, FormatOutcome]
    """By name, in the order in which they were asked for."""
    images: int = 0
    """Images that match and have a mask."""
    without_mask: int = 0
    """Planes of matching images that have no mask, because they failed or are not done."""


@dataclass
class _Image:
    """An image and the files that are to be written of it."""

    rows: list[PlaneRow]
    files: list[tuple[str, ExportTask]]


def export(
    run: FinishedRun,
    folder: Path,
    formats: Sequence[str],
    *,
    pattern: str | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> ExportOutcome:
    """Writes the images of a run that match, each format into a folder or files of its own below `folder`.

    What is there and younger than the run is kept, unless `overwrite`. Raises UsageError where a library is missing,
    OutputError where the folder cannot be used, NothingToDoError where no image matches, and DamageError where masks
    and tables do not fit each other.
    """
    names = list(dict.fromkeys(formats))
    check_installed(names)
    if next(run.planes(pattern), None) is None:
        asked = "it has no images" if pattern is None else f"none of its images matches --pattern {pattern}"
        raise NothingToDoError(f"{run.store}: {asked}.")
    with export_folder(folder, run, origin(run)) as place:
        call = _Call(run, place, names, pattern, overwrite, progress)
        call.images()
        call.whole()
        call.clear()
        return call.result


class _Call:
    """One call of `export`."""

    def __init__(
        self,
        run: FinishedRun,
        place: ExportFolder,
        names: Sequence[str],
        pattern: str | None,
        overwrite: bool,
        progress: Progress,
    ) -> None:
        self._run = run
        self._place = place
        self._blocks = MaskBlocks(run)
        self._pattern = pattern
        self._overwrite = overwrite
        self._progress = progress
        self._names = Names(run.tables["images"])
        self._openers: dict[str, Opener] = {
            name: load(IMAGE_FORMATS[name].opener) for name in names if name in IMAGE_FORMATS
        }
        self._groups: set[str] = set()
        self._spacings: tuple[str, float | None, Spacing] | None = None
        self.result = ExportOutcome({name: FormatOutcome() for name in names})

    def images(self) -> None:
        """Writes the files of all images."""
        waiting: deque[_Image] = deque()
        pairs = self._run.with_nuclei(self._rows(waiting))
        for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].image):
            self._write(waiting.popleft(), group)
        if "ngio" in self._openers:
            load("nucseg_batch.results.export.ngio:list_images")(self._run, self._place.path, self._groups)

    def whole(self) -> None:
        """Writes the files that are for all images."""
        for name in [name for name in self.result.formats if name in RUN_FORMATS]:
            files = [self._place.path / file for file in RUN_FORMATS[name].files]
            outcome = self.result.formats[name]
            done = [self._place.is_done(file) for file in files]
            if all(done) and self._place.is_same(name, self._pattern) and not self._overwrite:
                outcome.kept = len(files)
                continue

            def told(done: int, total: int, name: str = name) -> None:
                self._progress(name, done, total)

            whole = RunExport(self._run, self._pattern, self._place.path, self._place.about, told, self._names.planes)
            try:
                reasons = load(RUN_FORMATS[name].writer)(whole)
            except FormatRefusal as refused:
                outcome.refuse(str(refused))
                continue
            for reason in reasons:
                outcome.refuse(reason)
            outcome.written = len(files)
            self._place.note(name, self._pattern)

    def clear(self) -> None:
        """Deletes what an earlier call wrote of images that have no mask any more, or of a run that was done anew."""
        for name in self._openers:
            if not IMAGE_FORMATS[name].is_store:  # stores hold many files, and are replaced whole
                tops = [name, *(f"{name}-{label}" for label in (*OPTIONS, VOLUMES) if IMAGE_FORMATS[name].labels)]
                stale = (self._place.remove_stale(IMAGE_FORMATS[name].ending, top) for top in tops)
                self.result.formats[name].removed = sum(stale)

    def _rows(self, waiting: deque[_Image]) -> Iterator[PlaneRow]:
        """The planes with masks of which something is to be written; their images are added to `waiting`."""
        for number, (_, group) in enumerate(itertools.groupby(self._run.planes(self._pattern), lambda row: row.image)):
            rows = list(group)
            self._progress("images", number, self._names.images)
            good = [row for row in rows if row.segmented]
            self.result.images += bool(good)
            self.result.without_mask += len(rows) - len(good)
            files = self._files(rows, good) if good and self._openers else []
            if files:
                waiting.append(_Image(rows, files))
                yield from good

    def _files(self, rows: list[PlaneRow], good: list[PlaneRow]) -> list[tuple[str, ExportTask]]:
        """The files of an image that are to be written."""
        name, files = self._names.of(rows), []
        for kind in self._openers:
            for path, planes, label in self._paths(kind, name, rows, good):
                witness = path / IMAGE_FORMATS[kind].witness if IMAGE_FORMATS[kind].is_store else path
                if self._place.is_done(witness) and not self._overwrite:
                    self.result.formats[kind].kept += 1
                else:
                    about = self._place.about if label == NUCLEI_LABEL else {**self._place.about, "labels": label}
                    more: dict[str, Any] = {"well_of": self._wells.of} if IMAGE_FORMATS[kind].wells else {}
                    more |= {"tracks_of": self._tracks.of} if IMAGE_FORMATS[kind].tracks else {}
                    files.append((kind, ExportTask(path, planes, self._spacing(good[0]), about, label, **more)))
        return files

    def _paths(
        self, kind: str, name: Path, rows: list[PlaneRow], good: list[PlaneRow]
    ) -> Iterator[tuple[Path, tuple[PlaneRow, ...], str]]:
        """Files of a format for an image, and the planes and the label image that they hold."""
        ending = IMAGE_FORMATS[kind].ending
        if kind == "ngio":
            if good[0].index is not None:
                yield self._place.path / kind / name.with_name(f"{name.name}.zarr"), tuple(rows), NUCLEI_LABEL
                return
            group = good[0].mask.rpartition("labels/")[0].rstrip("/")  # an image of a store has a place in it
            self._groups.update(map(str, Path(group).parents if group else ()))
            yield self._place.path / "ngio.zarr" / group, tuple(rows), NUCLEI_LABEL
            return
        labels = self._run.labels_of(rows) if IMAGE_FORMATS[kind].volumes else self._run.labels
        for label in labels if IMAGE_FORMATS[kind].labels else (NUCLEI_LABEL,):
            top = self._place.path / (kind if label == NUCLEI_LABEL else f"{kind}-{label}")
            if IMAGE_FORMATS[kind].per == "image":
                yield top / name.with_name(name.name + ending), tuple(rows), label
            else:
                for row in good:
                    yield top / name.with_name(f"{name.name}{plane_suffix(row.t, row.z)}{ending}"), (row,), label

    @cached_property
    def _wells(self) -> WellNames:
        return WellNames(self._run)

    @cached_property
    def _tracks(self) -> RunTracks:
        return RunTracks(self._run.store)

    def _spacing(self, row: PlaneRow) -> Spacing:
        """Of the images of one array and pixel size it is found once."""
        pixel = row.values.get("pixel_size")
        if self._spacings is None or self._spacings[:2] != (row.mask, pixel):
            self._spacings = row.mask, pixel, spacing_of(self._run, row)
        return self._spacings[2]

    def _write(self, image: _Image, pairs: Iterator[tuple[PlaneRow, PlaneNuclei]]) -> None:
        """Writes the files of an image together, plane by plane."""
        own: dict[PlaneKey, list[tuple[str, ExportTask]]] = {}
        with contextlib.ExitStack() as stack:
            sinks: list[tuple[Sink, str]] = []
            for kind, task in image.files:
                if IMAGE_FORMATS[kind].per == "plane":
                    own.setdefault(task.rows[0].key, []).append((kind, task))
                else:
                    sinks += self._begun(stack, kind, task)
            for row, nuclei in pairs:
                plane = LabelledPlane(self._blocks, row, nuclei)
                for sink, label in sinks:
                    sink.add(plane.of(label))
                for kind, task in own.get(row.key, ()):
                    with contextlib.ExitStack() as file:
                        for sink, label in self._begun(file, kind, task):
                            sink.add(plane.of(label))

    def _begun(self, stack: contextlib.ExitStack, kind: str, task: ExportTask) -> list[tuple[Sink, str]]:
        """A file, begun, and the label image that it holds; none where the format cannot hold what it is for."""
        task.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            sink = stack.enter_context(self._openers[kind](task))
        except FormatRefusal as refused:
            self.result.formats[kind].refuse(str(refused))
            remove_empty_folders(task.path.parent, self._place.path)
            return []
        self.result.formats[kind].written += 1
        return [(sink, task.label)]
