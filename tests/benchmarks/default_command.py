"""Times `nucseg-batch segment IN OUT` as people type it, beside runs that are told the size of the nuclei.

    python tests/benchmarks/default_command.py SOURCE [--images 2000] [--side 256] [--copies 10] [--repeat 3]

SOURCE is a folder of images. Two inputs are made of it, as TIFF: `mixed`, all of its images so many times, and `alike`,
its grey images of one side, repeated. Each is segmented in three ways, alternating:

- default: without options;
- tuned: with `--diameter`, the model's own, so that nothing is estimated and nothing is rescaled;
- given: each image gets the scale that the default run has chosen for it, read from its table, so that only the
  estimate is missing.

`of tuned` and `of given` are the speeds of the default command as shares of the other two, of the same round; medians.
The pixels that the network sees are those of the images times the square of the scale, so `of tuned` is far from 1 for
images that are enlarged.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import inputs

WAYS = ("default", "tuned", "given")


def main() -> None:
    """Runs the benchmark; or, with `given` as the first argument, one run with scales from a table."""
    if sys.argv[1:2] == ["given"]:
        given(*sys.argv[2:])
        return
    parser = common.parser(__doc__ or "", repeat=3)
    parser.add_argument("--images", type=int, default=2000, help="how many that are alike (2000)")
    parser.add_argument("--side", type=int, default=256, help="of the images that are alike (256)")
    parser.add_argument("--copies", type=int, default=10, help="of each image of the mixed folder (10)")
    parser.add_argument("--kinds", nargs="+", choices=("mixed", "alike"), default=["mixed", "alike"])
    common.add_model_options(parser)
    arguments = parser.parse_args()
    with common.scratch(arguments) as place:
        made = {kind: folder(kind, arguments, place) for kind in arguments.kinds}
        runs = {
            kind: [one_round(path, place, arguments) for _ in range(arguments.repeat)] for kind, path in made.items()
        }
    rows = [{"kind": kind, **row} for kind, rounds in runs.items() for row in table(rounds)]
    common.tell(arguments, rows, {"runs": runs})


def folder(kind: str, arguments: argparse.Namespace, place: Path) -> Path:
    """The images of a kind."""
    if kind == "alike":
        pictures = inputs.grey_pictures(arguments.source, arguments.side)
        return inputs.write_images(pictures, place / kind, arguments.images, "tiff")
    target = place / kind
    target.mkdir()
    found = sorted(path for path in arguments.source.rglob("*") if path.suffix.lower() in inputs.SUFFIXES)
    for copy in range(arguments.copies):
        for path in found:
            shutil.copyfile(path, target / f"{copy:03d}_{path.name}")
    return target


def one_round(images: Path, place: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One run in each way."""
    store, scales = place / "out.zarr", place / "scales.csv"
    options = common.model_options(arguments) + list(arguments.options)
    tuned = ["--diameter", common.model_diameter(arguments.model)]
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        command = [sys.executable, "-m", "nucseg_batch"]
        if way == "given":
            command = [sys.executable, __file__, "given", str(scales)]
        done = common.finished([*command, "segment", images, store, *options, *(tuned if way == "tuned" else ())])
        found[way] = common.figures(done, pixels(store.with_suffix(".images.csv")))
        if way == "default":
            shutil.copyfile(store.with_suffix(".images.csv"), scales)
        common.remove_output(store)
        print(f"{images.name}, {way}: {found[way]}", flush=True)
    return found


def pixels(images: Path) -> int:
    """Pixels of all images of a table."""
    with images.open(newline="", encoding="utf-8") as file:
        return sum(int(row["height"]) * int(row["width"]) for row in csv.DictReader(file))


def table(rounds: list[dict[str, dict[str, float]]]) -> list[dict[str, object]]:
    """Medians of each way, and the shares of the default command."""
    rows: list[dict[str, object]] = []
    for way in WAYS:
        share = statistics.median(one["default"]["Mpx/s"] / one[way]["Mpx/s"] for one in rounds)
        rows.append({"way": way, **common.medians([one[way] for one in rounds]), "default by this": round(share, 3)})
    return rows


def given(scales: str, *command: str) -> None:
    """Runs the program with the scales of a table in place of those that the size network estimates."""
    from nucseg_batch.cli.main import main as program
    from nucseg_batch.pipeline import stream

    with Path(scales).open(newline="", encoding="utf-8") as file:
        known = {row["image"]: float(row["scale"] or 1) for row in csv.DictReader(file)}

    def sized(items: list[Any], predictor: object) -> list[Any]:
        return [replace(item, scale=known[item.plane.image.key]) for item in items]

    vars(stream)["_sized"] = sized
    program(command)


if __name__ == "__main__":
    main()
