"""What a machine with a GPU gets out of it, in one command of less than 8 minutes; on a CPU it shows that it works.

    python tests/benchmarks/gpu.py SOURCE --json gpu.json
    python tests/benchmarks/gpu.py SOURCE --device cpu --images 40 --copies 1 --large-side 1024 --processes 0

SOURCE is a folder of mixed images, among them grey ones of 256x256 pixels (--side), as the test images of DSB2018.
Every step is a process of its own, so that device memory is free for the next. Steps are done in this order, and those
for which --minutes leave no time are named in `skipped`:

- `device`: the device program (normalise, network, separate, one compiled call) on real images that are on the device
  already, and of which only a sum returns, for batches doubled until there is no gain or no memory; and the ceilings of
  the device: the product of large matrices in the network's type, and copying a large array. Shares of them are of the
  network's work as counted from its layers; separation does more, so both are lower bounds. (On a CPU `segment`
  separates nuclei in another way, so that `idle` says little.)
- `mixed, first`: all of SOURCE --copies times with default options, with an empty cache: the time to the first result;
  `mixed, again`: the same with what the first run left in the cache.
- `plate N`: --images copies of the grey images as TIFF, with the model's diameter, in N processes for each of
  --processes (0: as many as the program chooses).
- `agreement`: the same images segmented on the CPU; of the nuclei, the share that has a partner with IoU > .95 on the
  other side (of the side with more nuclei).
- `large`: one zarr plane of --large-side pixels a side, a mosaic.
- `png`, `zarr`: the plate from other files.

Columns: `first s` from the start of the command to the first unit that is done; `steady` Mpx/s between the first and
the last unit that were done, where units are alike, which leaves out starting and most of compiling; `idle` is 1 -
`steady` / speed of the device program at the program's own batch size; `busy` is what the driver saw in the whole
stream; `programs` and `compile s` are those of all processes, the seconds summed over threads.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np

from nucseg_batch import open_masks
from nucseg_batch.arrays.metrics import overlaps
from nucseg_batch.files.run.timings import read_timings

SAME = 0.95
"""IoU above which a nucleus is the same."""
LOOK_SECONDS = 0.05
"""How often it is looked whether the first unit is done."""
COLUMNS = ("step", "images", "Mpx", "processes", "first s", "Mpx/s", "Mpx/s whole", "steady", "idle", "busy")
MORE = ("programs", "compile s", "seconds", "CPU seconds", "peak MB", "nuclei")


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=1)
    parser.add_argument("--images", type=int, default=30_000, help="of a plate (30000)")
    parser.add_argument("--copies", type=int, default=10, help="of SOURCE in the mixed folder (10)")
    parser.add_argument("--large-side", type=int, default=12288, help="of the large plane in pixels (12288)")
    parser.add_argument("--reference-images", type=int, default=300, help="that the CPU does too; 0: none (300)")
    parser.add_argument("--side", type=int, default=256, help="of the images that are taken (256)")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 0, 4], help="of the plates; 0: chosen (1 0 4)")
    parser.add_argument("--only", nargs="*", default=[], help="steps, by the first word of their names (all)")
    parser.add_argument("--batches", type=int, nargs="*", default=[], help="of the device program (doubled from 16)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement on the device (2)")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no step is begun (8)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    with common.scratch(arguments) as place:
        Benchmark(arguments, place).run()


class Benchmark:
    """One call: its images, and what was found so far."""

    def __init__(self, arguments: argparse.Namespace, place: Path) -> None:
        self.arguments, self.place = arguments, place
        self.began = time.monotonic()
        self.pictures = inputs.grey_pictures(arguments.source, arguments.side)
        self.record: dict[str, Any] = {"skipped": []}
        self.rows: list[dict[str, Any]] = []
        self.environment = {"XDG_CACHE_HOME": str(place / "cache")}

    def run(self) -> None:
        """Does all steps that there is time for, and tells what came of them."""
        plates = {f"plate {n}": functools.partial(self.plate, "tiff", n) for n in self.arguments.processes}
        steps: dict[str, Callable[[], None]] = {
            "device": self.device,
            "mixed, first": lambda: self.mixed("mixed, first"),
            "mixed, again": lambda: self.mixed("mixed, again"),
            **plates,
            "agreement": self.agreement,
            "large": self.large,
            "png": lambda: self.plate("png"),
            "zarr": lambda: self.plate("zarr"),
        }
        only = self.arguments.only
        for name, step in steps.items():
            if only and name.split()[0].rstrip(",") not in only:
                continue
            if (time.monotonic() - self.began) / 60 > self.arguments.minutes:
                self.record["skipped"].append(name)
                continue
            began = time.monotonic()
            step()
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        self.record["minutes"] = round((time.monotonic() - self.began) / 60, 2)
        common.tell(self.arguments, self.rows or [{"step": "none"}], self.record)
        for name in ("shares", "agreement", "skipped", "minutes"):
            if self.record.get(name):
                print(f"{name}: {self.record[name]}")

    def device(self) -> None:
        """The device program alone, and the ceilings of the device."""
        arguments = self.arguments
        batches = ["--batches", *arguments.batches] if arguments.batches else []
        sizes = ["--side", arguments.side, "--seconds", arguments.seconds, *batches]
        answer = common.device(["ceilings", "program"], arguments, "--source", arguments.source, *sizes)
        self.record |= {**answer, "shares": device_shares(answer["program"], answer["ceilings"])}
        program = answer["program"]
        print(f"device program, {program['precision']} on {program['device']}, {program['backend']}")
        common.print_table(program["batches"])

    def mixed(self, name: str) -> None:
        """All images of SOURCE with default options."""
        folder = self.place / "mixed"
        if not folder.exists():
            folder.mkdir()
            paths = [path for path in sorted(self.arguments.source.rglob("*")) if path.suffix in inputs.SUFFIXES]
            for copy in range(self.arguments.copies):
                for number, path in enumerate(paths):
                    shutil.copyfile(path, folder / f"{copy:03d}-{number:05d}{path.suffix}")
        options = [*common.model_options(self.arguments), *self.arguments.options]
        self.segment(name, folder, len(list(folder.iterdir())), None, options)

    def plate(self, kind: str, processes: int = 0) -> None:
        """Images of one shape and magnification, from files of a kind."""
        arguments = self.arguments
        place = self.place / f"{kind}{arguments.images}"
        written = place if kind != "zarr" else place.with_suffix(".zarr")
        if not written.exists():
            inputs.write_images(self.pictures, place, arguments.images, kind)
        options = common.segment_options(arguments)
        options += ["--processes", processes] if processes else []
        name = f"plate {processes}" if kind == "tiff" else kind
        self.segment(name, written, arguments.images, arguments.images * arguments.side**2, options)
        if kind != "tiff":
            shutil.rmtree(written)

    def large(self) -> None:
        """One plane that is done by regions."""
        side = self.arguments.large_side
        plane = inputs.mosaic(self.pictures, side)
        place = inputs.write_zarr(self.place / "large.zarr", [plane], "yx", (min(side, 1024),) * 2)
        self.segment("large", place, 1, side**2, common.segment_options(self.arguments))

    def segment(self, name: str, place: Path, images: int, pixels: int | None, options: list[object]) -> None:
        """One run of the program, as a row; pixels: None where the run says how many there are."""
        store = self.place / "out.zarr"
        for repeat in range(self.arguments.repeat):
            found = watched(place, store, pixels, options, self.environment)
            own = self.record.get("program", {}).get("own", {}).get("Mpx/s")
            if pixels is None:
                found["steady"] = 0.0  # units of a mixed folder differ in pixels
            found["idle"] = round(1 - found["steady"] / own, 3) if own and found["steady"] else ""
            row = {"step": name if repeat == 0 else f"{name}, {repeat + 1}", "images": images, **found}
            self.rows.append({column: row.get(column, "") for column in (*COLUMNS, *MORE)})
            common.remove_output(store)
            print(self.rows[-1], flush=True)

    def agreement(self) -> None:
        """The same images on the device and on the CPU."""
        count = min(self.arguments.reference_images, len(self.pictures))  # copies would say nothing new
        if not count:
            return
        same = inputs.write_images(self.pictures, self.place / "same", count, "tiff")
        options = common.segment_options(self.arguments)
        stores = [self.place / "device.zarr", self.place / "cpu.zarr"]
        for store, own in zip(stores, ([], ["--device", "cpu"]), strict=True):
            watched(same, store, count * self.arguments.side**2, [*options, *own], self.environment)
        here, there = (open_masks(store) for store in stores)
        counts = np.array([pair(here[image], there[image]) for image in there]).sum(axis=0)
        partners, device, cpu = (int(number) for number in counts)
        share = partners / max(device, cpu, 1)
        found = {"images": count, "device": device, "CPU": cpu, f"IoU > {SAME}": partners, "share": round(share, 5)}
        self.record["agreement"] = found


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


def watched(
    place: Path, store: Path, pixels: int | None, options: list[object], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Figures of a run of `segment`, with the time to its first unit and what its run folder says of the device."""
    over, first = threading.Event(), [0.0]
    began = time.monotonic()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if done_at(store):
                first[0] = time.monotonic() - began
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        done = common.finished(common.segment_command(place, store, options), environment)
    finally:
        over.set()
        looking.join()
    times = read_timings(store)
    assert times is not None
    size = pixels or common.pixels_of(store)
    device = times.device
    return {
        **common.figures(done, size),
        "Mpx": round(size / 1e6, 2),
        "processes": times.processes,
        "first s": round(first[0], 2),
        "steady": common.steady(done_at(store), size),
        "busy": "" if device.share is None else round(device.share, 3),
        "programs": device.programs,
        "compile s": round(device.compiling, 1),
    }


def done_at(store: Path) -> list[float]:
    """When each unit of a run was done, of whole planes and regions alike."""
    return [path.stat().st_mtime for path in (store.with_suffix(".run") / "units").glob("*.json")]


def pair(here: inputs.Pixels, there: inputs.Pixels) -> tuple[int, int, int]:
    """Nuclei of two masks that are the same, and all of each."""
    shared = overlaps(here, there)
    return int((shared.iou > SAME).sum()), shared.predictions, shared.truths


if __name__ == "__main__":
    main()
