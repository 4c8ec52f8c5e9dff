"""What Linux says of the processor."""

from __future__ import annotations

import contextlib
from pathlib import Path

BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
"""Flags of processors that compute in bfloat16."""


def bfloat16_flags() -> set[str]:
    """Those of BFLOAT16_FLAGS that this processor has."""
    return set(BFLOAT16_FLAGS) & set(_cpuinfo("flags").split())


def processor_name() -> str:
    """Name of the processor; empty where Linux does not say it."""
    return _cpuinfo("model name")


def _cpuinfo(name: str) -> str:
    """What Linux says of the first processor under a name; empty where it says nothing."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
