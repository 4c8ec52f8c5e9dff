"""What a run costs beside its pixels: planning, sharing out, finding what is to do and finishing, without any pixel.

    python tests/benchmarks/past_one_machine.py [--images 100000] [--shares 64] [--nuclei 2] [--files] [--json FILE]

Images are records, as their headers would give them, in folders of a thousand; with --files they are real PNG files of
64x64 pixels, which are found, and whose headers are read. Units are committed as a run commits them (markers, rows of
nuclei.csv, each on disk), but with no masks: their images hold `--nuclei` nuclei each, of which only rows are written.

Every step is a process of its own, in the order in which a cluster meets them: `seconds` and `cpu s` are those of the
step without the start of Python and imports, `peak MB` is the most memory that its process had, `files` and `MB` are
what the step added to the output. Where an image's size and time are asked for, without --files the answer is that
there is none, which is as quick as an answer of a local disk; a network disk takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER_FILES = 1000
"""Images in one folder."""
SIDE = 256
"""Of images that are records, in pixels."""
FILE_SIDE = 64
"""Of images that are files."""
SHARE = 7
"""The share that is looked at alone."""
MODEL = "0" * 64
STEPS = ("discover and plan", "load", "share out", "todo, nothing done", "commit", "todo, all done", "status", "finish")
STEPS += ("finish again",)
"""In the order in which they are done; `discover and plan` leaves the plan and the empty store."""


class Silent:
    """Hears of progress, and of notes, and says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def key_of(number: int) -> str:
    """Key of an image: a thousand to a folder."""
    return f"plate{number // FOLDER_FILES:05d}/well_{number % FOLDER_FILES:04d}_field.png"


def main() -> None:
    """Runs the benchmark, or one step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="how many (100000)")
    parser.add_argument("--shares", type=int, default=64, help="into how many the run is divided (64)")
    parser.add_argument("--nuclei", type=int, default=2, help="rows of nuclei.csv an image has (2)")
    parser.add_argument("--files", action="store_true", help="find real files, and read their headers")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--place", type=Path, help="folder for what is written (a temporary one, deleted at the end)")
    parser.add_argument("--together", action="store_true", help="all in one process: quicker, memory not told apart")
    parser.add_argument("--leave-out", nargs="+", default=[], choices=("status", "finish again"), help="steps")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(measured(arguments)))
        return
    place = Path(tempfile.mkdtemp(prefix="past-one-machine-", dir=arguments.place))
    try:
        rows = [child(arguments, place, step) for step in STEPS if step not in arguments.leave_out]
    finally:
        shutil.rmtree(place)
    print(table(rows))
    if arguments.json:
        record = {"images": arguments.images, "shares": arguments.shares, "nuclei": arguments.nuclei, "steps": rows}
        arguments.json.write_text(json.dumps(record | {"files": arguments.files}, indent=1))


def child(arguments: argparse.Namespace, place: Path, step: str) -> dict[str, Any]:
    """Does a step in a process of its own."""
    if step == STEPS[0] and arguments.files:
        write_files(place / "in", arguments.images)
    before = content(place)
    command = [sys.executable, __file__, "--step", step, "--place", place, "--images", arguments.images]
    command += ["--shares", arguments.shares, "--nuclei", arguments.nuclei, *["--files"] * arguments.files]
    if arguments.together:
        figures = measured(argparse.Namespace(**{**vars(arguments), "step": step, "place": place}))
    else:
        words = [str(word) for word in command]
        figures = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    row: dict[str, Any] = {"step": step, **figures}
    after = content(place)
    row |= {"files": after[0] - before[0], "MB": round((after[1] - before[1]) / 1e6, 1)}
    print(json.dumps(row), flush=True)
    return row


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Does a step in this process; what it cost, and what else it says of itself."""
    step = _STEPS[arguments.step](arguments)
    next(step)  # imports, and what earlier steps are measured by
    began, used = time.perf_counter(), cpu_seconds()
    said: dict[str, Any] = next(step)
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    return {"seconds": round(seconds, 2), "cpu s": round(used, 2), "peak MB": round(peak_mb(), 1), **said}


def discover_and_plan(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `nucseg-batch plan` does: finds images, or makes their records, and writes the plan and the store."""
    from nucseg_batch.executors.job import Job, prepare
    from nucseg_batch.executors.planning import write_plan
    from nucseg_batch.files.run.records import RunSpec
    from nucseg_batch.plan import ImageInfo, make_plan
    from nucseg_batch.settings import RunSettings, SegmentSettings

    yield {}
    store, settings = arguments.place / "out.zarr", SegmentSettings()
    began = time.perf_counter()
    if arguments.files:
        job = prepare(arguments.place / "in", store, None, settings, Silent(), shares=arguments.shares)
    else:
        numbers = range(arguments.images)
        images = (ImageInfo(key_of(i), 40_000 + i, 10**18 + i, SIDE, SIDE, 1, "uint8") for i in numbers)
        from nucseg_batch.executors.existing import default_model, fingerprint
        from nucseg_batch.files.run.plan_file import PlannedFiles

        plan = make_plan(images)
        now = fingerprint(default_model(), settings)
        files = PlannedFiles(plan, {})
        begun = RunSpec(str(arguments.place / "in"), "", settings, plan, now, files, arguments.shares)
        job = Job(store, begun, settings, RunSettings(), resumed=False)
    planned = time.perf_counter() - began
    write_plan(job, Silent())
    yield {"of which before writing": round(planned, 2), "units": sum(1 for _ in job.plan.units())}


def load(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What every process begins with."""
    from nucseg_batch.files.run.journal import Journal

    yield {}
    begun = Journal(arguments.place / "out.zarr").load()
    yield {"images": begun.plan.image_count}


def share_out(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Which units are one share's."""
    job = planned(arguments, SHARE)
    yield {}
    yield {"units": len(list(job.units()))}


def todo(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What of a share is to be done: its markers are read, and the size and time of its images are asked for."""
    from nucseg_batch.executors.pending import find_tasks
    from nucseg_batch.files.run.attempts import Attempts

    job = planned(arguments, SHARE)
    yield {}
    tasks, _ = find_tasks(job.units(), job, Attempts(job.journal.folder))
    yield {"units": len(tasks)}


def commit(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The markers and rows of all units, which in a run all shares write together."""
    from nucseg_batch.columns import PLANE_SUMMARY, names
    from nucseg_batch.files.run.attempts import Attempts
    from nucseg_batch.files.run.records import Marker, PlaneFingerprint, PlaneResult

    job = planned(arguments, None)
    row = ",1.5" * (len(job.table.columns) - 4)
    summary = dict.fromkeys(names(PLANE_SUMMARY), 1.2345678) | {"nuclei": arguments.nuclei}
    journal, attempts, units = job.journal, Attempts(job.journal.folder), 0
    yield {}
    for unit in job.units():
        attempts.begin(unit)
        rows = ["".join(f"{key},,,{i + 1}{row}\n" for i in range(arguments.nuclei)) for key in unit.keys]
        results = tuple(
            PlaneResult(key, arguments.nuclei, summary, len(text)) for key, text in zip(unit.keys, rows, strict=True)
        )
        seen = tuple(PlaneFingerprint(plane.image.size, plane.image.mtime_ns, MODEL) for plane in unit.planes)
        journal.commit(unit, Marker(results, 0, MODEL, seen), "".join(rows))
        attempts.end(unit)
        units += 1
    yield {"units": units}


def status(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `nucseg-batch status` does."""
    from nucseg_batch.executors import verification
    from nucseg_batch.files.run.journal import Journal

    yield {}
    store = arguments.place / "out.zarr"
    yield {"planes": verification.status(store, Journal(store)).planes_done}


def finish(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `nucseg-batch finish` does."""
    from nucseg_batch.executors import finishing
    from nucseg_batch.executors.progress import ProgressCounter

    yield {}
    job = planned(arguments, None)
    outcome = finishing.finish(job, ProgressCounter(Silent(), job.journal))
    assert (outcome.planes, outcome.missing) == (arguments.images, ())
    yield {"planes": outcome.planes}


def planned(arguments: argparse.Namespace, share: int | None) -> Any:
    """The run, as a process that does a share of it has it."""
    from nucseg_batch.executors.job import planned
    from nucseg_batch.settings import RunSettings

    return planned(arguments.place / "out.zarr", RunSettings(share=None if share is None else share % arguments.shares))


def write_files(folder: Path, count: int) -> None:
    """PNG files, of which a few are different."""
    import imagecodecs
    import numpy as np

    random = np.random.default_rng(0)
    shape = (FILE_SIDE, FILE_SIDE)
    pictures = [imagecodecs.png_encode(random.integers(0, 255, shape, dtype=np.uint8)) for _ in range(50)]
    for number in range(count):
        path = folder / key_of(number)
        if number % FOLDER_FILES == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(pictures[number % len(pictures)])


def content(place: Path) -> tuple[int, int]:
    """Files of the output, and their bytes."""
    count = size = 0
    for folder, names, files in os.walk(place):
        if Path(folder) == place and "in" in names:
            names.remove("in")
        count += len(files)
        size += sum(os.stat(os.path.join(folder, name)).st_size for name in files)
    return count, size


def cpu_seconds() -> float:
    """Processor time of this process until now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """Most memory that this process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as a table of Markdown."""
    columns = ("step", "seconds", "cpu s", "peak MB", "files", "MB")
    lines = [columns, tuple("---" for _ in columns), *([str(row[name]) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_STEPS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = dict(
    zip(STEPS, (discover_and_plan, load, share_out, todo, commit, todo, status, finish, finish), strict=True)
)

if __name__ == "__main__":
    main()
