"""`segment --watch`: runs over a folder that is being filled, until a signal ends it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn

from nucseg_batch.cli.printed import print_run
from nucseg_batch.cli.progress import RunProgress
from nucseg_batch.cli.wells import updated_wells
from nucseg_batch.errors import InputMissingError, NothingToDoError, UsageError
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.progress import Progress
from nucseg_batch.executors.stop import Stop
from nucseg_batch.executors.watch import FolderWatch
from nucseg_batch.files.find.entries import Discovery
from nucseg_batch.files.zarr.folders import is_store
from nucseg_batch.results.controls import check_controls


def check_watch(place: str, others: Mapping[str, bool], new: str) -> None:
    """Raises UsageError where --watch does not fit IN or what else was given; others: options by name, if given."""
    for name, given in others.items():
        if given:
            raise UsageError(f"--watch cannot be combined with {name}; leave one of them out.")
    if new != "add":
        raise UsageError(f"--watch adds new images, so --new {new} cannot be given with it; leave one of them out.")
    if not os.path.exists(place):
        raise InputMissingError(f"{place}: there is no such folder.")
    if is_store(place):
        raise UsageError(
            f"--watch: {place} is a zarr store, which does not say when it is complete. Run `segment` without --watch "
            "each time that images in it are complete: it adds them."
        )
    if not os.path.isdir(place):
        raise UsageError(f"--watch needs a folder of image files, but IN is {place}; leave --watch out.")


class _OnceProgress(RunProgress):
    """Progress of one of many runs, which prints each line once in all."""

    def __init__(self, told: set[str]) -> None:
        super().__init__()
        self._told = told

    def note(self, line: str) -> None:
        """One line, unless it was printed before."""
        if line not in self._told:
            self._told.add(line)
            super().note(line)


def watch(
    seconds: float,
    stop: Stop,
    prepare: Callable[[Callable[[Discovery], Discovery], Progress, bool], Job],
    controls: str | None,
) -> NoReturn:
    """Looks into IN once in `seconds` and segments what is complete; a signal ends it, and is raised.

    prepare: makes the job of a look; it is given which images to select, the progress, and whether no run was done yet.
    """
    folder, told, first = FolderWatch(), set[str](), True
    while True:
        with _OnceProgress(told) as progress:
            progress.note(f"looking for complete images every {seconds:g} s; TERM or Ctrl-C ends it")
            with contextlib.suppress(NothingToDoError):
                job = prepare(partial(folder.select, tell=progress.note), progress, first)
                if controls is not None:
                    check_controls(controls, job.plan, job.mirror, job.store, job.begun.root)
                summary = folder.run(job, progress, stop)
                first = False
                updated_wells(job.store, controls)
                if summary.new_planes:
                    print_run(job, summary)
        time.sleep(seconds)
