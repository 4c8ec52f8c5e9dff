from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nucseg_batch.cli.main import main
from nucseg_batch.errors import StoppedError
from nucseg_batch.executors.stop import SIGNALS, Stop

CODES = {signal.SIGTERM: 75, signal.SIGINT: 130, signal.SIGUSR1: 75, signal.SIGUSR2: 75}
PROGRAM = """
import hashlib, os, signal, stat, subprocess, sys, time
from pathlib import Path
from nucseg_batch.errors import NucsegError
from nucseg_batch.executors.stop import Stop

def tell(line):
    print(line, flush=True)

def wait():
    while True:  # a signal just before one long sleep would be handled only after it
        time.sleep(0.01)

def device_call():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # one call of C, for many minutes

def units(stop):
    for unit in range(3000):
        if stop.asked:
            return
        tell(f"begun {unit}")
        time.sleep(0.1)
        Path(str(unit)).touch()
        tell(f"done {unit}")

def work():
    {body}

try:
    work()
    tell("finished")
except NucsegError as error:
    tell(str(error))
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    tell("interrupted")
    sys.exit(130)
"""
DRAINING = """
    with Stop(grace=600, tell=tell) as stop:
        with stop.draining():
            tell("ready")
            units(stop)
        tell("not reached")
"""
DEAF = """
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        tell("ready")
        wait()
"""
LEFT = "stopped without waiting; finished work is kept. Run the same command again to resume."
SECOND = f"a second signal: {LEFT}"
STOPPING = "stopping: finishing work in flight, at most 600 s; a second signal stops at once"
STOPPED = {75: "stopped; run the same command again to resume.", 130: "interrupted"}


class Running:
    """A program that uses Stop, in a process group of its own; its lines are all that it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, start: str) -> None:
        """Reads lines until one begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith(start):
                return
        pytest.fail(f"no line {start!r} in {self.lines}")

    def end(self) -> int:
        """Reads the rest and waits; returns the exit code."""
        assert self.process.stdout is not None
        self.lines += [line.rstrip("\n") for line in self.process.stdout]
        return self.process.wait(timeout=120)


Start = Callable[..., Running]


def _listening() -> None:
    """In the new process: Ctrl-C counts, also where the tests were started in the background, by a shell's `&`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program with a body for its `work`, perhaps below another program, and has it ready for signals."""
    begun: list[subprocess.Popen[str]] = []

    def run(body: str, *before: str) -> Running:
        program = PROGRAM.replace("{body}", body.strip())
        process = subprocess.Popen(
            [*before, sys.executable, "-W", "ignore", "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
            start_new_session=True,
            preexec_fn=_listening,
        )
        begun.append(process)
        running = Running(process)
        running.until("ready")
        return running

    yield run
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(("number", "code"), CODES.items(), ids=lambda value: str(value))
def test_one_signal_finishes_the_unit_in_hand_and_ends(start: Start, tmp_path: Path, number: int, code: int) -> None:
    """Nothing that was begun is lost, nothing new is begun, and the exit code tells a scheduler to run it again."""
    running = start(DRAINING)
    running.until("done 0")
    running.until("begun 1")
    running.process.send_signal(number)
    assert running.end() == code
    assert running.lines.count(STOPPING) == 1
    assert running.lines[-1] == STOPPED[code]
    done = [line.split()[1] for line in running.lines if line.startswith("done")]
    assert [line.split()[1] for line in running.lines if line.startswith("begun")] == done
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(done)
    assert "not reached" not in running.lines


@pytest.mark.parametrize(("number", "code"), CODES.items(), ids=lambda value: str(value))
def test_outside_of_the_stream_one_signal_ends_at_once(start: Start, number: int, code: int) -> None:
    """Planning and loading have nothing to lose; and code that makes a failure of every error must let it pass."""
    running = start("""
    with Stop(grace=600, tell=tell):
        try:
            tell("ready")
            wait()
        except Exception:
            tell("taken for the failure of an image")
        finally:
            tell("cleaned up")
    """)
    running.process.send_signal(number)
    assert running.end() == code
    assert running.lines == ["ready", "cleaned up", STOPPED[code]]


def test_a_second_signal_of_another_kind_leaves_at_once(start: Start) -> None:
    """USR1 as a warning, then TERM because it took too long; the code is that of the first."""
    running = start(DEAF)
    running.process.send_signal(signal.SIGUSR1)
    running.until("stopping")
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 75
    assert running.lines == ["ready", STOPPING, SECOND]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_insisting_leaves_at_once(start: Start, number: int) -> None:
    """Whoever presses Ctrl-C again means it."""
    running = start(DEAF)
    running.process.send_signal(number)
    running.until("stopping")
    while running.process.poll() is None:
        running.process.send_signal(number)
        threading.Event().wait(0.05)
    assert running.end() == CODES[signal.Signals(number)]
    assert running.lines[-1] == SECOND


def test_a_signal_that_is_sent_twice_by_one_wish_is_one(start: Start) -> None:
    """`timeout` signals its child and then the group the child is in; this must not cost the work in hand."""
    running = start("""
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        sys.setswitchinterval(60)  # both come before anything else runs
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        sys.setswitchinterval(0.005)
        time.sleep(1)
        tell("ready")
    """)
    assert running.end() == 75
    assert running.lines == [STOPPING, "ready", STOPPED[75]]


def test_below_the_command_timeout_it_drains(start: Start) -> None:
    """The real one, which many people wrap long commands in; it passes on what it gets as it does when time is up."""
    running = start(DRAINING, "timeout", "600")
    running.until("begun 1")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 75
    assert running.lines[-1] == STOPPED[75]


@pytest.mark.parametrize("phase", ["stop.draining()", "contextlib.nullcontext()"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_long_call_of_the_device_does_not_outlast_the_grace(start: Start, phase: str, number: int) -> None:
    """Python's own handlers would wait for it, and the scheduler kills what does not leave in time."""
    running = start(f"""
    import contextlib
    with Stop(grace=0.5, tell=tell) as stop, {phase}:
        try:
            tell("ready")
            device_call()
        finally:
            device_call()  # where the signal came before the first
    """)
    running.process.send_signal(number)
    assert running.end() == CODES[signal.Signals(number)]
    left = f"still at work 0.5 s after the signal: {LEFT}"
    assert running.lines[-1] == left
    told = [STOPPING.replace("600", "0.5")] if "draining" in phase else []
    assert running.lines == ["ready", *told, left]


def test_leaving_does_not_wait_for_a_reader_of_its_lines(start: Start) -> None:
    """Standard error may be a pipe that nobody empties."""
    running = start("""
    with Stop(grace=0.5, tell=lambda line: time.sleep(600)) as stop, stop.draining():
        tell("ready")
        device_call()
    """)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 75
    assert running.lines == ["ready"]


def test_a_stop_that_a_library_swallowed_is_remembered(start: Start) -> None:
    """The stream is not begun after it, and the command does not end as if all were done."""
    running = start("""
    with Stop(grace=600, tell=tell) as stop:
        try:
            tell("ready")
            wait()
        except BaseException:
            tell("swallowed")
        with stop.draining():
            tell("not reached")
    """)
    running.process.send_signal(signal.SIGUSR2)
    assert running.end() == 75
    assert running.lines == ["ready", "swallowed", STOPPED[75]]


def test_an_error_while_draining_is_told_and_not_hidden_by_the_stop(start: Start) -> None:
    """A full disk is still a full disk."""
    running = start("""
    from nucseg_batch.errors import StorageError
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        tell("ready")
        while not stop.asked:
            time.sleep(0.01)
        raise StorageError("disk full")
    """)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 74
    assert running.lines[-1] == "disk full"


def test_a_signal_to_the_whole_group_drains_although_children_die(start: Start) -> None:
    """Slurm signals all processes of a job; children have default handlers and no file of ours."""
    running = start("""
    listing = "import os, stat; print([fd for fd in range(3, 50) if os.path.exists(f'/proc/self/fd/{fd}')"
    listing += " and stat.S_ISSOCK(os.fstat(fd).st_mode)], flush=True); import time; time.sleep(600)"
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        child = subprocess.Popen([sys.executable, "-c", listing], stdout=subprocess.PIPE, text=True, close_fds=False)
        tell(f"sockets {child.stdout.readline().strip()}")
        tell("ready")
        units(stop)
        tell(f"child {child.wait()}")
    """)
    running.until("begun 0")
    os.killpg(running.process.pid, signal.SIGTERM)
    assert running.end() == 75
    assert running.lines[:2] == ["sockets []", "ready"]
    assert running.lines[-2:] == ["child -15", STOPPED[75]]


def test_a_forked_child_has_its_signals_to_itself(start: Start) -> None:
    """Else a child that is ended would end its parent."""
    running = start("""
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        ends = set()
        for _ in range(20):  # some are ended while they are being made
            child = os.fork()
            if not child:
                time.sleep(600)
            os.kill(child, signal.SIGTERM)
            ends.add(os.WTERMSIG(os.waitpid(child, 0)[1]))
        tell(f"children {ends} asked {stop.asked}")
        tell("ready")
        units(stop)
    """)
    assert running.lines == ["children {15} asked False", "ready"]
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 75


def test_an_interrupt_that_is_ignored_from_the_start_stays_ignored(start: Start) -> None:
    """A shell's job in the background must not end when Ctrl-C is meant for another program."""
    running = start("""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop(grace=600, tell=tell) as stop, stop.draining():
        tell("ready")
        units(stop)
    """)
    running.process.send_signal(signal.SIGINT)
    running.until("begun 2")
    assert STOPPING not in running.lines
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 75


@contextmanager
def woken() -> Iterator[int]:
    """A wake-up file as an event loop has set one."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno())
    try:
        yield writer.fileno()
    finally:
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


def test_afterwards_all_is_as_before() -> None:
    """The package may be used within another program, which has handlers and an event loop of its own."""
    before = [signal.getsignal(number) for number in SIGNALS]
    with woken() as number:
        with Stop(tell=print) as stop:
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            assert not set(before) & {signal.getsignal(number) for number in heard}
            with stop.draining():
                pass
        assert signal.set_wakeup_fd(number) == number
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert "stop" not in [thread.name for thread in threading.enumerate()]


def test_a_stop_in_the_program_itself_is_an_error_and_leaves_all_as_before() -> None:
    """Not only when nothing happens."""
    before = [signal.getsignal(number) for number in SIGNALS]
    told: list[str] = []
    with pytest.raises(StoppedError, match="run the same command again"), Stop(tell=told.append):
        signal.raise_signal(signal.SIGUSR1)
    assert told == []
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outside_of_the_main_thread_nothing_is_touched() -> None:
    """Handlers belong to the main thread; a worker of dask has others in charge of its signals."""
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[object] = []

    def work() -> None:
        with Stop(tell=print) as stop, stop.draining():
            seen.extend(signal.getsignal(number) for number in SIGNALS)
            seen.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*before, False]


@pytest.mark.parametrize(
    ("command", "line"), [("sample", "stopped."), ("segment", "stopped; run the same command again to resume.")]
)
def test_the_command_line_says_what_to_do_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, line: str
) -> None:
    """75, and one line that fits the command."""

    def stopped(*_: object, **__: object) -> None:
        raise StoppedError("anything")

    monkeypatch.setattr("nucseg_batch.files.sample.write_sample", stopped)
    monkeypatch.setattr("nucseg_batch.cli.progress.RunProgress", stopped)
    arguments = {"sample": ["x"], "segment": ["x", "x.zarr"]}
    with pytest.raises(SystemExit) as ended:
        main([command, *arguments[command]])
    assert ended.value.code == 75
    assert capsys.readouterr().err == f"nucseg-batch: {line}\n"


def test_who_leaves_without_waiting_can_still_answer(start: Start) -> None:
    """The JSON of `--json`: a script that waits for it must not get nothing."""
    running = start("""
    with Stop(grace=0.5, tell=tell, again="Try later.", ended=lambda line, code: tell(f"{code}: {line}")) as stop:
        with stop.draining():
            tell("ready")
            wait()
    """)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 75
    left = "still at work 0.5 s after the signal: stopped without waiting; finished work is kept. Try later."
    assert running.lines[-2:] == [left, f"75: {left}"]
