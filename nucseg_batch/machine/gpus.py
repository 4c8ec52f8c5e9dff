"""The NVIDIA GPUs of this machine and those that this process may use, found without a library that begins to use them.

The driver's `nvidia-smi` is asked; where there is none, what the driver shows as files says that a GPU is there.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Variable of CUDA: which GPUs a process sees; Slurm sets it, too."""
GRANTED = "NUCSEG_GPU_MEMORY"
"""Environment variable that limits the device memory of a process that shares a GPU with others of the same run."""
AS_NEEDED = "as needed"
"""Its value where the size of the GPU is not known: memory is taken only as it is needed."""
DRIVER = Path("/proc/driver/nvidia/gpus")
"""Where the driver describes its GPUs."""
NODES = Path("/dev")
"""Where the GPUs are files."""
SMI_SECONDS = 60
"""How long nvidia-smi may take; it is slow where the driver is not kept loaded."""
MIB = 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a part of one (MIG) that is used like a GPU."""

    name: str
    """What CUDA_VISIBLE_DEVICES can name it: its UUID, or its number where nothing else is known."""
    index: str = ""
    """Number of a whole GPU; empty for a part of one."""
    model: str = ""
    """Such as `NVIDIA A100`; empty where it is not known."""
    memory: int | None = None
    """Bytes of device memory; None where it is not known."""


@dataclass(frozen=True)
class Grant:
    """Device memory that one of several processes on a GPU may take."""

    limit: int
    """Bytes for this process."""
    total: int
    """Bytes of the GPU."""

    @property
    def fraction(self) -> float:
        """Part of the GPU's memory, 0 to 1."""
        return self.limit / self.total

    @property
    def text(self) -> str:
        """The value of GRANTED, in MiB."""
        return f"{self.limit // MIB}/{self.total // MIB}"


def granted(environment: Mapping[str, str] = os.environ) -> Grant | str | None:
    """What this process was granted: a Grant, AS_NEEDED, or None where it shares its GPU with no process of its run."""
    text = environment.get(GRANTED, "")
    if match := re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text):
        return Grant(int(match[1]) * MIB, int(match[2]) * MIB)
    return AS_NEEDED if text else None


def present_gpus() -> list[Gpu]:
    """All GPUs of this machine that the driver shows, whether or not this process may use them."""
    found = listed_gpus(_asked("-L"), _asked("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"))
    return found or _shown_by_driver()


def visible_gpus(environment: Mapping[str, str] = os.environ, present: Sequence[Gpu] | None = None) -> list[Gpu]:
    """The GPUs that a process may use: those that CUDA_VISIBLE_DEVICES names, in its order, else all that are present.

    present: the GPUs of the machine; None asks for them. A name that is not among them, as Slurm's numbers within a job
    may be, is believed; its memory is then the least of those present.
    """
    present = present_gpus() if present is None else present
    named = environment.get(VISIBLE)
    if named is None:
        return list(present)
    names = [name.strip() for name in named.split(",") if name.strip()]
    names = names[: names.index("-1")] if "-1" in names else names
    least = min((gpu.memory for gpu in present if gpu.memory is not None), default=None)
    found = []
    for name in names:
        unknown = Gpu(name, memory=least)
        found.append(replace(next((gpu for gpu in present if _is_named(gpu, name)), unknown), name=name))
    return found


def _is_named(gpu: Gpu, name: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES means a GPU by a name, its number or the beginning of its UUID."""
    return name in (gpu.index, gpu.name) or (name.startswith(("GPU-", "MIG-")) and gpu.name.startswith(name))


def usable_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """As `visible_gpus`, but none where the machine shows none, whatever CUDA_VISIBLE_DEVICES says."""
    present = present_gpus()
    return visible_gpus(environment, present) if present else []


def listed_gpus(listing: str, table: str = "") -> list[Gpu]:
    """GPUs from what `nvidia-smi -L` prints; of a GPU that is divided its parts.

    table: number, UUID and MiB of each GPU with commas, as `nvidia-smi --query-gpu=index,uuid,memory.total` prints
    them.
    """
    memory = {}
    for line in table.splitlines():
        _, uuid, size = ([*map(str.strip, line.split(",")), "", "", ""])[:3]
        if size.isdecimal():
            memory[uuid] = int(size) * MIB
    gpus: list[list[Gpu]] = []
    for line in listing.splitlines():
        if gpu := re.match(r"GPU (\d+): (.*?)(?: \(UUID: (GPU-[^)]+)\))?$", line.rstrip()):
            uuid = gpu[3] or gpu[1]
            gpus.append([Gpu(uuid, gpu[1], gpu[2], memory.get(uuid))])
        elif (part := re.match(r"\s+MIG (\S+)\s.*\(UUID: (MIG-[^)]+)\)", line)) and gpus:
            gigabytes = re.search(r"(\d+)gb", part[1])
            share = int(gigabytes[1]) * 10**9 if gigabytes else None
            gpus[-1].append(Gpu(part[2], "", f"{gpus[-1][0].model} MIG {part[1]}", share))
    return [one for gpu in gpus for one in gpu[1:] or gpu]


def driver_version() -> str:
    """Version of the NVIDIA driver; empty where nvidia-smi does not say it."""
    return _asked("--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0].strip()


def keep_visible(count: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Hides all GPUs but the first `count` from the library that will compute, which would else take memory on each.

    To be called before that library is loaded, in a process that is the program's own. Does nothing where there are no
    more than that.
    """
    found = usable_gpus(environment)
    if len(found) > count:
        environment[VISIBLE] = ",".join(gpu.name for gpu in found[:count]) or "-1"


def set_variable(name: str, value: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets a variable that a library of this process will read, unless the user has set it."""
    environment.setdefault(name, value)


def is_set(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has set a variable."""
    return bool(environment.get(name))


def _asked(*options: str) -> str:
    """What nvidia-smi prints; nothing where it is not there or fails."""
    return _answer(os.environ.get("PATH", ""), options)


@functools.cache
def _answer(path: str, options: tuple[str, ...]) -> str:
    """The same, asked once in a process, since it may take seconds; path: where programs are looked for."""
    program = shutil.which("nvidia-smi", path=path)
    if program is None:
        return ""  # without a process for the attempt
    try:
        done = subprocess.run([program, *options], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _shown_by_driver(driver: Path = DRIVER, nodes: Path = NODES) -> list[Gpu]:
    """GPUs from the files of the driver, as where nvidia-smi was not handed into a container."""
    found = []
    for number, path in enumerate(sorted(driver.glob("*/information"))):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        model = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
        uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", text, re.MULTILINE)
        found.append(Gpu(uuid[1] if uuid else str(number), str(number), model[1].strip() if model else ""))
    if found:
        return found
    numbers = (match[1] for path in nodes.glob("nvidia*") if (match := re.fullmatch(r"nvidia(\d+)", path.name)))
    return [Gpu(number, number) for number in sorted(numbers, key=int)]
