"""Stops a command on TERM, INT, USR1 and USR2 as schedulers and people expect, within a time that is promised.

Python runs a signal's handler in the main thread between two steps of the interpreter, so a call of the device that
takes a minute would keep the handler waiting for a minute. The operating system's part of the handler, however, writes
the signal's number to a socket at once, and a thread that reads there keeps the promise: it counts the seconds, and
leaves when they are over. Leaving at once is always safe, because what is on disk is whole at any moment, as after
kill -9. Only a library call that never lets another Python thread run can outlast it.

Within the command a stop travels as KeyboardInterrupt, whichever signal it was: it is the one exception that code which
turns every trouble of an image into a failure of that image lets pass. It becomes StoppedError where the command ends.
So does any other error after it: a library that is interrupted while it is imported raises an ImportError in its place.
HUP is left as it is: a closed terminal ends the process as a kill does, and nohup works. So is INT where it is ignored
from the start, as shells have it for jobs in the background.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from nucseg_batch.errors import EXIT_INTERRUPTED, StoppedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""What stops a command."""
ECHO_SECONDS = 0.3
"""The same signal again within this time is the same wish: `timeout` and other starters send one signal twice."""
TELL_SECONDS = 1.0
"""How long leaving waits for its line to be told, where nobody reads what is printed."""
LOOK_SECONDS = 60.0
"""How long the thread sleeps at most; sockets take no time without end."""

_active: list[Stop] = []
_held = threading.local()


Ended = Callable[[str, int], None]
AGAIN = "Run the same command again to resume."


class Stop:
    """Listens for signals while a command works in the main thread; elsewhere it does nothing.

    The first signal ends planning or loading at once; in `draining` it only sets `asked`, and the work ends by itself.
    A second one, or `grace` seconds, and the process leaves at once. The exit code is 75, after INT 130. `tell` gets
    the lines that the user should see, from a thread of its own. `again` says how the work is resumed. `ended` is
    called with the last line and the exit code when the process leaves without waiting.
    """

    def __init__(
        self, *, grace: float = 10.0, tell: Callable[[str], None], again: str = AGAIN, ended: Ended | None = None
    ) -> None:
        self._grace = grace
        self._tell = tell
        self._again = again
        self._ended = ended
        self._first: int | None = None
        self._draining = False
        self._raised = True
        self._interrupted = False
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1
        self._reader: socket.socket | None = None
        self._writer: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    @property
    def asked(self) -> bool:
        """Whether a signal has come; any thread may look."""
        return self._first is not None

    def __enter__(self) -> Stop:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        _active.append(self)
        self._start(self._watch, self._reader)
        for number in SIGNALS:
            previous = signal.getsignal(number)
            if not (number == signal.SIGINT and previous == signal.SIG_IGN):
                self._previous[number] = previous
                signal.signal(number, self._handle)
        self._raised = False
        if self.asked:
            self.__exit__(None, None, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raised = True  # a signal from here on is only noted
        self._restore()
        for thread in self._threads:
            thread.join(TELL_SECONDS)
        if kind is None or self._interrupted or issubclass(kind, KeyboardInterrupt):
            self._end()

    @contextlib.contextmanager
    def draining(self) -> Iterator[None]:
        """Work that looks at `asked` and ends early by itself; a signal before or in it is raised where it ends."""
        self._draining = True
        try:
            self._check()
            yield
        finally:
            self._draining = False
        self._check()

    def _check(self) -> None:
        if self.asked:
            self._raised = True
            raise KeyboardInterrupt

    def _end(self) -> None:
        """Raises what the command ends with, when it was asked to."""
        if self._first == signal.SIGINT:
            raise KeyboardInterrupt from None
        if self._first is not None:
            raise StoppedError("stopped; run the same command again to resume.") from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._note(number)
        if not self._draining and not self._raised:
            self._raised = self._interrupted = True  # once, so that cleaning up is not interrupted
            raise KeyboardInterrupt

    def _note(self, number: int) -> None:
        """Whoever hears of the first signal first, the handler or the thread, keeps it."""
        if self._first is None:
            self._first = number

    def _watch(self, reader: socket.socket) -> None:
        """The thread: reads signal numbers until the socket is closed, and never waits for anything else."""
        first, heard = 0, math.inf
        while (numbers := _received(reader, heard + self._grace)) is not None:
            now = time.monotonic()
            if now >= heard + self._grace:
                self._leave(f"still at work {self._grace:g} s after the signal")
            for number in numbers:
                if number not in self._previous:
                    continue  # somebody else's handler
                if not first:
                    first, heard = number, now
                    self._note(number)
                    self._announce()
                elif number != first or now - heard > ECHO_SECONDS:
                    self._leave("a second signal")
        reader.close()

    def _announce(self) -> None:
        if self._draining:
            self._start(
                self._tell,
                f"stopping: finishing work in flight, at most {self._grace:g} s; a second signal stops at once",
            )

    def _leave(self, reason: str) -> None:
        """Ends the process, whatever it does."""
        line = f"{reason}: stopped without waiting; finished work is kept. {self._again}"
        code = EXIT_INTERRUPTED if self._first == signal.SIGINT else StoppedError.exit_code

        def last(line: str) -> None:
            self._tell(line)
            if self._ended is not None:
                self._ended(line, code)

        thread = self._start(last, line)
        if thread is not None:
            thread.join(TELL_SECONDS)
        os._exit(code)

    def _start(self, work: Callable[[Any], None], argument: Any) -> threading.Thread | None:
        """Runs something in a thread; None where there can be no more threads."""
        thread = threading.Thread(target=work, args=(argument,), name="stop", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return None
        self._threads.append(thread)
        return thread

    def _restore(self) -> None:
        """Puts handlers back, which ends the thread; in a forked child only what the child must not share."""
        if self._writer is None:
            return
        for number, previous in self._previous.items():
            if previous is not None:  # None was not set from Python and cannot be
                signal.signal(number, previous)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._writer.close()
        self._writer = None
        _active.remove(self)


def _received(reader: socket.socket, deadline: float) -> bytes | None:
    """Signal numbers; none when nothing came for a while or until the deadline; None when the socket was closed."""
    reader.settimeout(min(max(deadline - time.monotonic(), 0.001), LOOK_SECONDS))
    try:
        return reader.recv(64) or None
    except TimeoutError:
        return b""


def _before_fork() -> None:
    """Holds signals back, so that none reaches the child while it still has the parent's handlers and socket."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if _active else None


def _after_fork() -> None:
    if _held.mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _in_child() -> None:
    """A forked child has its signals to itself, and its parent's thread does not hear of them."""
    for stop in _active.copy():
        stop._threads.clear()
        stop._restore()
        if stop._reader is not None:
            stop._reader.close()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
