"""Crops that a core prepares for training, and their bytes.

    python tests/benchmarks/training_input.py DATA [--batches N] [--repeat N] [--json FILE]

DATA: annotated images, as `train` takes them; images of other splits than `train` are left out. Processor time of one
thread, least of the rounds, so that other programs on the machine disturb it little; the loops are compiled before.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import keras

from nucseg_batch.files.annotations import find_pairs
from nucseg_batch.training.crops import Crops
from nucseg_batch.training.data import read_all
from nucseg_batch.training.settings import TrainSettings


def main() -> None:
    """Prints crops per second of processor time, and the bytes that a crop hands to the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--batches", type=int, default=40, help="of the default size, in a round")
    parser.add_argument("--repeat", type=int, default=4, help="rounds")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    pairs = [pair for pair in find_pairs(options.data).pairs if pair.split in (None, "train")]
    settings = TrainSettings()
    crops = Crops(read_all(pairs, print), settings)
    seconds = []
    for _ in range(options.repeat + 1):  # the first round compiles
        begun = time.thread_time()
        batches = [crops[number] for number in range(options.batches)]
        seconds.append(time.thread_time() - begun)
    figures = {
        "crops a second": settings.batch_size * options.batches / min(seconds[1:]),
        "bytes a crop": sum(array.nbytes for array in keras.tree.flatten(batches[0])) / settings.batch_size,
        "images": len(pairs),
    }
    for name, value in figures.items():
        print(f"{name}: {value:.0f}")
    if options.json:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
