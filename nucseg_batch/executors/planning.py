"""Writes the plan of a run and its empty store, for processes that then work on it."""

from __future__ import annotations

from nucseg_batch.executors.job import Job
from nucseg_batch.executors.output import add_images, begin, make_store, start_linking
from nucseg_batch.executors.progress import Progress
from nucseg_batch.executors.storage import storage_error
from nucseg_batch.executors.surroundings import job_name
from nucseg_batch.files.run.locks import PATIENCE, ROOT, held, share_lock


def write_plan(job: Job, progress: Progress) -> None:
    """Begins a run, or adds new images to it, without doing anything of it; doing it again changes nothing.

    Raises LockedError where another process is at it, OutputError and StorageError where it cannot be written.
    """
    try:
        job.journal.make_place()
        alone = job.overwrite or job.starts_linking or job.added is not None
        locks = [share_lock(share) for share in job.shares] if alone else []
        name = job_name()
        with (
            held(job.journal.folder, locks, job=name, tell=progress.note),
            held(job.journal.folder, [ROOT], job=name, patience=PATIENCE, tell=progress.note),
        ):
            if job.added is not None:
                add_images(job, progress)
            elif job.starts_linking:
                start_linking(job, progress)
            elif job.resumed:
                make_store(job, progress)
            else:
                begin(job, progress)
    except OSError as error:
        raise storage_error(job.store, error) from error
