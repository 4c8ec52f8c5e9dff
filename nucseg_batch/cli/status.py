"""The commands `status` and `verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.cli.text import counted
from nucseg_batch.errors import EXIT_OK, DamageError
from nucseg_batch.settings import OUTPUT

if TYPE_CHECKING:
    from nucseg_batch.executors.verification import Damage

SHOWN_SHARES = 100
"""Shares that are listed; --json has all."""
SHOWN_DAMAGE = 20
"""Damaged results that are listed; --json has all."""


def status(store: Out, as_json: Json = False) -> None:
    """Show the progress of a run, share by share, and the processes working on it.

    It only reads; neither Keras nor a GPU is needed.

    Examples:
    nucseg-batch status out.zarr
    # how many units are done, in a script
    nucseg-batch status out.zarr --json | jq .units_done
    """
    from nucseg_batch.cli.console import answer, console, say
    from nucseg_batch.executors.job import journal_at
    from nucseg_batch.executors.verification import status as found

    now = found(store, journal_at(store))
    if as_json:
        answer(now.record())
        return
    record = now.record()
    say(
        f"{record['units_done']} of {counted(record['units'], 'unit')} done, {now.planes_done} planes or regions, "
        f"{now.nuclei} nuclei, {now.failures} failed"
    )
    if len(now.shares) > 1:
        for share in now.shares[:SHOWN_SHARES]:
            state = "done" if share.done == share.units else f"{share.done} of {counted(share.units, 'unit')} done"
            say(
                f"  share {share.share}: {state}, {share.mpx:.1f} Mpx"
                + (f"; in use by {share.holder}" if share.holder else "")
            )
        if len(now.shares) > SHOWN_SHARES:
            say(f"  ... and {len(now.shares) - SHOWN_SHARES} more shares; --json lists them")
    elif now.shares[0].holder:
        say(f"in use by {now.shares[0].holder}")
    if now.finishing:
        say(f"being planned or finished by {now.finishing}")
    if now.complete:
        say("complete: the tables are written")
    elif record["units_done"] == record["units"]:
        say(f"all units are done; write the tables with: nucseg-batch finish {store}")
    else:
        console().print("not complete")


def verify(
    store: Out,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo", help="Discard damaged results, so that `segment` does them again.", rich_help_panel=OUTPUT
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every mask and table row of a run again and compare them with their checksums.

    Exit code 74 for damage.

    Examples:
    nucseg-batch verify out.zarr
    # recompute damaged results
    nucseg-batch verify out.zarr --redo
    nucseg-batch segment images/ out.zarr
    """
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.progress import RunProgress, StepProgress
    from nucseg_batch.executors.stop import Stop

    with RunProgress() as progress, Stop(tell=progress.note, ended=answer_error):
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import answer, say
        from nucseg_batch.executors import job as jobs
        from nucseg_batch.executors import verification

        job = jobs.planned(store)
        result = verification.verify(job, StepProgress("verified"))
        if redo and result.damage:
            verification.forget(job, result.damage, progress.note)
    count = len(result.damage)
    error = None
    if result.damage and not redo:
        error = DamageError(
            f"{store}: {counted(count, 'damaged result')}; `nucseg-batch verify {store} --redo` and then the same "
            "`segment` recompute them."
        )
    if as_json:
        record = {
            "store": str(store),
            "units": result.units + result.missing,
            "units_done": result.units,
            "damage": [{"where": one.where, "what": one.what} for one in result.damage],
        }
        answer(record, EXIT_OK if error is None else error.exit_code, error=None if error is None else str(error))
    else:
        say(f"{counted(result.units, 'unit')} verified, {result.missing} not done yet; {_damaged(result.damage)}")
        for one in result.damage[:SHOWN_DAMAGE]:
            say(f"  {one.where}: {one.what}")
        if count > SHOWN_DAMAGE:
            say(f"  ... and {count - SHOWN_DAMAGE} more; --json lists them")
    if error is not None:
        raise error
    if result.damage:
        say("damaged results were discarded; run the same `segment` again to recompute them")


def _damaged(damage: Sequence[Damage]) -> str:
    """How many results of each kind are damaged; a file is a table or metadata of the store."""
    kinds = Counter("unit" if one.unit else "large plane" if one.large else "file" for one in damage)
    return "damaged: " + ", ".join(counted(count, kind) for kind, count in kinds.items()) if kinds else "no damage"
