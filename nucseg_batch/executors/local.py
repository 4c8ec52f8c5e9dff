"""Segments a folder in this process: discover, plan, run what is missing, join the tables.

Keras is imported only when there is an image to segment, so that refusing, planning and finding everything done are
quick; and the model is loaded before anything is written, so that a call that cannot work leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nucseg_batch.errors import LockedError, NothingToDoError, OutputError, StorageError
from nucseg_batch.executors.existing import check_output, default_model, fingerprint, missing_units, resumed_plan
from nucseg_batch.files import inputs
from nucseg_batch.files.finish import collect, table_paths, write_tables
from nucseg_batch.files.journal import ImageResult, Journal
from nucseg_batch.files.mask_store import create_store, remove_store
from nucseg_batch.pipeline.first_look import choose_scales
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.plan import Failure, ImageInfo, Plan, Scales, Unit, make_plan
from nucseg_batch.settings import SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM})
"""Errors of the output's disk, which no other image would escape."""


class Progress(Protocol):
    """Hears how far a run is."""

    def headers(self, done: int, total: int) -> None:
        """So many headers of all were read."""
        ...

    def start(self, images: int, pixels: int) -> None:
        """Segmenting begins with so much to do."""
        ...

    def image(self, pixels: int, nuclei: int, failed: bool) -> None:
        """One more image is finished."""
        ...

    def note(self, line: str) -> None:
        """Something that the user should know."""
        ...


@dataclass(frozen=True)
class Job:
    """A run as it stands before anything is written."""

    folder: Path
    """IN."""
    store: Path
    """OUT."""
    model: Path
    """The model file."""
    settings: SegmentSettings
    """How to segment."""
    plan: Plan
    """What is to be done in all."""
    missing: tuple[Unit, ...]
    """What is still to be done."""
    files: dict[str, tuple[int, int]]
    """Size and time of last change of every image file, by key."""
    resumed: bool
    """Whether the plan is that of an earlier call."""
    overwrite: bool
    """Whether what is at OUT may be deleted."""

    @property
    def journal(self) -> Journal:
        """The run folder."""
        return Journal(self.store)

    @property
    def complete(self) -> bool:
        """Whether everything is done and written."""
        return not self.missing and all(path.exists() for path in table_paths(self.store).values())


@dataclass(frozen=True)
class RunSummary:
    """What a run came to."""

    images: int
    """Images with a mask, those of earlier calls included."""
    nuclei: int
    """Nuclei in all masks."""
    failures: tuple[Failure, ...]
    """Images without a mask."""
    new_images: int
    """Images that this call segmented."""
    new_pixels: int
    """Pixels that this call segmented."""
    seconds: float
    """Time from the finished plan to the written tables, loading the model included."""
    stream_seconds: float
    """Of these, the time from the first image read to the last unit written."""
    files: tuple[Path, ...]
    """The store and the tables."""


def prepare(
    folder: Path, store: Path, model: Path | None, settings: SegmentSettings, progress: Progress, *, overwrite: bool
) -> Job:
    """Finds out all that can be known without Keras and without writing anything.

    Raises InputMissingError without images or model, NothingToDoError where no image can be used, OutputError where
    OUT is not ours, and MismatchError where it was made from other images or with other settings.
    """
    model = model or default_model()
    found = inputs.discover(folder)
    if found.skipped:
        what = ", ".join(f"{count} x {reason}" for reason, count in sorted(found.skipped.items()))
        progress.note(f"passed over: {what}")
    now = fingerprint(model, settings)
    journal = Journal(store)
    check_output(store, journal, overwrite)
    files = {entry.key: (entry.size, entry.mtime_ns) for entry in found.entries}
    if journal.exists() and not overwrite:
        plan = resumed_plan(journal, found, now)
        missing = missing_units(store, plan, journal)
        return Job(folder, store, model, settings, plan, tuple(missing), files, resumed=True, overwrite=False)
    plan = _plan(folder, found, settings, progress)
    return Job(folder, store, model, settings, plan, tuple(plan.units()), files, resumed=False, overwrite=overwrite)


def run(job: Job, progress: Progress) -> RunSummary:
    """Does what a job still misses and writes the tables.

    Raises LockedError where another process is at it, StorageError where the disk fails, and what loading a model
    raises; images that cannot be used are in the summary's failures.
    """
    started = time.monotonic()
    done = _Counter(progress, job.journal)
    stream_seconds = 0.0
    if not job.complete:
        predictor = _predictor(job) if job.missing else None
        try:
            job.journal.make_place()
            with job.journal.locked():
                _begin(job, predictor)
                stream_started = time.monotonic()
                if predictor is not None:
                    _run_missing(job, predictor, done)
                stream_seconds = time.monotonic() - stream_started
                entries = collect(job.plan, job.journal)
                write_tables(job.store, entries, job.journal)
        except OSError as error:
            raise _storage_error(job.store, error) from error
    else:
        entries = collect(job.plan, job.journal)
    failures = tuple(entry.outcome for entry in entries if isinstance(entry.outcome, Failure))
    return RunSummary(
        images=len(entries) - len(failures),
        nuclei=sum(entry.outcome.nuclei for entry in entries if isinstance(entry.outcome, ImageResult)),
        failures=failures,
        new_images=done.images,
        new_pixels=done.pixels,
        seconds=time.monotonic() - started,
        stream_seconds=stream_seconds,
        files=(job.store, *table_paths(job.store).values()),
    )


def _predictor(job: Job) -> Predictor:
    from nucseg_batch.network.model_file import load_model
    from nucseg_batch.network.predictor import Predictor

    return Predictor(load_model(job.model), job.settings)


def _begin(job: Job, predictor: Predictor | None) -> None:
    """Makes what the run writes to, under its lock: a new run's plan first, then the store, which may be half made."""
    journal = job.journal
    if not job.resumed:
        if journal.exists() and not job.overwrite:
            raise LockedError(f"{journal.folder} was begun by another process just now; run the same command again.")
        if job.overwrite:
            _remove_output(job.store, journal)
        journal.create(job.plan, fingerprint(job.model, job.settings), job.files)
    create_store(job.store, job.plan, with_images=job.settings.with_images)
    if predictor is not None:
        journal.bind(predictor.machine())


def _run_missing(job: Job, predictor: Predictor, done: _Counter) -> None:
    images = [image for unit in job.missing for image in unit.images]
    done.tell(f"computing in {predictor.precision} on {predictor.device}, model {job.model.name}")
    job.journal.log(f"{len(job.missing)} units, {len(images)} images to do; {job.settings}")
    scales = _scales(job, predictor, done)
    done.progress.start(len(images), sum(image.height * image.width for image in images))
    process_units(
        job.missing,
        folder=job.folder,
        store=job.store,
        journal=job.journal,
        predictor=predictor,
        settings=job.settings,
        scales=scales,
        workers=job.settings.workers or min(8, max(1, (os.cpu_count() or 2) // 2)),
        advance=done.advance,
        tell=done.tell,
    )
    job.journal.log(f"{done.images} images segmented")


def _scales(job: Job, predictor: Predictor, done: _Counter) -> Scales:
    """The scales that the run has settled on, or settles on now."""
    scales = job.journal.scales()
    if scales is None:
        scales = choose_scales(
            job.plan, job.folder, predictor.look, predictor.diameter, job.settings, done.progress.note
        )
        job.journal.keep_scales(scales)
    done.tell(scales.reason)
    return scales


class _Counter:
    """Counts what this call did, and tells the user and the log."""

    def __init__(self, progress: Progress, journal: Journal) -> None:
        self.progress = progress
        self._journal = journal
        self.images = 0
        self.pixels = 0

    def tell(self, line: str) -> None:
        """A line for the user and the log."""
        self._journal.log(line)
        self.progress.note(line)

    def advance(self, info: ImageInfo, result: ImageResult | Failure) -> None:
        pixels = info.height * info.width
        if isinstance(result, Failure):
            self._journal.log(f"failed: {result.image} ({result.stage}): {result.message}")
            self.progress.image(pixels, 0, failed=True)
        else:
            self.images += 1
            self.pixels += pixels
            self.progress.image(pixels, result.nuclei, failed=False)


def _plan(folder: Path, found: inputs.Discovery, settings: SegmentSettings, progress: Progress) -> Plan:
    total = len(found.entries)
    images, failures = inputs.read_headers(
        folder, found.entries, max_pixels=settings.max_pixels, progress=lambda n: progress.headers(n, total)
    )
    if not images:
        first = failures[0]
        raise NothingToDoError(
            f"IN {folder}: none of its {total} images can be used; the first, {first.image}: {first.message}"
        )
    return make_plan(images, failures)


def _remove_output(store: Path, journal: Journal) -> None:
    for path in table_paths(store).values():
        path.unlink(missing_ok=True)
    journal.clear()
    if store.exists():
        remove_store(store)


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
