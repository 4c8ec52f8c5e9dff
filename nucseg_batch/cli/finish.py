"""The command `finish`."""

from __future__ import annotations

import time

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.cli.wells import updated_wells
from nucseg_batch.errors import EXIT_OK, EXIT_SOME_FAILED


def finish(store: Out, as_json: Json = False) -> None:
    """Merge the results of all shares: tables, labels of large planes, pyramid levels.

    The last share does this automatically; call `finish` if that share was killed. You can call it at any time. Exit
    code 3 means that images failed or are not done yet.

    Examples:
    nucseg-batch finish out.zarr
    nucseg-batch finish out.zarr --json
    """
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.progress import RunProgress
    from nucseg_batch.executors.stop import Stop

    began = time.monotonic()
    with RunProgress() as progress, Stop(tell=progress.note, ended=answer_error):
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import answer
        from nucseg_batch.cli.printed import print_finish
        from nucseg_batch.cli.records import finish_record
        from nucseg_batch.executors import finishing
        from nucseg_batch.executors import job as jobs
        from nucseg_batch.executors.progress import ProgressCounter
        from nucseg_batch.executors.storage import storage_error
        from nucseg_batch.executors.surroundings import job_name

        job = jobs.planned(store)
        try:
            outcome = finishing.finish(job, ProgressCounter(progress, job.journal), job_name(), rewrite=True)
        except OSError as error:
            raise storage_error(store, error) from error
    files = finishing.files_of(job)
    print_finish(outcome, files)
    files = (*files, *updated_wells(store, None))
    code = EXIT_SOME_FAILED if outcome.failures or outcome.missing else EXIT_OK
    if as_json:
        answer(finish_record(store, outcome, files, time.monotonic() - began), code)
    raise typer.Exit(code)
