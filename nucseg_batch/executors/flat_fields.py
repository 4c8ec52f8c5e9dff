"""The flat fields of a run: which images they fit, made once under the root lock, and read by all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from nucseg_batch.errors import OutputError
from nucseg_batch.executors.job import Job
from nucseg_batch.files.flat_field_file import read_flat_field
from nucseg_batch.files.flat_fields import FlatFields, GivenFields, read_flat_fields, write_flat_fields
from nucseg_batch.files.opened import ImageReader
from nucseg_batch.pipeline.flat_fields import estimated_fields


def freeze_flat_fields(job: Job, images: ImageReader, tell: Callable[[str], None]) -> None:
    """Writes the fields of a run unless they are there, under its root lock, and has `images` corrected by them."""
    if job.settings.flatfield is None:
        return
    if read_flat_fields(job.journal.folder) is None:
        path = job.settings.flatfield_file
        fields = _given(path, job) if path else estimated_fields(job.plan, images, tell)
        write_flat_fields(job.journal.folder, fields)
    images.flat_fields = flat_fields(job)


def flat_fields(job: Job) -> FlatFields | None:
    """The fields of a run; None where it has none. Raises OutputError where they are missing or damaged."""
    if job.settings.flatfield is None:
        return None
    found = read_flat_fields(job.journal.folder)
    if found is None:
        raise OutputError(f"{job.journal.folder}: its flat fields are missing; run the same command again.")
    return found


def _given(path: Path, job: Job) -> Iterable[GivenFields]:
    """The fields of a file, for each channel."""
    field = read_flat_field(path, job.settings.max_pixels)
    if field.ndim == 2:
        return [(field.shape, None, 0, field)]
    return [(plane.shape, number, 0, plane) for number, plane in enumerate(field)]
