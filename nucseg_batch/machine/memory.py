"""How much memory this process may use: by the machine, its control group, and its Slurm job."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Mapping
from pathlib import Path

from nucseg_batch.machine.control_groups import GROUPS, MOUNTED, control_groups

ARENAS = 2
"""Heaps of the C library's allocator."""
LARGE_BLOCK = 4 * 2**20
"""Bytes from which on a block of memory is returned to the system when it is freed."""
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of malloc.h
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def available_memory(
    environment: Mapping[str, str] = os.environ, groups: Path = GROUPS, mounted: Path = MOUNTED
) -> int:
    """Bytes of memory that this process may use, those that it uses already included.

    environment: where Slurm says what the job has on this machine (SLURM_MEM_PER_NODE, or SLURM_MEM_PER_CPU for each of
    SLURM_CPUS_ON_NODE; in MiB). Limits of control groups of versions 1 and 2 are known (`memory.max`;
    `memory.limit_in_bytes`).
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group in control_groups("memory", groups, mounted):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limit = (group / name).read_text().strip()
            except OSError:
                continue
            if limit.isdecimal() and int(limit):
                limits.append(int(limit))
    node, core, cores = (
        environment.get(name, "") for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    )
    if node.isdecimal() and int(node):
        limits.append(int(node) * 2**20)
    elif core.isdecimal() and int(core) and cores.isdecimal() and int(cores):
        limits.append(int(core) * int(cores) * 2**20)
    return min(limits)


def parsed_bytes(text: str) -> int | None:
    """Bytes that a size such as `2GB`, `1.5 GiB` or `800M` means; None for a text that is no size."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?b?", text.strip().lower())
    return None if match is None else round(float(match[1]) * _UNITS[match[2] or ""])


def keep_arenas_few(environment: Mapping[str, str] = os.environ) -> None:
    """Has glibc share ARENAS heaps among all threads, unless MALLOC_ARENA_MAX says otherwise; elsewhere nothing.

    By default there can be eight for each core, and each keeps what its threads have freed. With two, a run over images
    of many shapes peaked at 1.80 GB in place of 2.03 at the same speed (measured). See `mallopt` in glibc's manual.
    """
    if "MALLOC_ARENA_MAX" not in environment and (glibc := _glibc()) is not None:
        glibc.mallopt(_M_ARENA_MAX, ARENAS)


def return_large_blocks(environment: Mapping[str, str] = os.environ) -> None:
    """Has glibc return blocks of LARGE_BLOCK to the system, unless MALLOC_MMAP_THRESHOLD_ says otherwise.

    By default it raises that size to that of blocks that were freed, up to 32 MiB, and keeps smaller ones in its heaps:
    some 200 MB at the peak of a run over images of many shapes (measured). See `mallopt` in glibc's manual.
    """
    if "MALLOC_MMAP_THRESHOLD_" not in environment and (glibc := _glibc()) is not None:
        glibc.mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def give_back_above(resident: float) -> None:
    """Has glibc return freed memory to the system where this process holds more than `resident` bytes of memory.

    It keeps what it thinks will be needed again, of images of many shapes some 400 MB (measured). See `malloc_trim` in
    glibc's manual.
    """
    if resident_memory() > resident and (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


def resident_memory() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say it as Linux does."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return ctypes.CDLL(None)
    return None
