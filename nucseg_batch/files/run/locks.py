"""Who is writing: locks in the run folder that a process holds while it lives, and that name their holder.

A lock is the system's own (flock): it is free as soon as its holder is gone, however that ended, so nobody ever has to
delete a lock file. The root lock is held for moments, while the plan, what all shares agree on and the tables are
written; the lock of a share as long as one process does that share. A process that does all shares would need as many
open files as there are shares; so it holds one lock alone, in which each process that does one share has a part.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nucseg_batch.errors import LockedError

LOCKS = "locks"
"""Folder of the locks in the run folder."""
ROOT = "root"
"""Name of the lock for what all shares have in common."""
ALL = "all-shares"
"""Name of the lock that a process holds alone while it does all shares, and together with others while it does one."""
PATIENCE = 600.0
"""Seconds that a process waits for the root lock."""
POLL = 0.2
"""Seconds between two tries."""
LOOKED_AT = 0.5
"""Seconds for which a lock may seem taken because `holders` looks at it."""
JOBS = (
    ("Slurm job", "SLURM_JOB_ID"),
    ("PBS job", "PBS_JOBID"),
    ("job", "JOB_ID"),
    ("LSF job", "LSB_JOBID"),
)
"""How schedulers call the job that a process belongs to, and the variable that says which."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors of a disk, or of a quota, without room."""
_BUSY = frozenset({errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN})


def share_lock(share: int) -> str:
    """Name of the lock of a share."""
    return f"share-{share:05d}"


@contextlib.contextmanager
def held(
    run_folder: Path, names: Sequence[str], *, job: str = "", patience: float = 0.0, tell: Callable[[str], None]
) -> Iterator[bool]:
    """Holds locks of a run while the block runs; several locks of shares are those of all shares.

    job: what the scheduler calls the work of this process, for whoever finds the locks held. Waits up to `patience`
    seconds, and then raises LockedError, naming the holder. Where the file system has no locks, `tell` says so, and the
    block is given False. On a full disk the locks are held without the name of the holder, and `tell` says so.
    """
    folder = run_folder / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    holder = f"process {os.getpid()} on {platform.node()}{f', {job}' if job else ''}"
    with contextlib.ExitStack() as stack:
        locked = all(
            _take(stack, folder / f"{name}.lock", holder, patience, mode, tell) for name, mode in _modes(names)
        )
        if not locked:
            tell(
                f"{folder} is on a file system without locks, so two processes could do the same work at once; that "
                "costs time and harms nothing."
            )
        yield locked


def holders(run_folder: Path) -> dict[str, str]:
    """Who holds which lock of a run, by the lock's name; nothing is changed, and no lock is taken for longer than that.

    Who does all shares is named for `all-shares`. Where the file system has no locks, nobody seems to hold one.
    """
    found: dict[str, str] = {}
    for path in sorted((run_folder / LOCKS).glob("*.lock")):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in _BUSY:
                    found[path.stem] = file.read().strip() or "another process"
    return found


def _modes(names: Sequence[str]) -> list[tuple[str, int]]:
    """The locks to take for locks that are asked for, and whether alone or together with others."""
    shares = [name for name in names if name not in (ROOT, ALL)]
    others = [(name, fcntl.LOCK_EX) for name in names if name not in shares]
    if len(shares) > 1:
        return [*others, (ALL, fcntl.LOCK_EX)]
    return [*others, *((ALL, fcntl.LOCK_SH) for _ in shares), *((name, fcntl.LOCK_EX) for name in shares)]


def _take(
    stack: contextlib.ExitStack, path: Path, holder: str, patience: float, mode: int, tell: Callable[[str], None]
) -> bool:
    """Takes one lock until the stack is closed; False where there are no locks."""
    file = stack.enter_context(path.open("a+", encoding="utf-8", errors="replace"))
    end = time.monotonic() + max(patience, LOOKED_AT)
    while True:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
            break
        except OSError as error:
            if error.errno not in _BUSY:
                return False
            if time.monotonic() >= end:
                file.seek(0)
                others = {path.stem: file.read().strip()} if path.stem != ALL else {}
                name, who = next(iter((others or holders(path.parent.parent)).items()), (path.stem, ""))
                raise LockedError(
                    f"{path.parent.parent}: {name} is in use by {who or 'another process'}; wait for it, or stop it "
                    "and run the same command again."
                ) from error
            time.sleep(POLL)
    if mode == fcntl.LOCK_SH:
        return True
    stack.callback(_forget, file.fileno())
    try:
        file.truncate(0)
        os.write(file.fileno(), f"{holder}\n".encode("utf-8", "replace"))  # a buffer would be written again on closing
    except OSError as error:
        if error.errno not in FULL:
            raise
        tell(f"the disk of {path.parent.parent} is full: its locks are held, but do not name this process")
    return True


def _forget(handle: int) -> None:
    """Takes the name of the holder away, so that what a run leaves is the same whoever did it."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
