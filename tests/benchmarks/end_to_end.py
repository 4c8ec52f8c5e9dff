"""Times `nucseg-batch segment` as a user runs it, from files to masks and tables, against the bare forward pass.

    python tests/benchmarks/end_to_end.py SOURCE [--images 2000] [--source-kind png tiff zarr] [--repeat 3]

SOURCE is a folder of images, of which the grey ones of 256x256 pixels (--side) are repeated until there are as many as
asked for: as PNG files, as TIFF files, or as planes of one OME-Zarr store. Before each run the network alone is timed,
in a process of its own, on random batches of the same padded shape, batch size and precision, compiled as the program
compiles it; so a machine that slows down slows both alike. `of forward` is the share of that speed that is left when
reading, separating, measuring and writing use the same processor; `CPU for forward` is what the network alone would
need of all processor time of the command, and changes less where others disturb the machine. `--diameter measured` is
what a user gets who says nothing; then images are rescaled, and the network sees other numbers of pixels than are
counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common
import inputs


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=3)
    parser.add_argument("--images", type=int, nargs="+", default=[2000], help="how many (2000)")
    parser.add_argument("--side", type=int, default=256, help="of the images that are taken (256)")
    parser.add_argument(
        "--source-kind", nargs="+", choices=inputs.SOURCE_KINDS, default=["png"], help="what IN is (png)"
    )
    parser.add_argument("--forward-seconds", type=float, default=10.0, help="length of each forward run (10)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    with common.scratch(arguments) as place:
        runs = timed(arguments, place)
    rows = [row(kind, count, count * arguments.side**2, these) for (kind, count), these in runs.items()]
    forward = runs[next(iter(runs))][0]["forward"]
    record = {"forward": forward, "runs": [run for these in runs.values() for run in these]}
    common.tell(arguments, rows, record)
    print(
        f"medians of {arguments.repeat}; Mpx/s: of the stream; whole: of the command with its start; forward: of the "
        f"network alone, batches of {forward['batch']}, {forward['precision']} on {forward['device']}; "
        "peak MB: resident memory"
    )


def timed(arguments: argparse.Namespace, place: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """All runs of each kind and number of images, each after a forward run."""
    pictures = inputs.grey_pictures(arguments.source, arguments.side)
    jobs = [(kind, count) for count in arguments.images for kind in arguments.source_kind]
    places = {
        (kind, count): inputs.write_images(pictures, place / f"{kind}{count}", count, kind) for kind, count in jobs
    }
    options = common.segment_options(arguments)
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {job: [] for job in jobs}
    store = place / "out.zarr"
    for _ in range(arguments.repeat):
        for kind, count in jobs:
            seconds = ["--seconds", arguments.forward_seconds]
            forward = common.device(["forward"], arguments, "--side", arguments.side, *seconds)["forward"]
            result: dict[str, Any] = common.segment(places[kind, count], store, count * arguments.side**2, options)
            common.remove_output(store)
            result |= {"kind": kind, "images": count, "forward": forward}
            runs[kind, count].append(result)
            print(f"{count} images: {result}", flush=True)
    return runs


def row(kind: str, count: int, pixels: int, runs: list[dict[str, Any]]) -> dict[str, object]:
    """Medians of the runs of one kind; the share of forward is the median of the pairs' shares."""
    numbers = ("Mpx/s", "Mpx/s whole", "seconds", "CPU seconds", "peak MB", "nuclei")
    figures = [
        {
            **{name: run[name] for name in numbers},
            "forward": run["forward"]["Mpx/s"],
            "of forward": run["Mpx/s"] / run["forward"]["Mpx/s"],
            "whole of forward": run["Mpx/s whole"] / run["forward"]["Mpx/s"],
            "CPU for forward": pixels / 1e6 / run["forward"]["Mpx per CPU second"] / run["CPU seconds"],
        }
        for run in runs
    ]
    return {"kind": kind, "images": count, **common.medians(figures)}


if __name__ == "__main__":
    main()
