"""How much of the time GPUs are at work, as their driver sees it while a run is done."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import IO

from nucseg_batch.files.run.timings import DeviceTotal
from nucseg_batch.machine.gpus import driver_version

ASKED_MS = 500
"""Milliseconds between two questions to the driver; it answers with the mean since it was asked last, or shorter."""
QUERY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@contextlib.contextmanager
def watched(gpus: Sequence[str]) -> Iterator[DeviceTotal]:
    """Gives, after its block, the driver and the share of the block's time in which these GPUs were at work.

    gpus: as CUDA_VISIBLE_DEVICES names them; nothing is asked where there are none. Of a part of a GPU the driver does
    not say it. The program that asks the driver ends with the block, and with this process, whose pipe it writes to.
    """
    seen = DeviceTotal()
    if not gpus:
        yield seen
        return
    seen.driver = driver_version()
    command = ["nvidia-smi", *QUERY, f"--loop-ms={ASKED_MS}", f"--id={','.join(gpus)}"]
    try:
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield seen
        return
    assert driver.stdout is not None
    values: list[float] = []
    reader = threading.Thread(target=_read, args=(driver.stdout, values), name="nvidia-smi", daemon=True)
    reader.start()
    try:
        yield seen
    finally:
        driver.kill()  # it has nothing to tidy up
        driver.wait()
        reader.join()
        driver.stdout.close()
        seen.busy, seen.of = busy_seconds(values, len(gpus))


def busy_seconds(values: Sequence[float], gpus: int) -> tuple[float, float]:
    """Seconds in which GPUs were at work, and those in which they were watched, from percentages of each in turn."""
    step = ASKED_MS / 1000 / gpus
    return sum(values) / 100 * step, len(values) * step


def _read(lines: IO[str], values: list[float]) -> None:
    """Keeps the percentages that are printed; a driver that does not know prints a word."""
    values.extend(float(line) for line in lines if line.strip().isdecimal())
