"""Processes of this machine as /proc shows them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """Number and environment of all processes that this user may look into, oldest first."""
    for pid in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        yield pid, dict(word.decode(errors="replace").split("=", 1) for word in words if b"=" in word)


def name(pid: int) -> str | None:
    """Its name; None where there is no such process."""
    return _status(pid, "Name")


def alive(pid: int) -> bool:
    """Whether it is there and has not ended."""
    state = _status(pid, "State")
    return state is not None and not state.startswith("Z")


def ancestors(pid: int) -> Iterator[int]:
    """The process, its parent, and so on, without the first of the machine."""
    while pid > 1:
        yield pid
        pid = int(_status(pid, "PPid") or 0)


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal; nothing happens where the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock on a file; found out without trying to take it."""
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return False
    return any(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())


def _status(pid: int, field: str) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:")), None)
