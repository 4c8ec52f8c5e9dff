"""Which share of a run this process does: as the user says, or as a job array's own number says."""

from __future__ import annotations

import os

from nucseg_batch.errors import MismatchError, UsageError

ARRAYS = (
    ("SLURM_ARRAY_TASK_ID", 0),
    ("PBS_ARRAY_INDEX", 0),
    ("PBS_ARRAYID", 0),
    ("SGE_TASK_ID", 1),
    ("LSB_JOBINDEX", 1),
)
"""Variables in which schedulers give a task of an array its number, and the least number that they give."""


def share_of(text: str | None, *, count_needed: bool) -> tuple[int | None, int | None]:
    """Number and count of `7/64`; with a planned run also of `7`, which has no count. None where nothing was said."""
    if text is None:
        return None, None
    number, slash, count = text.partition("/")
    if number.isdecimal() and (count.isdecimal() if slash else not count_needed):
        if not slash:
            return int(number), None
        if int(number) < int(count):
            return int(number), int(count)
    form = "K/N with K counted from 0 and below N, such as 7/64" if count_needed else "a number from 0, such as 7"
    raise UsageError(f"--share must be {form}, but is {text}.")


def array_number(shares: int) -> int | None:
    """The number of this process in a job array, counted from 0, where a run has several shares; None outside of one.

    How many shares there are is never taken from the environment: a task that is sent in again alone would find another
    number there.
    """
    if shares == 1:
        return None
    for name, least in ARRAYS:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) >= least:
            share = int(value) - least
            if share >= shares:
                raise MismatchError(
                    f"{name} is {value}, which means share {share}, but the run has {shares}, counted from 0; submit "
                    f"the array as {least} to {shares - 1 + least}, or give --share."
                )
            return share
    return None
