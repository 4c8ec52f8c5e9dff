"""A folder that an instrument is filling: which of its files are complete, and a run over these, time after time.

A file is taken for complete when its size and time are the same at two looks, some seconds apart. One that stays still
although it is half written becomes a failure, and is tried again when it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from nucseg_batch.errors import NothingToDoError, UsageError
from nucseg_batch.executors.executor import Stopping
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.local import LocalExecutor
from nucseg_batch.executors.progress import Progress, ProgressCounter
from nucseg_batch.executors.run_job import RunSummary, run_job
from nucseg_batch.files.find.entries import Discovery, FileEntry
from nucseg_batch.files.names import counted

if TYPE_CHECKING:
    from nucseg_batch.network.predictor import Predictor


class FolderWatch:
    """What is known of a folder from one look to the next."""

    def __init__(self) -> None:
        self._seen: dict[str, Hashable] = {}
        self._still: dict[str, FileEntry] = {}
        self._done: dict[str, FileEntry] | None = None
        self._predictor: Predictor | None = None

    def select(self, found: Discovery, tell: Callable[[str], None] = lambda line: None) -> Discovery:
        """Of all that a look found, the images whose files are still; of one that changes, what it was when it was.

        Images of which a file is missing are left out, and so are images in zarr stores: OME-Zarr has nothing that says
        that a store is complete, its metadata are there before its pixels, and empty chunks may be left out. `tell`
        takes a line about these. Raises NothingToDoError where nothing is new since the last run, and UsageError where
        all images are in zarr stores.
        """
        entries = {entry.key: entry for entry in found.entries if entry.kind == "file"}
        if stores := [entry.key for entry in found.entries if entry.kind != "file"]:
            if not entries:
                raise UsageError(
                    f"--watch: the images in {found.root} are in zarr stores, which do not say when they are complete. "
                    "Run `segment` without --watch each time that stores are complete: it adds them."
                )
            tell(f"{counted(stores)}: in zarr stores, which do not say when they are complete; add without --watch")
        seen = {key: (entry.files, entry.size, entry.mtime_ns) for key, entry in entries.items()}
        self._still = {
            key: entry if self._seen.get(key) == seen[key] else self._still[key]
            for key, entry in entries.items()
            if self._seen.get(key) == seen[key] or key in self._still
        }
        self._seen = dict(seen)
        if not self._still or self._still == self._done:
            raise NothingToDoError(f"{found.root}: no new image is complete.")
        return replace(found, entries=tuple(self._still.values()), failures=(), metadata={})

    def run(self, job: Job, progress: Progress, stop: Stopping) -> RunSummary:
        """Does a job that was prepared with `select`, as `local.run`; the model is kept for the next one."""
        looked_at = self._still
        done = ProgressCounter(progress, job.journal, job.options)
        large = any(label_array.regional for label_array in job.plan.label_arrays)  # not every model can do these
        executor = LocalExecutor(job, done, None if large else self._predictor)
        summary = run_job(job, executor, done, stop)
        self._predictor, self._done = executor.predictor or self._predictor, looked_at
        return summary
