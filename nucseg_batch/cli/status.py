"""The command `status`."""

from __future__ import annotations

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.cli.text import counted

SHOWN_SHARES = 100
"""Shares that are listed; --json has all."""


def status(store: Out, as_json: Json = False) -> None:
    """Show the progress of a run, share by share, and the processes working on it.

    It only reads; neither Keras nor a GPU is needed.

    Examples:
    nucseg-batch status out.zarr
    # how many units are done, in a script
    nucseg-batch status out.zarr --json | jq .units_done
    """
    from nucseg_batch.cli.console import answer, say
    from nucseg_batch.cli.verify import coverage_text, damage_text
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
    if now.coverage.verified:
        say(coverage_text(now.coverage))
    if now.coverage.damaged:
        say(damage_text(now.coverage))
    if now.complete:
        say("complete: the tables are written")
    elif record["units_done"] == record["units"]:
        say("all units are done; the tables are not written yet")
    else:
        say("not complete")
    if now.next_step is not None:
        say(f"next: {now.next_step}")
