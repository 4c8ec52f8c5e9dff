"""How many cores this process may use: by its affinity, the quota of its control group, and its Slurm job."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from nucseg_batch.machine.control_groups import GROUPS, MOUNTED, control_groups


def available_cores(environment: Mapping[str, str] = os.environ, groups: Path = GROUPS, mounted: Path = MOUNTED) -> int:
    """Cores that this process may keep busy, at least 1.

    environment: where Slurm says how many cores a task has (SLURM_CPUS_PER_TASK). groups: the file that names the
    control groups of this process. mounted: where their file system is. Quotas of versions 1 and 2 are known
    (`cpu.max`; `cpu.cfs_quota_us` and `cpu.cfs_period_us`), of the group and of those that it is in.
    """
    limits: list[float] = [len(os.sched_getaffinity(0)), *_quotas(groups, mounted)]
    given = environment.get("SLURM_CPUS_PER_TASK", "")
    if given.isdecimal() and int(given):
        limits.append(int(given))
    return max(1, math.floor(min(limits)))


def needed_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """Threads to set in a library that only knows the affinity; None if that is right, or the user has set a number."""
    cores = available_cores(environment)
    chosen = any(environment.get(name) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"))
    return None if chosen or cores >= len(os.sched_getaffinity(0)) else cores


def _quotas(groups: Path, mounted: Path) -> list[float]:
    """Cores that each control group of this process may use; of those that set no limit nothing."""
    found = (_quota(group) for group in control_groups("cpu", groups, mounted))
    return [quota for quota in found if quota is not None]


def _quota(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):
        return None
