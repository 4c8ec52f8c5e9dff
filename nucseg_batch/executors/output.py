"""Makes what a run writes to: its plan in the run folder, and the empty store; and deletes an earlier one."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from nucseg_batch.errors import LockedError, MismatchError
from nucseg_batch.executors.existing import check_fingerprint, check_no_links
from nucseg_batch.executors.job import Job, layout_of
from nucseg_batch.executors.progress import Progress
from nucseg_batch.files.atomic_write import remove, write_whole
from nucseg_batch.files.masks.in_place import create_labels, remove_labels
from nucseg_batch.files.masks.store import create_store, remove_arrays, remove_store, set_complete
from nucseg_batch.files.run.locks import ALL, ROOT, holders, share_lock
from nucseg_batch.files.run.portions import replace_first
from nucseg_batch.files.run.wells import remove_wells


def begin(job: Job, progress: Progress) -> None:
    """Makes what a new run writes to, under its root lock: its plan, and then the store.

    A plan that another process has just made is taken over where it is the same.
    """
    journal = job.journal
    if job.overwrite:
        _remove_output(job)
    if journal.exists():
        earlier = journal.load()
        check_fingerprint(journal, earlier.fingerprint, job.begun.fingerprint)
        if (earlier.plan, earlier.shares) != (job.begun.plan, job.begun.shares):
            raise MismatchError(
                f"{journal.folder} was just planned by another process, for other images or another number of shares; "
                "run the same command again."
            )
    else:
        journal.create(job.begun, job.mirror, job.config)
        for one in job.begun.assumptions:
            journal.log(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")
    make_store(job, progress)


def add_images(job: Job, progress: Progress) -> None:
    """Adds the new images of a job to its run, under its root lock, and makes what these are written to.

    The run is not finished from before its new plan appears, so that nobody takes it for finished in between.
    """
    journal = job.journal
    assert job.added is not None
    check_plan(job)
    journal.reopen()
    if not job.begun.in_place:
        set_complete(job.store, False)
        remove_arrays(job.store, job.added.plan)
    journal.add(job.added, job.mirror)
    journal.log(f"added {job.added.plan.image_count} images and {len(job.added.plan.failures)} that cannot be used")
    for one in job.added.assumptions:
        journal.log(f"assumed{' (doubtful)' if one.doubtful else ''}: {one.text}")
    make_store(job, progress)


def start_linking(job: Job, progress: Progress) -> None:
    """Gives a run that was begun without --link one, under its root lock and those of its shares.

    The run is not finished, and has all arrays, from before its plan says so: whatever comes after a kill finds either
    the run as it was, or one whose nuclei are still to be linked.
    """
    journal = job.journal
    check_plan(job)
    check_no_links(job.store, job.begun.settings.link)
    journal.reopen()
    if not job.begun.in_place:
        set_complete(job.store, False)
    make_store(job, progress)
    write_whole(journal.config, job.config)
    replace_first(journal.folder, job.begun.settings, job.begun.fingerprint)
    journal.log(f"--link {job.begun.settings.link} from now on")


def check_plan(job: Job) -> None:
    """Raises LockedError where a run was planned again, or images were added to it, since its plan was read."""
    if job.journal.plan_state() != job.plan_state:
        raise LockedError(f"{job.journal.folder} was just planned again; run the same command again.")


def make_store(job: Job, progress: Progress) -> None:
    """Makes what of the store, or of the labels in the input store, is not there yet."""
    if job.begun.in_place:
        create_labels(job.store, job.plan)
        return
    for note in create_store(job.store, job.plan, with_images=job.settings.with_images, mirror=job.mirror):
        progress.note(note)


def check_free(job: Job, own: Collection[str] = ()) -> None:
    """Raises LockedError where processes are at an output, but for those that hold these locks."""
    others = {name: who for name, who in holders(job.journal.folder).items() if name not in own}
    if others:
        name, who = next(iter(others.items()))
        raise LockedError(f"{job.journal.folder}: {name} is in use by {who}; stop that first, or give another OUT.")


def _remove_output(job: Job) -> None:
    """Deletes an earlier output, unless processes are at it."""
    check_free(job, own={ROOT, ALL, *(share_lock(share) for share in job.shares)})
    remove_wells(job.store)
    layout = job.layout
    with contextlib.suppress(MismatchError):
        layout = layout_of(job.store, job.journal.load().settings) if job.journal.exists() else layout
    for path in layout.results.values():
        with contextlib.suppress(FileNotFoundError):
            remove(path)
    job.journal.clear()
    if job.begun.in_place:
        remove_labels(job.store, job.plan)
    elif job.store.exists():
        remove_store(job.store)
