"""Times lazy labels of a zarr plane against `segment` on the same plane, and what reading through dask costs.

    python tests/benchmarks/arrays.py SOURCE [--side 8192] [--kinds zarr dask dense] [--repeat 3]
    python tests/benchmarks/arrays.py SOURCE --side 30000 --empty --kinds zarr dense --repeat 1

The plane is a mosaic of the grey 256x256 images (--tile) of SOURCE, as in large_zarr.py; with --empty only one chunk in
--every has pictures, and the others are dark. Each kind is a process of its own that writes labels to zarr, alternating
with `segment`; `by segment` is the seconds of a kind by those of `segment`, start-up included, and `CPU by segment` the
same of processor time, which says more on a busy machine. Kinds: `zarr` is segment_array of the zarr array, `dask` of a
dask array of its chunks, `dense` is `zarr` with dense labels, which are compared with the masks of `segment`.

`reading` compares the windows of regions read directly, as `segment` does, with the same windows through a dask array
of whole regions; both in one process, alternating.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np

PROGRAM = """
import sys
import dask
import dask.array as da
import nucseg_batch
import zarr

place, kind, out, threads, *options = sys.argv[1:]
options = {"diameter": float(options[0])} if options else {}
array = zarr.open_array(place + "/0", mode="r")
x = da.from_array(array, chunks=array.chunks) if kind == "dask" else array
with dask.config.set(scheduler="threads", num_workers=int(threads)):
    labels = nucseg_batch.segment_array(x, axes="yx", dense=kind == "dense", **options)
    stored = zarr.create_array(out, shape=labels.shape, chunks=(1024, 1024), dtype=labels.dtype, overwrite=True)
    da.store(labels, stored, lock=False)
"""


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=3)
    parser.add_argument("--side", type=int, default=8192, help="of the plane in pixels (8192)")
    parser.add_argument("--chunk", type=int, default=1024, help="side of its chunks (1024)")
    parser.add_argument("--tile", type=int, default=256, help="side of the images that are taken (256)")
    parser.add_argument("--kinds", nargs="+", default=["zarr", "dask", "dense"], choices=["zarr", "dask", "dense"])
    parser.add_argument("--threads", type=int, default=2, help="of dask (2)")
    parser.add_argument("--diameter", type=float, help="of nuclei in pixels (estimated)")
    parser.add_argument("--empty", action="store_true", help="most of the plane is dark")
    parser.add_argument("--every", type=int, default=16, help="with --empty, one chunk in so many has pictures (16)")
    arguments = parser.parse_args()
    pictures = inputs.grey_pictures(arguments.source, arguments.tile)
    with common.scratch(arguments) as place:
        plane = _write_plane(place / "in.zarr", pictures, arguments)
        size = [] if arguments.diameter is None else [arguments.diameter]
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in ("segment", *arguments.kinds)}
        for number in range(arguments.repeat):
            options = ["--diameter", *size] if size else []
            store = place / f"out{number}.zarr"
            runs["segment"].append(_row(["-m", "nucseg_batch", "segment", plane, store, *options], arguments))
            print(f"segment: {runs['segment'][-1]}", flush=True)
            for kind in arguments.kinds:
                out = place / f"{kind}.zarr"
                runs[kind].append(_row(["-c", PROGRAM, plane, kind, out, arguments.threads, *size], arguments))
                row, reference = runs[kind][-1], runs["segment"][-1]
                row["by segment"] = round(row["seconds"] / reference["seconds"], 3)
                row["CPU by segment"] = round(row["CPU seconds"] / reference["CPU seconds"], 3)
                if kind == "dense" and not _same(store, plane, out):
                    sys.exit("dense labels are not those of segment")
                print(f"{kind}: {runs[kind][-1]}", flush=True)
            if number < arguments.repeat - 1:
                common.remove_output(store)
        reading = _reading(plane)
    rows = [{"kind": kind, **common.medians(these)} for kind, these in runs.items()]
    print(f"reading through dask by reading directly: {reading:.2f}", flush=True)
    common.tell(arguments, rows, {"runs": runs, "reading": reading})


def _write_plane(path: Path, pictures: Any, arguments: Any) -> Path:
    """The plane, written row of tiles by row, so that it need not fit in memory."""
    import zarr

    side, tile, rng = arguments.side, arguments.tile, np.random.default_rng(0)
    if not arguments.empty:
        return inputs.write_zarr(path, [inputs.mosaic(pictures, side)], "yx", (arguments.chunk, arguments.chunk))
    dark = np.full((1, 1), int(np.median([picture.pixels.min() for picture in pictures])), pictures[0].pixels.dtype)
    inputs.write_zarr(path, [np.broadcast_to(dark, (arguments.chunk,) * 2)], "yx", (arguments.chunk,) * 2)
    array = zarr.open_group(path, mode="r+")["0"]
    assert isinstance(array, zarr.Array)
    array.resize((side, side))
    step = -(-arguments.chunk // tile) * tile
    for top in range(0, side, step):
        band = np.broadcast_to(dark, (min(step, side - top), side)).copy()
        for left in range(0, side, step):
            if rng.integers(arguments.every) == 0:
                square = band[:, left : left + step]
                square[...] = inputs.mosaic(pictures, step, seed=top + left)[: square.shape[0], : square.shape[1]]
        array[top : top + band.shape[0]] = band
    return path


def _row(words: list[object], arguments: Any) -> dict[str, float]:
    """What one process took."""
    done = common.finished([sys.executable, *words])
    pixels = arguments.side**2
    return {
        "seconds": round(done.seconds, 2),
        "CPU seconds": round(done.cpu_seconds, 2),
        "Mpx/s whole": round(pixels / done.seconds / 1e6, 3),
        "peak MB": round(done.peak_mb),
    }


def _same(store: Path, plane: Path, out: Path) -> bool:
    """Whether labels are those of a run, compared region by region."""
    program = (
        "import sys, nucseg_batch, zarr, numpy as np\n"
        "masks = nucseg_batch.open_masks(sys.argv[1])\n"
        "array, place = masks.array(next(iter(masks)))\n"
        "labels = zarr.open_array(sys.argv[2], mode='r')\n"
        "for top in range(0, labels.shape[0], 1024):\n"
        "    assert np.array_equal(array[(*place, slice(top, top + 1024))], labels[top : top + 1024]), top\n"
    )
    return subprocess.run([sys.executable, "-c", program, str(store), str(out)], check=False).returncode == 0


def _reading(plane: Path, region: int = 3072, margin: int = 320, rounds: int = 5) -> float:
    """Median of the seconds of reading windows of regions through dask by those of reading them directly."""
    from nucseg_batch.api.arrays import open_images
    from nucseg_batch.files.dask_windows import DaskWindows

    images = open_images(plane)
    name = next(iter(images))
    array = images.array(name)
    ratios = []
    for _ in range(rounds):
        took = []
        for one in (array, DaskWindows(images[name])):
            began = time.perf_counter()
            for top in range(0, array.shape[-2], region):
                for left in range(0, array.shape[-1], region):
                    window = (
                        slice(max(0, start - margin), min(length, start + region + margin))
                        for start, length in zip((top, left), array.shape[-2:], strict=True)
                    )
                    _ = one[(0, 0, 0, *window)]
            took.append(time.perf_counter() - began)
        ratios.append(took[1] / took[0])
    return round(statistics.median(ratios), 3)


if __name__ == "__main__":
    main()
