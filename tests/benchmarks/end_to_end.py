"""Times `nucseg-batch segment` as a user runs it, from files to masks and tables, and takes its peak memory.

    python tests/benchmarks/end_to_end.py SOURCE [--images 500 2000] [--repeat 3] [--options ...]

SOURCE is a folder of images, of which those of 256x256 pixels are copied, under new names, until there are as many as
asked for. Sizes alternate, so that a machine that slows down slows all alike. Mpx/s is what the program says of its
stream (from the first image read to the last unit written, start-up excluded); memory is the system's account of the
finished process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import IMAGE_SUFFIXES, read_header


def copies(source: Path, folder: Path, count: int) -> None:
    """Fills a folder with copies of the 256x256 images of another."""
    originals = [
        path for path in sorted(source.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and _is_square(path)
    ]
    if not originals:
        sys.exit(f"no image of 256x256 pixels in {source}")
    folder.mkdir()
    for i in range(count):
        original = originals[i % len(originals)]
        shutil.copy(original, folder / f"{i:06d}{original.suffix}")


def _is_square(path: Path) -> bool:
    try:
        header = read_header(path, max_pixels=10**9)
    except ImageError:
        return False
    return (header.height, header.width) == (256, 256)


def timed(folder: Path, store: Path, options: list[str]) -> dict[str, float]:
    """One run in a process of its own: Mpx/s of the stream, seconds in all, peak resident memory in MB."""
    command = [sys.executable, "-m", "nucseg_batch", "segment", str(folder), str(store), *options]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    speed = re.search(r"([\d.]+) Mpx/s", output)
    if status or speed is None:
        sys.exit(f"{' '.join(command)} failed:\n{output}")
    seconds = time.monotonic() - began
    return {"Mpx/s": float(speed[1]), "seconds": round(seconds, 1), "peak MB": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Runs the benchmark and prints a line a run, and medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="passed on to nucseg-batch segment")
    arguments = parser.parse_args()
    results: dict[int, list[dict[str, float]]] = {count: [] for count in arguments.images}
    with tempfile.TemporaryDirectory() as place:
        for count in arguments.images:
            copies(arguments.source, Path(place, f"in{count}"), count)
        for repeat in range(arguments.repeat):
            for count in arguments.images:
                store = Path(place, f"out{count}_{repeat}.zarr")
                results[count].append(timed(Path(place, f"in{count}"), store, arguments.options))
                shutil.rmtree(store)
                print(count, "images:", results[count][-1], flush=True)
    medians = {
        count: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for count, runs in results.items()
    }
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
