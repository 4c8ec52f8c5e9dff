"""Segments a folder in this process: discover, plan, run what is missing, join the tables.

Keras is imported only when there is an image to segment, so that refusing, planning and finding everything done are
quick.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Protocol

from nucseg_batch import __version__
from nucseg_batch.errors import InputMissingError, MismatchError, NothingToDoError, OutputError, StorageError
from nucseg_batch.files import inputs
from nucseg_batch.files.finish import finish, table_paths
from nucseg_batch.files.journal import ImageResult, Journal
from nucseg_batch.files.mask_store import create_store, is_ours, remove_store
from nucseg_batch.pipeline.stream import process_units
from nucseg_batch.plan import Failure, ImageInfo, Plan, make_plan
from nucseg_batch.settings import SegmentSettings

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
    """Time this call took, from start to end."""
    stream_seconds: float
    """Of these, the time from the first image read to the last unit written."""
    files: tuple[Path, ...]
    """The store and the tables."""


def default_model() -> Path:
    """The model that ships with the package."""
    return Path(str(resources.files("nucseg_batch"))) / "models" / "default.keras"


def plan_folder(folder: Path, settings: SegmentSettings, progress: Progress) -> Plan:
    """Discovers and plans a folder; raises NothingToDoError where no image in it can be used."""
    found = inputs.discover(folder)
    _tell_skipped(found, progress)
    return _plan(folder, found, settings, progress)


def segment(
    folder: Path, store: Path, model: Path | None, settings: SegmentSettings, progress: Progress, *, overwrite: bool
) -> RunSummary:
    """Segments every image below `folder` into `store` and the tables beside it.

    Called again it does what is missing. Raises MismatchError where the existing output was made from other images or
    with other settings, OutputError where OUT is not ours, and StorageError where the disk fails; images that cannot
    be used are in the summary's failures.
    """
    started = time.monotonic()
    model = model or default_model()
    found = inputs.discover(folder)
    _tell_skipped(found, progress)
    fingerprint = _fingerprint(model, settings)
    journal = Journal(store)
    _check_output(store, journal, overwrite)
    _make_place(store, journal)
    try:
        with journal.locked():
            if overwrite:
                _remove_output(store, journal)
            if journal.exists():
                plan = _resumed(journal, found, fingerprint)
            else:
                plan = _plan(folder, found, settings, progress)
                create_store(store, plan)
                journal.create(plan, fingerprint)
            done = _Counter(progress, journal)
            stream_started = time.monotonic()
            _run_missing(folder, store, model, plan, journal, settings, done)
            stream_seconds = time.monotonic() - stream_started
            nuclei, failures = finish(store, plan, journal)
            journal.log(f"{done.images} images segmented in {stream_seconds:.1f} s, {len(failures)} without a mask")
    except OSError as error:
        if error.errno in DISK_ERRORS and not isinstance(error, (OutputError, StorageError)):
            raise StorageError(
                f"OUT {store}: writing failed ({os.strerror(error.errno or 0)}). What was finished is kept; make room "
                "and run the same command again."
            ) from error
        raise
    planned = plan.image_count + len(plan.failures)
    return RunSummary(
        images=planned - len(failures),
        nuclei=nuclei,
        failures=tuple(failures),
        new_images=done.images,
        new_pixels=done.pixels,
        seconds=time.monotonic() - started,
        stream_seconds=stream_seconds - done.loading_seconds,
        files=(store, *table_paths(store).values()),
    )


def _run_missing(
    folder: Path, store: Path, model: Path, plan: Plan, journal: Journal, settings: SegmentSettings, done: _Counter
) -> None:
    missing = []
    for unit in plan.units():
        marker = journal.marker(unit)
        if marker is None or marker.failures:
            missing.append(unit)
    if not missing:
        return
    loading = time.monotonic()
    from nucseg_batch.network.model_file import load_model
    from nucseg_batch.network.predictor import Predictor

    predictor = Predictor(load_model(model), settings)
    journal.bind(predictor.machine())
    done.loading_seconds = time.monotonic() - loading
    images = [image for unit in missing for image in unit.images]
    done.tell(f"computing in {predictor.precision} on {predictor.device}, model {model.name}")
    journal.log(f"{len(missing)} units, {len(images)} images to do; {settings}")
    done.progress.start(len(images), sum(image.height * image.width for image in images))
    process_units(
        missing,
        folder=folder,
        store=store,
        journal=journal,
        predictor=predictor,
        settings=settings,
        workers=settings.workers or min(8, max(1, (os.cpu_count() or 2) // 2)),
        advance=done.advance,
    )


class _Counter:
    """Counts what this call did, and tells the user and the log."""

    def __init__(self, progress: Progress, journal: Journal) -> None:
        self.progress = progress
        self._journal = journal
        self.images = 0
        self.pixels = 0
        self.loading_seconds = 0.0

    def tell(self, line: str) -> None:
        """A line for the user and the log."""
        self._journal.log(line)
        self.progress.note(line)

    def advance(self, info: ImageInfo, result: ImageResult | Failure) -> None:
        pixels = info.height * info.width
        if isinstance(result, Failure):
            self._journal.log(f"failed: {result.image} ({result.stage}): {result.message}")
        else:
            self.images += 1
            self.pixels += pixels
        failed = isinstance(result, Failure)
        self.progress.image(pixels, 0 if isinstance(result, Failure) else result.nuclei, failed)


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


def _resumed(journal: Journal, found: inputs.Discovery, fingerprint: dict[str, Any]) -> Plan:
    plan, earlier = journal.load()
    different = [
        f"{name}: {earlier.get(name)!r} -> {value!r}"
        for name, value in fingerprint.items()
        if earlier.get(name) != value
    ]
    if different:
        raise MismatchError(
            f"{journal.folder} was made with other settings ({'; '.join(different)}). Use those again, give another "
            "OUT, or start over with --overwrite."
        )
    planned = {image.key: (image.size, image.mtime_ns) for stack in plan.stacks for image in stack.images}
    present = {entry.key: (entry.size, entry.mtime_ns) for entry in found.entries}
    refused = {failure.image for failure in plan.failures}
    new = sorted(present.keys() - planned.keys() - refused)
    gone = sorted((planned.keys() | refused) - present.keys())
    changed = sorted(key for key in planned.keys() & present.keys() if planned[key] != present[key])
    if new or gone or changed:
        parts = [
            f"{len(keys)} {word} ({keys[0]}{', ...' if len(keys) > 1 else ''})"
            for keys, word in ((new, "new"), (gone, "gone"), (changed, "changed"))
            if keys
        ]
        raise MismatchError(
            f"The images are no longer those that {journal.folder} was planned for: {', '.join(parts)}. Give another "
            "OUT, or start over with --overwrite."
        )
    return plan


def _fingerprint(model: Path, settings: SegmentSettings) -> dict[str, Any]:
    """All that can change a result and can be known without loading Keras."""
    if not model.is_file():
        raise InputMissingError(f"--model {model}: there is no such file. Make one with `nucseg-batch train`.")
    options = {f"--{name.replace('_', '-')}": value for name, value in settings.result_options().items()}
    packages = {name: metadata.version(name) for name in ("keras", "zarr")}
    with open(model, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"nucseg-batch": __version__, "--model (sha256)": digest, **options, **packages}


def _check_output(store: Path, journal: Journal, overwrite: bool) -> None:
    """Refuses an OUT that is not ours, before anything is touched."""
    if store.is_symlink() or (store.exists() and not store.is_dir()):
        raise OutputError(f"OUT {store}: there is a file or link of that name; give another name.")
    if not store.exists() or not any(store.iterdir()):
        return
    if not is_ours(store):
        raise OutputError(f"OUT {store}: it exists and was not made by nucseg-batch; give another name.")
    if not overwrite and not journal.exists() and table_paths(store)["images"].exists():
        raise OutputError(
            f"OUT {store}: it is finished and its run folder {journal.folder.name} was deleted, so nothing can be "
            "added; give another OUT, or start over with --overwrite."
        )


def _make_place(store: Path, journal: Journal) -> None:
    try:
        journal.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"OUT {store}: nothing can be written there ({error.strerror}); give another place."
        ) from error


def _remove_output(store: Path, journal: Journal) -> None:
    for path in table_paths(store).values():
        path.unlink(missing_ok=True)
    journal.clear()
    if store.exists():
        remove_store(store)


def _tell_skipped(found: inputs.Discovery, progress: Progress) -> None:
    if found.skipped:
        what = ", ".join(f"{count} x {reason}" for reason, count in sorted(found.skipped.items()))
        progress.note(f"passed over: {what}")
