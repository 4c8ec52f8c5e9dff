"""Segments a folder in this process: discover, plan, run what is missing, join the tables.

Keras is imported only when there is an image to segment, so that refusing, planning and finding everything done are
quick; and the model is loaded before anything is written, so that a call that cannot work leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucseg_batch.errors import LockedError, NothingToDoError, OutputError, StorageError, UsageError
from nucseg_batch.executors.existing import (
    check_beside,
    check_output,
    default_model,
    fingerprint,
    found_files,
    missing_units,
    planes_apart,
    resumed_plan,
)
from nucseg_batch.executors.progress import Counter, Progress
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.find.survey import survey
from nucseg_batch.files.masks.in_place import check_labels, create_labels, register, remove_labels
from nucseg_batch.files.masks.pixels import check_with_images
from nucseg_batch.files.masks.pyramid import build_levels, levels_missing
from nucseg_batch.files.masks.store import MaskWriter, Metadata, create_store, remove_store
from nucseg_batch.files.opened import Images
from nucseg_batch.files.run.finish import collect, table_paths, write_tables
from nucseg_batch.files.run.journal import Journal, PlaneResult
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.first_look import choose_scales
from nucseg_batch.pipeline.large_planes import join_plane, process_regions
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.plan import Failure, LargePlane, Plan, Scales, Unit, make_plan
from nucseg_batch.settings import SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM})
"""Errors of the output's disk, which no other image would escape."""


@dataclass(frozen=True)
class Job:
    """A run as it stands before anything is written."""

    root: str
    """Folder, store or URL that the images' keys are relative to."""
    store: Path
    """OUT."""
    model: Path
    """The model file."""
    settings: SegmentSettings
    """How to segment."""
    plan: Plan
    """What is to be done in all."""
    missing: tuple[Unit, ...]
    """Units that are still to be done."""
    apart: tuple[LargePlane, ...]
    """Large planes whose regions are still to be joined, after those that are missing are done."""
    files: dict[str, tuple[int, int]]
    """Size and time of last change of every image file, by key."""
    resumed: bool
    """Whether the plan is that of an earlier call."""
    overwrite: bool
    """Whether what is at OUT may be deleted."""
    in_place: bool
    """Whether OUT is IN, an OME-Zarr store that gets labels."""
    metadata: Metadata
    """OME-Zarr attributes of what IN holds, whose structure OUT keeps."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What a run must share with one that it resumes."""
        return fingerprint(self.model, self.settings, in_place=self.in_place)

    @property
    def journal(self) -> Journal:
        """The run folder."""
        return Journal(self.store)

    @property
    def table(self) -> NucleiTable:
        """The columns of nuclei.csv."""
        images = [image for stack in self.plan.stacks for image in stack.images]
        known = self.settings.pixel_size is not None or any(image.pixel_size is not None for image in images)
        return NucleiTable(self.plan.channel_names, known)

    @property
    def complete(self) -> bool:
        """Whether everything is done and written."""
        return not self.missing and not self.apart and all(path.exists() for path in table_paths(self.store).values())


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    images: int
    """Images with a mask, or several, those of earlier calls included."""
    planes: int
    """Their planes."""
    nuclei: int
    """Nuclei in all masks."""
    failures: tuple[Failure, ...]
    """Images without a mask."""
    new_planes: int
    """Planes that this call segmented."""
    new_pixels: int
    """Pixels that this call segmented."""
    seconds: float
    """Time from the finished plan to the written tables, loading the model included."""
    stream_seconds: float
    """Of these, the time from the first image read to the last unit written."""
    files: tuple[Path, ...]
    """The store and the tables."""


def prepare(
    place: str | Path,
    store: Path,
    model: Path | None,
    settings: SegmentSettings,
    progress: Progress,
    *,
    overwrite: bool,
    pattern: str | None = None,
    in_place: bool = False,
) -> Job:
    """Finds out all that can be known without Keras and without writing anything.

    place: IN, as `discover` takes it; pattern: which files of it are meant; in_place: `store` is IN itself.

    Raises InputMissingError without images or model, NothingToDoError where no image can be used, OutputError where
    OUT is not ours, and MismatchError where it was made from other images or with other settings.
    """
    model, place = model or default_model(), str(place)
    found = with_channels(discover(place, pattern=pattern, axes=settings.axes), settings.channel)
    if in_place and found.root != place:
        raise UsageError(f"--in-place: IN {place} is no zarr store, so it cannot hold labels; give OUT instead.")
    journal = Journal(store)
    resumed = journal.exists() and not overwrite
    if not in_place:
        check_output(store, journal, overwrite)
    now = fingerprint(model, settings, in_place=in_place)
    options: dict[str, Any] = {"overwrite": overwrite and not resumed, "in_place": in_place, "metadata": found.metadata}
    if resumed:
        _tell(found, progress)
        plan = resumed_plan(journal, found, now)
        todo = tuple(missing_units(store, plan, journal)), tuple(planes_apart(store, plan, journal))
    else:
        plan = _plan(place, found, settings, progress)
        todo = tuple(plan.units()), tuple(plan.large_planes())
    if in_place:
        check_labels(store, plan, resumed=resumed, overwrite=overwrite)
        check_beside(store, journal)
    if settings.with_images:
        check_with_images(plan)
    return Job(found.root, store, model, settings, plan, *todo, found_files(found), resumed=resumed, **options)


def _tell(found: Discovery, progress: Progress) -> None:
    """Says what was passed over, and what else the user should know of what was found."""
    if found.skipped:
        what = ", ".join(f"{count} x {reason}" for reason, count in sorted(found.skipped.items()))
        progress.note(f"passed over: {what}")
    for note in found.notes:
        progress.note(note)


def run(job: Job, progress: Progress) -> RunSummary:
    """Does what a job still misses and writes the tables.

    Raises LockedError where another process is at it, StorageError where the disk fails, and what loading a model
    raises; images that cannot be used are in the summary's failures.
    """
    started = time.monotonic()
    done = Counter(progress, job.journal)
    stream_seconds = 0.0
    if not job.complete:
        predictor = _predictor(job) if job.missing else None
        try:
            job.journal.make_place()
            with job.journal.locked():
                _begin(job, predictor, progress)
                stream_started = time.monotonic()
                with Images(job.root, job.settings) as images:
                    if predictor is not None:
                        _run_missing(job, images, predictor, done)
                    _join(job, images, done)
                stream_seconds = time.monotonic() - stream_started
                entries = collect(job.plan, job.journal)
                if job.in_place:
                    register(job.store, job.plan)
                write_tables(job.store, entries, job.table)
        except OSError as error:
            raise _storage_error(job.store, error) from error
    else:
        entries = collect(job.plan, job.journal)
    failures = tuple(entry.outcome for entry in entries if isinstance(entry.outcome, Failure))
    return RunSummary(
        images=len({entry.image for entry in entries if isinstance(entry.outcome, PlaneResult)}),
        planes=len(entries) - len(failures),
        nuclei=sum(entry.outcome.nuclei for entry in entries if isinstance(entry.outcome, PlaneResult)),
        failures=failures,
        new_planes=done.planes,
        new_pixels=done.pixels,
        seconds=time.monotonic() - started,
        stream_seconds=stream_seconds,
        files=(job.store, *table_paths(job.store).values()),
    )


def _predictor(job: Job) -> Predictor:
    from nucseg_batch.network.model_file import load_model
    from nucseg_batch.network.predictor import Predictor

    model = load_model(job.model)
    large = next((unit.planes[0] for unit in job.missing if unit.stack.regional), None)
    if large is not None and model.info.task == "semantic":
        raise UsageError(
            f"--model {job.model.name} finds the foreground only, which is not done by regions: {large.name} has "
            f"{large.image.height} x {large.image.width} pixels; raise --region to have it done whole."
        )
    return Predictor(model, job.settings)


def _begin(job: Job, predictor: Predictor | None, progress: Progress) -> None:
    """Makes what the run writes to, under its lock: a new run's plan first, then the store, which may be half made."""
    journal = job.journal
    if not job.resumed:
        if journal.exists() and not job.overwrite:
            raise LockedError(f"{journal.folder} was begun by another process just now; run the same command again.")
        if job.overwrite:
            _remove_output(job)
        journal.create(job.plan, job.fingerprint, job.files, region=job.settings.region)
    if job.in_place:
        create_labels(job.store, job.plan)
    else:
        for note in create_store(job.store, job.plan, with_images=job.settings.with_images, mirror=job.metadata):
            progress.note(note)
    if predictor is not None:
        journal.bind(predictor.machine())


def _run_missing(job: Job, images: Images, predictor: Predictor, done: Counter) -> None:
    planes = sum(unit.plane_count for unit in job.missing)
    done.tell(f"computing in {predictor.precision} on {predictor.device}, model {job.model.name}")
    job.journal.log(f"{len(job.missing)} units, {planes} planes to do; {job.settings}")
    scales = _scales(job, images, predictor, done)
    done.progress.start(planes, sum(unit.pixels for unit in job.missing), _pieces(job.missing))
    shared: dict[str, Any] = {
        "images": images,
        "journal": job.journal,
        "predictor": predictor,
        "settings": job.settings,
        "scales": scales,
        "tell": done.tell,
    }
    process_units(
        [unit for unit in job.missing if not unit.stack.regional],
        **shared,
        writer=MaskWriter(job.store),
        table=job.table,
        workers=job.settings.workers or min(8, max(1, (os.cpu_count() or 2) // 2)),
        advance=done.advance,
    )
    process_regions([unit for unit in job.missing if unit.stack.regional], **shared, advance=done.advance_region)
    job.journal.log(f"{done.planes} planes segmented")


def _pieces(units: Sequence[Unit]) -> str:
    """What progress counts."""
    regional = {unit.stack.regional for unit in units}
    if regional == {True}:
        return "regions"
    single = all(unit.stack.images[0].plane_count == 1 for unit in units)
    return "images" if single and regional == {False} else "planes" if regional == {False} else "planes and regions"


def _join(job: Job, images: Images, done: Counter) -> None:
    """Joins the regions of large planes that are all done, and makes the smaller levels of arrays."""
    writer = MaskWriter(job.store)
    for large in job.apart:
        markers = [job.journal.marker(unit) for unit in large.units]
        if any(marker is None or marker.failures for marker in markers):
            continue
        done.tell(f"{large.plane.name}: joining {len(markers)} regions")
        lost = join_plane(
            large, images=images, journal=job.journal, writer=writer, table=job.table, settings=job.settings
        )
        if lost:
            done.tell(f"{large.plane.name}: {lost} pixels are background because neighbouring regions did not agree")
    for stack in job.plan.stacks:
        if levels_missing(job.store, stack) or any(large.stack == stack for large in job.apart):
            build_levels(job.store, stack)


def _scales(job: Job, images: Images, predictor: Predictor, done: Counter) -> Scales:
    """The scales that the run has settled on, or settles on now."""
    scales = job.journal.scales()
    if scales is None:
        scales = choose_scales(job.plan, images, predictor.look, predictor.diameter, job.settings, done.progress.note)
        job.journal.keep_scales(scales)
    done.tell(scales.reason)
    return scales


def _plan(place: str, found: Discovery, settings: SegmentSettings, progress: Progress) -> Plan:
    total = len(found.entries)
    surveyed = survey(found, settings, lambda done: progress.headers(done, total))
    _tell(surveyed.found, progress)
    if not surveyed.images:
        first = surveyed.failures[0]
        raise NothingToDoError(
            f"IN {place}: none of its {len(surveyed.failures)} images can be used; the first, {first.image}: "
            f"{first.message}"
        )
    return make_plan(surveyed.images, surveyed.failures, region=settings.region)


def _remove_output(job: Job) -> None:
    for path in table_paths(job.store).values():
        path.unlink(missing_ok=True)
    job.journal.clear()
    if job.in_place:
        remove_labels(job.store, job.plan)
    elif job.store.exists():
        remove_store(job.store)


def _storage_error(store: Path, error: OSError) -> Exception:
    """The error to raise for one of the operating system while OUT was written."""
    if isinstance(error, OutputError | StorageError | LockedError):
        return error
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in DISK_ERRORS:
        return StorageError(
            f"OUT {store}: writing failed ({reason}). What was finished is kept; when the disk takes files again, run "
            "the same command again."
        )
    return OutputError(f"OUT {store}: it cannot be written ({reason}).")
