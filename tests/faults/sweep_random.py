"""Kills a run of many real images at random times, lets it go on, and compares; by hand, since it takes long.

    python tests/faults/sweep_random.py IMAGES WORK [--rounds 50] [--count 500] [--kills 1] [--real] [--seed 1]

IMAGES is a folder of images, of which so many are taken, again and again as crops where there are too few. WORK keeps
the crops, the undisturbed run and a line for each round that is done, so that the same command goes on after a stop.
With --real the program runs as users start it, with its own model; else with the quick network of driver.py. Each round
kills so many times in a row after a random part of the time that the undisturbed run took, then goes on to the end,
calls once more, and compares every file. Prints a table, and ends with 1 where anything differed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import imagecodecs
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.tree import DRIVER, differences, planes_done, tree

from nucseg_batch.files.images import read_image

SIDES = (96, 112, 128, 144)
"""Of the crops, so that there are stacks of several shapes."""


@dataclass(frozen=True)
class Round:
    """One round that is done."""

    seed: int
    kills: list[float]
    """Seconds after which each process was killed."""
    done: list[int]
    """Images that were committed by then, of each."""
    segmented: int
    """Images that the last process segmented."""
    different: list[str]
    """Names of what differs from the undisturbed run."""
    again: int
    """Images that one more call segmented: none."""


class Runs:
    """Runs of the program over the crops."""

    def __init__(self, work: Path, real: bool) -> None:
        self._images = work / "in"
        start = [sys.executable, "-m", "nucseg_batch"] if real else [sys.executable, str(DRIVER), "run"]
        self._real, self._start = real, start

    def begin(self, store: Path) -> subprocess.Popen[str]:
        """Starts the command."""
        faults = [] if self._real else [json.dumps({"slow": 0.004})]
        command = [*self._start, *faults, "segment", str(self._images), str(store)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def whole(self, store: Path) -> int:
        """Runs it to its end, and says how many images it segmented."""
        process = self.begin(store)
        output, errors = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"the command ended with {process.returncode}: {output}{errors}")
        return int(output.partition("; ")[2].partition(" newly segmented")[0])


def crops(images: Path, folder: Path, count: int) -> None:
    """So many crops of the images of a folder; what is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(path for path in images.rglob("*") if path.suffix in (".png", ".tif", ".jpg"))
    rng = np.random.default_rng(1)
    for number in range(count):
        side = SIDES[number % len(SIDES)]
        pixels = read_image(sources[number % len(sources)], max_pixels=10**8)
        top, left = (int(rng.integers(0, max(1, length - side))) for length in pixels.shape[:2])
        target = folder / f"{number:05d}.png"
        if not target.exists():
            crop = np.ascontiguousarray(pixels[top : top + side, left : left + side])
            target.write_bytes(imagecodecs.png_encode(crop))


def one_round(runs: Runs, store: Path, seed: int, kills: int, seconds: float, reference: dict[str, str]) -> Round:
    """Kills, goes on, and compares."""
    chance, times, done = random.Random(seed), [], []
    for _ in range(kills):
        process = runs.begin(store)
        times.append(round(chance.uniform(0.1, 1.0) * seconds, 2))
        time.sleep(times[-1])
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        done.append(len(planes_done(store)))
    segmented = runs.whole(store)
    different = differences(store, reference)
    return Round(seed, times, done, segmented, different, runs.whole(store))


def print_table(rounds: Sequence[Round], count: int) -> bool:
    """The rounds, and whether all were as they should be."""
    print("seed  killed after s     done then      done after  again  differences")
    good = True
    for one in rounds:
        as_meant = not one.different and one.segmented == count - one.done[-1] and one.again == 0
        good &= as_meant
        print(
            f"{one.seed:4}  {' '.join(map(str, one.kills)):17}  {' '.join(map(str, one.done)):13}  {one.segmented:10}  "
            f"{one.again:5}  {len(one.different)}{'' if as_meant else '  WRONG ' + ' '.join(one.different[:3])}"
        )
    print(f"{len(rounds)} rounds, {sum(not one.different for one in rounds)} identical")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path)
    for name, default in (("rounds", 50), ("count", 500), ("kills", 1), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--real", action="store_true")
    options = parser.parse_args()
    work = options.work / ("real" if options.real else "quick")
    crops(options.images, work / "in", options.count)
    runs, reference, log = Runs(work, options.real), work / "reference" / "out.zarr", work / "rounds.jsonl"
    timed = work / "seconds"
    reference.parent.mkdir(exist_ok=True)
    if not timed.exists():
        began = time.monotonic()
        runs.whole(reference)
        timed.write_text(str(time.monotonic() - began))
    rounds = [Round(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    expected = tree(reference)
    for number in range(options.seed, options.seed + options.rounds):
        if number in {one.seed for one in rounds}:
            continue
        store = work / f"round-{number}" / "out.zarr"
        shutil.rmtree(store.parent, ignore_errors=True)
        store.parent.mkdir()
        rounds.append(one_round(runs, store, number, options.kills, float(timed.read_text()), expected))
        with open(log, "a") as file:
            file.write(json.dumps(asdict(rounds[-1])) + "\n")
        shutil.rmtree(store.parent)
    sys.exit(0 if print_table(rounds, options.count) else 1)


if __name__ == "__main__":
    main()
