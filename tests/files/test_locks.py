from __future__ import annotations

import errno
import fcntl
import multiprocessing
import multiprocessing.synchronize
import os
import platform
import threading
from pathlib import Path
from typing import Any

import pytest

from nucseg_batch.errors import LockedError
from nucseg_batch.files.run.locks import ALL, LOCKS, ROOT, held, holders, share_lock


def silent(line: str) -> None:
    raise AssertionError(line)


def _hold(run: Path, ready: multiprocessing.synchronize.Event, leave: multiprocessing.synchronize.Event) -> None:
    with held(run, [share_lock(3)], job="Slurm job 17", tell=silent):
        ready.set()
        leave.wait(30)


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """Two copies of one job must not both write; a killed holder leaves nothing that anybody has to delete."""
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready, leave))
    holder.start()
    try:
        assert ready.wait(60)
        said = f"share-00003 is in use by process {holder.pid} on {platform.node()}, Slurm job 17"
        with pytest.raises(LockedError, match=said) as refused, held(tmp_path, [share_lock(3)], tell=silent):
            pass
        assert refused.value.exit_code == 75
        assert holders(tmp_path) == {"share-00003": f"process {holder.pid} on {platform.node()}, Slurm job 17"}
        with held(tmp_path, [ROOT, share_lock(2)], tell=silent):
            pass
    finally:
        holder.kill()
        holder.join()
    assert holders(tmp_path) == {}
    with held(tmp_path, [share_lock(3)], tell=silent):
        pass


def test_a_lock_leaves_nothing_of_its_holder(tmp_path: Path) -> None:
    """What a run leaves behind is the same whoever did it; a file of a killed holder names nobody who is alive."""
    path = tmp_path / LOCKS / f"{share_lock(0)}.lock"
    path.parent.mkdir()
    path.write_text("process 17 on a node that died, with a longer name than ours\n" * 9)
    with held(tmp_path, [share_lock(0)], tell=silent):
        assert path.read_text() == f"process {os.getpid()} on {platform.node()}\n"
    assert path.read_bytes() == b""


def test_all_shares_are_held_or_none(tmp_path: Path) -> None:
    """A process that is refused must not keep others from the shares that are free, however many there are."""
    names = [share_lock(number) for number in range(3)]
    with held(tmp_path, [names[2]], tell=silent):
        with pytest.raises(LockedError, match="share-00002 is in use"), held(tmp_path, names, tell=silent):
            pass
        assert list(holders(tmp_path)) == [names[2]]
        with held(tmp_path, [names[0]], tell=silent):
            assert list(holders(tmp_path)) == [names[0], names[2]]
    with held(tmp_path, names, tell=silent):
        assert list(holders(tmp_path)) == [ALL]
        with pytest.raises(LockedError, match=f"process {os.getpid()} "), held(tmp_path, [names[0]], tell=silent):
            pass
        with held(tmp_path, [ROOT], tell=silent):
            pass
    with held(tmp_path, [names[0]], tell=silent):
        pass


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    """Planning and finishing take their turns."""
    through = threading.Event()

    def wait() -> None:
        with held(tmp_path, [ROOT], patience=60, tell=silent):
            through.set()

    waiting = threading.Thread(target=wait)
    with held(tmp_path, [ROOT], tell=silent):
        waiting.start()
        assert not through.is_set()
    waiting.join(60)
    assert through.is_set()


def test_looking_who_is_there_changes_nothing_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` looks at every lock for a moment; a task that begins at that moment must not be turned away."""
    assert holders(tmp_path) == {}
    with held(tmp_path, [ROOT, share_lock(0)], tell=silent):
        pass
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert holders(tmp_path) == {}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    looks = []
    flock = fcntl.flock

    def busy_once(file: Any, how: int) -> None:
        if not looks:
            looks.append(how)
            with open(file.name) as look:
                flock(look, fcntl.LOCK_SH | fcntl.LOCK_NB)
                flock(file, how)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", busy_once)
    with held(tmp_path, [share_lock(0)], tell=silent):
        assert list(holders(tmp_path)) == [share_lock(0)]
    assert looks


def test_without_locks_a_run_goes_on_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file servers have none; files are written whole, so two writers cost time and no more."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    told: list[str] = []
    with held(tmp_path, [share_lock(0), share_lock(1)], tell=told.append):
        assert holders(tmp_path) == {}
    (line,) = told
    assert "file system without locks" in line
