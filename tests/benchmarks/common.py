"""What the benchmarks share: timed calls of the program, options, and how results are told; images are in `inputs`.

Needs nothing but Python, so that a benchmark of another program can use it in that program's own environment.

Every timed call is a process of its own. `Mpx/s` is what the program says of its stream, from the first image read to
the last unit written; `Mpx/s whole` is the same pixels by the time of the whole command, its start included. The files
were written just before and are in the system's memory, so no disk is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLE_SECONDS = 0.5
"""How often the memory of a process and its children is looked at."""
SHARED = ("--model", "--device", "--precision", "--batch-size")
"""Options of `segment` that a bare forward pass must share with it."""
LOAD = os.getloadavg()[0]
"""How busy the machine was when the benchmark began."""
PACKAGES = ("nucseg-batch", "tensorflow", "tensorflow-cpu", "keras", "jax", "torch", "numpy", "zarr", "tifffile")


# Timed calls


@dataclass(frozen=True)
class Finished:
    """A process that came to its end."""

    output: str
    """What it printed."""
    seconds: float
    """From its start to its end."""
    cpu_seconds: float
    """Processor time, of its children too."""
    peak_mb: float
    """Most resident memory, as the system counts it; with children the sum as seen twice a second, if that is more."""


def finished(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Finished:
    """Runs a command to its end; leaves the benchmark where that fails."""
    words = [str(word) for word in command]
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **(environment or {})}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        began = time.monotonic()
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables)
        assert process.stdout is not None
        family, over = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, family, over))
        watch.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
        process.stdout.close()
        over.set()
        watch.join()
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(words)} ended with {process.returncode}:\n{output}\n{errors.read()[-4000:]}")
    peak = max(usage.ru_maxrss * 1024, family[0]) / 1e6
    return Finished(output, seconds, usage.ru_utime + usage.ru_stime, peak)


def _watch(pid: int, most: list[int], over: threading.Event) -> None:
    """Notes the largest sum of the memory of a process and its descendants, as long as it has any."""
    while not over.wait(SAMPLE_SECONDS):
        family = _descendants(pid)
        if len(family) > 1:
            most[0] = max(most[0], sum(_resident(one) for one in family))


def _descendants(pid: int) -> list[int]:
    family = [pid]
    for one in family:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                family += [int(child) for child in (task / "children").read_text().split()]
    return family


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def segment(place: Path, store: Path, pixels: int, options: Sequence[object], python: str = "") -> dict[str, float]:
    """One run of `nucseg-batch segment`, of images with so many pixels in all, as a row of figures."""
    return figures(finished(segment_command(place, store, options, python)), pixels)


def segment_command(place: Path, store: Path, options: Sequence[object], python: str = "") -> list[object]:
    """The command line of such a run."""
    return [python or sys.executable, "-m", "nucseg_batch", "segment", place, store, *options]


def pixels_of(store: Path) -> int:
    """Pixels of all images that a run has segmented, from its table."""
    with open(store.with_suffix(".images.csv"), newline="", encoding="utf-8") as file:
        return sum(int(row["height"]) * int(row["width"]) for row in csv.DictReader(file))


def figures(done: Finished, pixels: int) -> dict[str, float]:
    """What a run of `nucseg-batch segment` says of itself, and what it took."""
    speed = re.search(r"([\d.]+) Mpx/s", done.output)
    counts = re.search(r"(\d+) nuclei, (\d+) failed", done.output)
    if speed is None or counts is None or int(counts[2]):
        sys.exit(f"not every image was segmented:\n{done.output}")
    return {
        "Mpx/s": float(speed[1]),
        "Mpx/s whole": round(pixels / done.seconds / 1e6, 2),
        "seconds": round(done.seconds, 2),
        "CPU seconds": round(done.cpu_seconds, 2),
        "peak MB": round(done.peak_mb),
        "nuclei": int(counts[1]),
    }


def steady(times: list[float], pixels: int) -> float:
    """Mpx/s between the first and the last unit that were done; 0 where there are too few units to say it."""
    if len(times) < 3 or max(times) == min(times):
        return 0.0
    return round(pixels * (len(times) - 1) / len(times) / (max(times) - min(times)) / 1e6, 2)


def device(tasks: Sequence[str], arguments: argparse.Namespace, *words: object) -> dict[str, Any]:
    """What tasks of `device.py` answer, in a process of its own with the model options of the benchmark."""
    command = [sys.executable, Path(__file__).with_name("device.py"), *tasks, *words, *model_options(arguments)]
    answer: dict[str, Any] = json.loads(finished(command).output.splitlines()[-1])
    return answer


def files_written(store: Path) -> dict[str, int]:
    """Files that a run has made: in the store, in its run folder, and tables beside it."""
    run = store.with_suffix(".run")
    return {
        "store": sum(path.is_file() for path in store.rglob("*")),
        "run": sum(path.is_file() for path in run.rglob("*")),
        "tables": len(list(store.parent.glob(f"{store.stem}.*.csv"))),
    }


def remove_output(store: Path) -> None:
    """Deletes a store with its run folder and its tables, so that the next run begins with as much room."""
    shutil.rmtree(store)
    shutil.rmtree(store.with_suffix(".run"), ignore_errors=True)
    for path in store.parent.glob(f"{store.stem}.*.csv"):
        path.unlink()
    store.with_suffix(".provenance.json").unlink(missing_ok=True)


# Command lines


def parser(description: str, *, repeat: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, help="folder of images, from which those are made that are segmented")
    made.add_argument("--repeat", type=int, default=repeat, help=f"runs of each kind, alternating ({repeat})")
    made.add_argument("--json", type=Path, help="also write all figures to this file")
    made.add_argument("--scratch", type=Path, help="folder for images and results (the system's temporary one)")
    return made


def add_model_options(made: argparse.ArgumentParser) -> None:
    """The options of `segment` that a bare forward pass must share with it, and the others."""
    made.add_argument("--model", type=Path, help="model file (the one that ships with the package)")
    made.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="where to compute (auto)")
    made.add_argument("--precision", default="auto", help="as of `segment` (auto)")
    made.add_argument("--batch-size", type=int, help="as of `segment` (its own choice)")
    made.add_argument(
        "--diameter",
        default="model",
        help="of nuclei in pixels; `model`: the model's own, so that nothing is rescaled and the network sees as many "
        "pixels as are counted; `measured`: as `segment` does by itself, with the work of rescaling (model)",
    )
    made.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="all after it goes to `segment`")


def model_options(arguments: argparse.Namespace) -> list[object]:
    """What `add_model_options` gave, without the diameter, as options of `segment`."""
    options: list[object] = ["--device", arguments.device, "--precision", arguments.precision]
    for name in ("model", "batch_size"):
        if getattr(arguments, name) is not None:
            options += [f"--{name.replace('_', '-')}", getattr(arguments, name)]
    return options


def segment_options(arguments: argparse.Namespace) -> list[object]:
    """All options of `segment`."""
    own = [word for word in arguments.options if word.partition("=")[0] in SHARED]
    if own:
        sys.exit(f"{own[0]} goes before --options, so that all that is compared gets it")
    given = arguments.diameter
    diameter = model_diameter(arguments.model) if given == "model" else given
    size = [] if given == "measured" else ["--diameter", diameter]
    return [*model_options(arguments), *size, *arguments.options]


def model_diameter(model: Path | None = None, python: str = "") -> float:
    """Width of nuclei that a model, or the default model of an environment, is made for; loads no Keras."""
    if model is None:
        ask = "from importlib import resources; print(resources.files('nucseg_batch') / 'models' / 'default.keras')"
        model = Path(finished([python or sys.executable, "-c", ask]).output.strip())
    with zipfile.ZipFile(model) as archive:
        return float(json.loads(archive.read("nucseg.json"))["diameter"])


@contextlib.contextmanager
def scratch(arguments: argparse.Namespace) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="nucseg-benchmark-", dir=arguments.scratch) as place:
        yield Path(place)


# Results


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure that all runs have."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in names}


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """What figures depend on: processor, cores, memory, load, versions."""
    from importlib import metadata

    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "processor": _field("/proc/cpuinfo", "model name"),
        "bfloat16": sorted({"amx_bf16", "avx512_bf16"} & set(_field("/proc/cpuinfo", "flags").split())),
        "cores": len(os.sched_getaffinity(0)),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load before and after": [round(LOAD, 2), round(os.getloadavg()[0], 2)],
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
    }


def _field(path: str, name: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def _commit() -> str | None:
    here = Path(__file__).parent
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or None
    return None


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Rows under the names of the first one's figures."""
    names = list(rows[0])
    lines = [
        names,
        *([f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in names] for row in rows),
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


def tell(arguments: argparse.Namespace, rows: Sequence[Mapping[str, object]], record: Mapping[str, Any]) -> None:
    """Prints the table and the machine, and writes everything to --json if that is given."""
    print()
    print_table(rows)
    whole = {"benchmark": Path(sys.argv[0]).name, "arguments": sys.argv[1:], "machine": machine(), **record}
    here = whole["machine"]
    print(f"\n{here['processor']}, {here['cores']} cores, load {here['load before and after']}, {here['versions']}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({**whole, "table": rows}, indent=1) + "\n", encoding="utf-8")
