"""The commands `status` and `verify`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nucseg_batch.cli.options import Out
from nucseg_batch.errors import DamageError

SHOWN_SHARES = 100
"""Shares that are listed; --json has all."""
SHOWN_DAMAGE = 20
"""Damaged units that are listed; --json has all."""


def status(
    store: Out, as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False
) -> None:
    """Show how far a run is, share by share, and who is at it. Reads only; Keras and a GPU are not needed.

    Example: nucseg-batch status out.zarr
    """
    from nucseg_batch.cli.console import console, say
    from nucseg_batch.executors.job import journal_at
    from nucseg_batch.executors.verification import status as found

    now = found(store, journal_at(store))
    if as_json:
        print(json.dumps(now.record(), indent=1))
        return
    record = now.record()
    say(
        f"{record['units_done']} of {record['units']} units done, {now.planes_done} planes or regions, "
        f"{now.nuclei} nuclei, {now.failures} failed"
    )
    if len(now.shares) > 1:
        for share in now.shares[:SHOWN_SHARES]:
            state = "done" if share.done == share.units else f"{share.done} of {share.units} units done"
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
        bool, typer.Option("--redo", help="Forget what is damaged, so that `segment` does it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Read every mask and table row of a run again and compare them with what was written. Exit code 74 for damage.

    Example: nucseg-batch verify out.zarr
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.cli.progress import RunProgress, StepProgress
    from nucseg_batch.executors import job as jobs
    from nucseg_batch.executors import verification
    from nucseg_batch.executors.stop import Stop

    with RunProgress() as progress, Stop(tell=progress.note):
        job = jobs.planned(store)
        result = verification.verify(job, StepProgress("verified"))
        if redo and result.damage:
            verification.forget(job, result.damage, progress.note)
    if as_json:
        damage = [{"where": one.where, "what": one.what} for one in result.damage]
        print(json.dumps({"units": result.units, "missing": result.missing, "damage": damage}, indent=1))
    else:
        say(f"{result.units} units verified, {len(result.damage)} damaged, {result.missing} not done yet")
        for one in result.damage[:SHOWN_DAMAGE]:
            say(f"  {one.where}: {one.what}")
        if len(result.damage) > SHOWN_DAMAGE:
            say(f"  ... and {len(result.damage) - SHOWN_DAMAGE} more; --json lists them")
    if result.damage and not redo:
        raise DamageError(
            f"OUT {store}: {len(result.damage)} of its parts are damaged; `verify --redo` and then the same `segment` "
            "do them again."
        )
    if result.damage:
        say("forgotten; run the same `segment` again to have it done anew")
