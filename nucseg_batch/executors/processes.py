"""How many processes do a run on this machine, which GPU each uses, and how much memory of it: pure, but for `here`.

A processor is kept busy by one process. In front of a GPU the host is the bottleneck: Python lets one thread run at a
time, so one process cannot use all cores of a GPU node, and several processes share each GPU.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nucseg_batch.machine.cores import available_cores
from nucseg_batch.machine.gpus import AS_NEEDED, GRANTED, VISIBLE, Gpu, Grant, usable_gpus, visible_gpus
from nucseg_batch.machine.memory import available_memory
from nucseg_batch.plan import Unit
from nucseg_batch.settings import SegmentSettings

LARGE_IMAGE = 512 * 512
"""Pixels from which an image is large: so much of its host work is done without Python's lock that more cores help."""
CORES_SMALL, CORES_LARGE = 4, 6
"""Cores that a process can use where images are small, and large. Counted from the share of the host work that holds
Python's lock on a processor; not measured on a GPU."""
DEVICE_MEMORY = 6 * 2**30
"""Bytes of device memory that a process needs, for two batches of the largest size that is tried; not measured."""
CONTEXT_MEMORY = 640 * 2**20
"""Bytes of device memory that CUDA and its libraries take for each process beside what the backend allocates."""
USABLE = 0.94
"""Part of a GPU's memory that is given out."""
WORTH_PIXELS = 2 * 10**9
"""Pixels that must be there for each process: starting one and compiling its programs takes about as long."""


@dataclass(frozen=True)
class ProcessPlan:
    """The processes of a run on one machine."""

    gpus: tuple[str | None, ...]
    """For each process the GPU that it uses, as CUDA_VISIBLE_DEVICES names it; None where it may see all, or none."""
    grants: tuple[Grant | str | None, ...]
    """For each process the device memory that it may take: AS_NEEDED, or None where it has the GPU for itself."""
    cores: int
    """Cores for each process."""
    reason: str
    """Why there are so many, for the user."""

    @property
    def count(self) -> int:
        """How many processes."""
        return len(self.gpus)

    def variables(self, number: int, device: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Environment variables of process `number`: its GPU, its memory, and its part of the cores."""
        threads = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
        own = {name: str(self.cores) for name in threads if not environment.get(name)}
        if device == "cpu":
            return own | {VISIBLE: "-1"}
        gpu, grant = self.gpus[number], self.grants[number]
        own |= {} if gpu is None else {VISIBLE: gpu}
        return own if grant is None else own | {GRANTED: grant.text if isinstance(grant, Grant) else grant}


def plan_processes(
    *,
    cores: int,
    gpus: Sequence[Gpu],
    host_memory: int,
    memory_each: int,
    pixels: int | None,
    image_pixels: int,
    asked: int | None = None,
) -> ProcessPlan:
    """The processes for a run.

    cores: that all may use together. gpus: that they may use; none for a run on the processor. host_memory: bytes that
    all may use together, of which each takes `memory_each`. pixels: that are to be segmented; None where the number of
    processes must not depend on it. image_pixels: of a typical image. asked: how many the user wants.
    """
    if not gpus:
        reason = "asked for" if asked else "no GPU; the threads of one process use all cores"
        count = asked or 1
        return ProcessPlan((None,) * count, (None,) * count, max(1, cores // count), reason)
    used = len(gpus) if pixels is None else max(1, min(len(gpus), pixels // WORTH_PIXELS))
    limits = {
        f"{cores} cores": cores // used // (CORES_LARGE if image_pixels >= LARGE_IMAGE else CORES_SMALL),
        "memory of the GPU": min(_fitting(gpu.memory) for gpu in gpus[:used]),
        "memory of the host": host_memory // memory_each // used,
        "work": len(gpus) * cores if pixels is None else pixels // WORTH_PIXELS // used,
    }
    each = max(1, min(limits.values()))
    bound = min(limits, key=lambda name: limits[name])
    reason = f"{used} GPU{'s' * (used > 1)}, {each} process{'es' * (each > 1)} each, limited by {bound}"
    count = asked or each * used
    numbers = [number % (len(gpus) if asked else used) for number in range(count)]
    sharing = Counter(numbers)
    return ProcessPlan(
        gpus=tuple(gpus[number].name for number in numbers),
        grants=tuple(granted_memory(gpus[number].memory, sharing[number]) for number in numbers),
        cores=max(1, cores // count),
        reason="asked for" if asked else reason,
    )


def granted_memory(memory: int | None, sharing: int) -> Grant | str | None:
    """Device memory for each of several processes on a GPU with so many bytes of it."""
    if sharing < 2:
        return None
    if memory is None:
        return AS_NEEDED
    return Grant(max(memory // (4 * sharing), math.floor(USABLE * memory / sharing) - CONTEXT_MEMORY), memory)


def here(settings: SegmentSettings, units: Sequence[Unit] | None, asked: int | None = None) -> ProcessPlan:
    """The processes for these units on this machine, see `plan_processes`; None for units that are not known."""
    pixels = None if units is None else sum(unit.pixels for unit in units)
    planes = 0 if units is None else sum(unit.plane_count for unit in units)
    gpus = [] if settings.device == "cpu" else visible_gpus() if asked else usable_gpus()
    return plan_processes(
        cores=available_cores(),
        gpus=gpus,
        host_memory=available_memory(),
        memory_each=settings.memory_bytes,
        pixels=pixels,
        image_pixels=0 if not pixels or not planes else pixels // planes,
        asked=asked,
    )


def _fitting(memory: int | None) -> int:
    """Processes for which a GPU has memory; one where it is not known how much that is."""
    return 1 if memory is None else int(USABLE * memory) // (DEVICE_MEMORY + CONTEXT_MEMORY)
