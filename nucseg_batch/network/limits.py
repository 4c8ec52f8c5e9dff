"""Limits of the process that libraries meet with an abort and not with an error, checked before these are loaded."""

from __future__ import annotations

import os
import resource
import threading

from nucseg_batch.errors import DeviceError

ADDRESS_SPACE = 3 * 2**30
"""Bytes of address space below which TensorFlow does not get through its first image (measured with 2.21 on two cores:
it aborted with 2.77 GiB and ran with 3)."""
DATA = 0.9 * 2**30
"""Bytes of private writable memory likewise (measured: 0.7 GiB; it aborted with 0.6 GiB and ran with 1)."""
THREADS = 16
"""Threads that libraries start, beside two for each core; they abort where they cannot (measured: 14 on two cores)."""

_LIMITS = (
    (resource.RLIMIT_AS, ADDRESS_SPACE, "address space", "-v"),
    (resource.RLIMIT_DATA, DATA, "data memory", "-d"),
)


def check_limits() -> None:
    """Raises DeviceError where a limit of this process is too low for Keras and its backend to start."""
    for kind, needed, name, option in _LIMITS:
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY and limit < needed:
            raise DeviceError(
                f"this process is limited to {limit / 2**30:.2g} GiB of {name}, and Keras needs at least "
                f"{needed / 2**30:.3g} GiB to start; raise the limit with `ulimit {option} unlimited`, or request more "
                "memory for the job."
            )
    check_threads(THREADS + 2 * len(os.sched_getaffinity(0)))


def check_threads(count: int) -> None:
    """Raises DeviceError where this process cannot start so many more threads at once."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, daemon=True) for _ in range(count)]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError) as error:
        raise DeviceError(
            f"this process can start only {len(started)} more threads, and Keras needs {count}; raise the limit on "
            "processes (`ulimit -u`, or that of the container or job), or end other programs."
        ) from error
    finally:
        done.set()
        for thread in started:
            thread.join()
