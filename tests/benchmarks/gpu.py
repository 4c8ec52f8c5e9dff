"""What a machine with a GPU gets out of it; runs on a CPU too, where it only shows that it works.

    KERAS_BACKEND=jax python tests/benchmarks/gpu.py SOURCE [--images 20000] [--source-kind png tiff zarr]

Every step is a process of its own, so that device memory is free for the next:

1. The device program (normalise, network, separate, one compiled call) on real images that are on the device already,
   for batches doubled until there is no gain or no memory. (On a CPU it is measured too, but `segment` separates nuclei
   in another way there, so that `idle` says little.)
2. The ceilings of the device: the product of large matrices in the network's type, and copying a large array. Shares of
   them are of the network's work as counted from its layers; separation does more, so both shares are lower bounds.
3. `nucseg-batch segment` from PNG, TIFF and zarr. The stream holds compiling, which takes long on a GPU; so a run of
   few images (--start-up-images) goes before each, and `steady` is the speed at which the others were done beyond it.
   `idle` is 1 - `steady` / speed of the device program at the program's own batch size: the share of time in which the
   device has nothing to do if its program runs as fast as it does alone. `busy (nvidia-smi)` is what the driver saw,
   the mean from its first to its last work.
4. Agreement: the same images segmented on the CPU; of the nuclei, the share that has a partner with IoU > .95 on the
   other side (of the side with more nuclei).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np

from nucseg_batch import open_masks
from nucseg_batch.arrays.metrics import overlaps

SAME = 0.95
"""IoU above which a nucleus is the same."""
POLL_MS = 200
"""How often the driver is asked."""


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=2)
    parser.add_argument("--images", type=int, default=20_000, help="that are segmented from files (20000)")
    parser.add_argument("--start-up-images", type=int, default=1000, help="of the run that is a start; 0: none (1000)")
    parser.add_argument("--reference-images", type=int, default=500, help="that the CPU does too; 0: none (500)")
    parser.add_argument("--side", type=int, default=256, help="of the images that are taken (256)")
    parser.add_argument(
        "--source-kind",
        nargs="*",
        choices=inputs.SOURCE_KINDS,
        default=list(inputs.SOURCE_KINDS),
        help="what IN is (all)",
    )
    parser.add_argument("--batches", type=int, nargs="*", default=[], help="of the device program (doubled from 16)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement on the device (5)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    batches = ["--batches", *arguments.batches] if arguments.batches else []
    sizes = ["--side", arguments.side, "--seconds", arguments.seconds, *batches]
    answer = common.device(["ceilings", "program"], arguments, "--source", arguments.source, *sizes)
    program, ceilings = answer["program"], answer["ceilings"]
    shares = device_shares(program, ceilings)
    for title, table in (("device program", program["batches"]), ("of the ceilings", [shares])):
        print(f"\n{title}, {program['precision']} on {program['device']}, {program['backend']}")
        common.print_table(table)
    with common.scratch(arguments) as place:
        runs, rows = from_files(arguments, place, program["own"])
        same = agreement(arguments, place) if arguments.reference_images else None
    record = {"program": program, "ceilings": ceilings, "shares": shares, "runs": runs, "agreement": same}
    common.tell(arguments, rows or [shares], record)
    if same is not None:
        print("agreement with the CPU:", same)


def device_shares(program: dict[str, Any], ceilings: dict[str, Any]) -> dict[str, float]:
    """The fastest batch of the device program against what the device can do."""
    speed = program["best"]["Mpx/s"]
    tera, giga = speed * program["FLOP per pixel"] / 1e6, speed * program["bytes per pixel"] / 1e3
    return {
        "batch": program["best"]["batch"],
        "Mpx/s": speed,
        "TFLOP/s": round(tera, 3),
        "matmul TFLOP/s": ceilings["matmul TFLOP/s"],
        "share of arithmetic": round(tera / ceilings["matmul TFLOP/s"], 4),
        "GB/s": round(giga, 2),
        "copy GB/s": ceilings["copy GB/s"],
        "share of memory": round(giga / ceilings["copy GB/s"], 4),
    }


def from_files(
    arguments: argparse.Namespace, place: Path, own: dict[str, float]
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Runs of the whole program from each kind of files, and a row of medians for each."""
    pictures = inputs.grey_pictures(arguments.source, arguments.side)
    pixels, start_pixels = (count * arguments.side**2 for count in (arguments.images, arguments.start_up_images))
    store = place / "out.zarr"
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in arguments.source_kind}
    options = common.segment_options(arguments)
    written = {
        (kind, count): inputs.write_images(pictures, place / f"{kind}{count}", count, kind)
        for kind in arguments.source_kind
        for count in {arguments.images, arguments.start_up_images} - {0}
    }
    for repeat in range(arguments.repeat):
        for kind in arguments.source_kind:
            start = None
            if arguments.start_up_images:
                start = common.segment(written[kind, arguments.start_up_images], store, start_pixels, options)
                common.remove_output(store)
            with busy() as seen:
                result: dict[str, Any] = common.segment(written[kind, arguments.images], store, pixels, options)
            common.remove_output(store)
            result["steady"] = steady(result, pixels, start, start_pixels)
            result["idle"] = round(1 - result["steady"] / own["Mpx/s"], 3)
            result |= {"busy (nvidia-smi)": seen[0]} if seen else {}
            runs[kind].append(result)
            print(f"{kind}, run {repeat + 1}: {result}", flush=True)
    rows = [{"kind": kind, "images": arguments.images, **common.medians(these)} for kind, these in runs.items()]
    return runs, rows


def steady(run: dict[str, float], pixels: int, start: dict[str, float] | None, start_pixels: int) -> float:
    """Mpx/s of the images that a run has more than the run that is only a start; without that, of the stream."""
    if start is None:
        return run["Mpx/s"]
    seconds = run["seconds"] - start["seconds"]
    return round((pixels - start_pixels) / seconds / 1e6, 2) if seconds > 0 else run["Mpx/s"]


@contextlib.contextmanager
def busy() -> Iterator[list[float]]:
    """Gives, after its block, the share of time in which the GPU was at work; nothing where there is no nvidia-smi."""
    seen: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield seen
        return
    card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
    asked = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"-lms={POLL_MS}", f"--id={card}"]
    with subprocess.Popen(["nvidia-smi", *asked], stdout=subprocess.PIPE, text=True) as driver:
        try:
            yield seen
        finally:
            driver.terminate()
            assert driver.stdout is not None
            values = [float(line) for line in driver.stdout.read().split("\n") if line.strip().isdigit()]
    at_work = [i for i, value in enumerate(values) if value > 0]
    if at_work:
        seen.append(round(statistics.fmean(values[at_work[0] : at_work[-1] + 1]) / 100, 3))


def agreement(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The same images on the device and on the CPU."""
    pictures = inputs.grey_pictures(arguments.source, arguments.side)
    count = min(arguments.reference_images, len(pictures))  # copies would say nothing new
    same = inputs.write_images(pictures, place / "same", count, "tiff")
    options = common.segment_options(arguments)
    stores = [place / "device.zarr", place / "cpu.zarr"]
    common.segment(same, stores[0], count * arguments.side**2, options)
    common.segment(same, stores[1], count * arguments.side**2, [*options, "--device", "cpu"])
    here, there = (open_masks(store) for store in stores)
    counts = np.array([pair(here[image], there[image]) for image in there]).sum(axis=0)
    partners, device, cpu = (int(number) for number in counts)
    share = partners / max(device, cpu, 1)
    return {"images": count, "device": device, "CPU": cpu, f"IoU > {SAME}": partners, "share": round(share, 5)}


def pair(here: inputs.Pixels, there: inputs.Pixels) -> tuple[int, int, int]:
    """Nuclei of two masks that are the same, and all of each."""
    shared = overlaps(here, there)
    return int((shared.iou > SAME).sum()), shared.predictions, shared.truths


if __name__ == "__main__":
    main()
