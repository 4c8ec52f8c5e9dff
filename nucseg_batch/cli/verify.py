"""The command `verify`."""

from __future__ import annotations

import datetime
import re
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from nucseg_batch.cli.options import Json, Out
from nucseg_batch.cli.shares import share_of
from nucseg_batch.cli.text import counted
from nucseg_batch.errors import EXIT_OK, DamageError, UsageError
from nucseg_batch.settings import OUTPUT

if TYPE_CHECKING:
    from nucseg_batch.executors.coverage import Coverage, Scope
    from nucseg_batch.executors.verification import Damage

PART = "Part of the run"
"""Help panel of the options that select the part of a run to verify."""
SHOWN_DAMAGE = 20
"""Damaged results that are listed; --json has all."""
UNITS = {"h": "hours", "d": "days", "w": "weeks"}
"""Units of time by their letter."""


def verify(
    store: Out,
    share: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="Read share K of N of all results, counted from 0.",
            rich_help_panel=PART,
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="P%",
            help="Read this percentage of the results: those that were verified longest ago, or never, first.",
            rich_help_panel=PART,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Read what was not verified since this date (2026-11-01), or within this time (30d, 12h, 2w).",
            rich_help_panel=PART,
        ),
    ] = None,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo", help="Discard damaged results, so that `segment` does them again.", rich_help_panel=OUTPUT
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every mask and table row of a run again and compare them with their checksums.

    Exit code 74 for damage, or if a plan of added images is lost, unless --redo discards it. The run folder records
    what was verified and when, so that calls for parts of a run cover all of it over time; `status` shows how much.

    Examples:
    nucseg-batch verify out.zarr
    # recompute damaged results
    nucseg-batch verify out.zarr --redo
    nucseg-batch segment images/ out.zarr
    # a part each night, so that 50 nights cover all
    nucseg-batch verify out.zarr --sample 2%
    """
    from nucseg_batch.cli.console import answer_error
    from nucseg_batch.cli.progress import RunProgress, StepProgress
    from nucseg_batch.executors.stop import Stop

    with RunProgress() as progress, Stop(tell=progress.note, ended=answer_error):
        # here, since these take a while to import and signals may come meanwhile
        from nucseg_batch.cli.console import answer, say
        from nucseg_batch.executors import job as jobs
        from nucseg_batch.executors import verification
        from nucseg_batch.executors.lost_plans import discard_lost_plans

        scope = scope_of(share, sample, since, time.time())
        if redo:
            discard_lost_plans(store, progress.note)
        job = jobs.planned(store)
        result = verification.verify(job, StepProgress("verified"), scope, tell=progress.note)
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
            "results": result.results,
            "coverage": vars(result.coverage),
            "damage": [{"where": one.where, "what": one.what} for one in result.damage],
        }
        answer(record, EXIT_OK if error is None else error.exit_code, error=None if error is None else str(error))
    else:
        results = "" if scope.whole else f" ({result.results} of {counted(result.coverage.results, 'result')})"
        units = f"{counted(result.units, 'unit')} verified{results}, {result.missing} not done yet"
        say(f"{units}; {_damaged(result.damage)}")
        for one in result.damage[:SHOWN_DAMAGE]:
            say(f"  {one.where}: {one.what}")
        if count > SHOWN_DAMAGE:
            say(f"  ... and {count - SHOWN_DAMAGE} more; --json lists them")
        if not scope.whole:
            say(coverage_text(result.coverage))
    if error is not None:
        raise error
    if result.damage:
        say("damaged results were discarded; run the same `segment` again to recompute them")


def _damaged(damage: Sequence[Damage]) -> str:
    """How many results of each kind are damaged; a file is a table or metadata of the store."""
    kinds = Counter("unit" if one.unit else "large plane" if one.large else "file" for one in damage)
    return "damaged: " + ", ".join(counted(count, kind) for kind, count in kinds.items()) if kinds else "no damage"


def scope_of(share: str | None, sample: str | None, since: str | None, now: float) -> Scope:
    """What is to be read, from the options; now: the time in seconds since 1970. Raises UsageError."""
    from nucseg_batch.executors.coverage import Scope

    number, shares = share_of(share, count_needed=True)
    part = None if sample is None else _part(sample)
    return Scope(number or 0, shares or 1, part, None if since is None else _moment(since, now))


def _part(text: str) -> Fraction:
    """`2.5%` as a part of all."""
    if re.fullmatch(r"\d{1,3}(\.\d{1,9})?%", text, re.ASCII) and 0 < (part := Fraction(text[:-1]) / 100) <= 1:
        return part
    raise UsageError(f"--sample must be a percentage above 0% and at most 100%, such as 2%, but is {text}.")


def _moment(text: str, now: float) -> float:
    """`30d`, or a date or time, as seconds since 1970; of this machine's time zone where it has none."""
    try:
        if found := re.fullmatch(r"(\d{1,6})([hdw])", text, re.ASCII):
            moment = now - datetime.timedelta(**{UNITS[found[2]]: int(found[1])}).total_seconds()
        else:
            moment = datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None or moment > now:
        raise UsageError(
            "--since must be a date or time in the past, such as 2026-11-01, or a number of hours, days or weeks, such "
            f"as 12h, 30d or 2w, but is {text}."
        )
    return moment


def coverage_text(coverage: Coverage) -> str:
    """How far a run was verified, in one line."""
    text = f"verified since they were written: {coverage.verified} of {counted(coverage.results, 'result')}"
    return text if coverage.oldest is None else f"{text}, the oldest on {_minute(coverage.oldest)}"


def damage_text(coverage: Coverage) -> str:
    """What of a run was found damaged and is not mended yet, in one line; coverage: with damage."""
    assert coverage.damage_found is not None
    planes = f" with {counted(coverage.damaged_planes, 'plane')}" if coverage.damaged_planes else ""
    return f"damaged when verified on {_minute(coverage.damage_found)}: {counted(coverage.damaged, 'result')}{planes}"


def _minute(moment: float) -> str:
    """A time in seconds since 1970 as date and time of this machine's time zone."""
    return f"{datetime.datetime.fromtimestamp(moment):%Y-%m-%d %H:%M}"
