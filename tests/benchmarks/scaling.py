"""Whether the cost of an image stays the same however many there are: time, memory and files.

    python tests/benchmarks/scaling.py SOURCE [--images 1000 10000 100000] [--side 64] [--repeat 1]

Images are PNG of 64x64 pixels, cut at random out of the grey images of SOURCE, a thousand to a folder. A run of few
images (--start-up-images) shows what starting costs; it is taken off the others, so that seconds per 1000 images hold
everything else: finding the files, planning, the stream, and finishing the tables. CPU seconds are likewise. Starting
takes longer than 1000 images do: where others disturb the machine trust CPU seconds, or --repeat.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import common
import inputs


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=1)
    parser.add_argument(
        "--images", type=int, nargs="+", default=[1000, 10_000, 100_000], help="how many (1000 10000 100000)"
    )
    parser.add_argument("--side", type=int, default=64, help="of the images in pixels (64)")
    parser.add_argument("--start-up-images", type=int, default=32, help="images of the run that is only a start (32)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    if min(arguments.images) <= arguments.start_up_images:
        parser.error("--images must be more than --start-up-images")
    with common.scratch(arguments) as place:
        runs = timed(arguments, place)
    start = common.medians(runs[arguments.start_up_images])
    rows = [row(count, common.medians(runs[count]), start, arguments.start_up_images) for count in arguments.images]
    compared = ("s/1000", "CPU s/1000", "peak MB")
    last_by_first = {name: round(rows[-1][name] / rows[0][name], 3) if rows[0][name] else None for name in compared}
    common.tell(arguments, rows, {"runs": runs, "last by first": last_by_first})
    print(f"{rows[-1]['images']} images against {rows[0]['images']}: {last_by_first}")


def timed(arguments: argparse.Namespace, place: Path) -> dict[int, list[dict[str, float]]]:
    """All runs by number of images; the short one, that is only a start, first."""
    pictures = inputs.grey_pictures(arguments.source)
    least = (arguments.side, arguments.side)
    pictures = [picture for picture in pictures if min(picture.pixels.shape) >= arguments.side]
    if not pictures:
        raise SystemExit(f"no image of at least {least} pixels in {arguments.source}")
    counts = [arguments.start_up_images, *arguments.images]
    options = common.segment_options(arguments)
    folders = {count: inputs.write_crops(pictures, place / f"in{count}", count, arguments.side) for count in counts}
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    store = place / "out.zarr"
    common.segment(folders[counts[0]], store, counts[0] * arguments.side**2, options)
    common.remove_output(store)  # the first start finds nothing in the system's cache, and is no measure of the others
    for _ in range(arguments.repeat):
        for count in counts:
            result = common.segment(folders[count], store, count * arguments.side**2, options)
            result |= {f"files: {where}": number for where, number in common.files_written(store).items()}
            common.remove_output(store)
            runs[count].append(result)
            print(f"{count} images: {result}", flush=True)
    return runs


def row(count: int, middle: dict[str, float], start: dict[str, float], started: int) -> dict[str, Any]:
    """What `count` images cost, for 1000 of them, without the start; `started` is how many that run had."""

    def cost(name: str) -> float:
        return round((middle[name] - start[name]) * 1000 / (count - started), 3)

    files = {name: value for name, value in middle.items() if name.startswith("files")}
    return {
        "images": count,
        "s/1000": cost("seconds"),
        "CPU s/1000": cost("CPU seconds"),
        "start s": start["seconds"],
        "seconds": middle["seconds"],
        "Mpx/s": middle["Mpx/s"],
        "peak MB": middle["peak MB"],
        **{f"{name}/1000": round(value * 1000 / count, 2) for name, value in files.items()},
        "files": round(sum(files.values())),
    }


if __name__ == "__main__":
    main()
