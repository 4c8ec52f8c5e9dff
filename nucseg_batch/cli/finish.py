"""The command `finish`."""

from __future__ import annotations

import typer

from nucseg_batch.cli.options import Out
from nucseg_batch.errors import EXIT_SOME_FAILED


def finish(store: Out) -> None:
    """Join what the shares of a run left: tables, ids of large planes, smaller levels. It may be called at any time.

    The share that is done last does the same. Exit code 3 where images failed or are not done yet.

    Example: nucseg-batch finish out.zarr
    """
    from nucseg_batch.cli.printed import print_finish
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors import finishing
    from nucseg_batch.executors import job as jobs
    from nucseg_batch.executors.local import job_name, storage_error
    from nucseg_batch.executors.progress import Counter
    from nucseg_batch.executors.stop import Stop

    with RunProgress() as progress, Stop(tell=progress.note):
        job = jobs.planned(store)
        try:
            outcome = finishing.finish(job, Counter(progress, job.journal), job_name())
        except OSError as error:
            raise storage_error(store, error) from error
    print_finish(outcome, finishing.files_of(store))
    if outcome.failures or outcome.missing:
        raise typer.Exit(EXIT_SOME_FAILED)
