"""How well and how fast nuclei are joined over z-slices, on simulated stacks whose volumes are known.

    python tests/benchmarks/volumes.py [--json FILE] [--depth N]
    python tests/benchmarks/volumes.py --segment [--side PX] [--json FILE] [--depth N]

Stacks hold ellipsoids 17 to 26 pixels wide, of which many touch, in 35 % of the volume. Of each: distance of slices in
pixels, least distance of centres by the sum of radii, share of sections with each kind of error, AP@.5 of the slices,
and F1 of volumes at an IoU of 0.5; beside it that of joins by IoU alone (at least 0.25, best match). With --segment a
stack is segmented by the default model instead, from a TIFF to tables: AP, F1, and seconds of
segmenting and joining, of the clock and of the processor.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1]))
from pictures import fluorescence
from small_runs import Notes
from stacks import Stack, average_precision, f1, linked, packed, segmented

from nucseg_batch.arrays.label_overlaps import LabelRuns, overlaps
from nucseg_batch.executors import finishing, job, linking, local
from nucseg_batch.files.run.masks import open_masks
from nucseg_batch.settings import SegmentSettings

RADIUS = 13
SIDES = (160, 170)


def joined_by_iou(slices: Stack) -> Stack:
    """What joins by IoU alone give: each label takes the volume of the one before that it matches best."""
    found = slices.astype(np.int64)
    for z in range(1, len(slices)):
        before, here = found[z - 1], slices[z]
        pairs = overlaps(LabelRuns.of(before), LabelRuns.of(here))
        one, other = np.bincount(before.ravel()), np.bincount(here.ravel())
        iou = pairs.pixels / (one[pairs.first] + other[pairs.second] - pairs.pixels)
        volume, taken = np.zeros(other.size, np.int64), set[int]()
        for place in np.argsort(-iou, kind="stable").tolist():
            first, second = int(pairs.first[place]), int(pairs.second[place])
            if iou[place] >= 0.25 and first not in taken and not volume[second]:
                volume[second] = first
                taken.add(first)
        new = volume == 0
        new[0] = False
        volume[new] = found[:z].max() + 1 + np.arange(np.count_nonzero(new))
        found[z] = volume[here]
    return found.astype(np.uint32)


def quality(depth: int) -> list[dict[str, Any]]:
    """A row for each kind of stack."""
    rows = []
    for distance, closeness in itertools.product((1, 2, 4, 6), (0.85, 0.95)):
        volume = depth * distance * SIDES[0] * SIDES[1]
        count = int(volume * 0.35 / (4 / 3 * np.pi * (0.85 * RADIUS) ** 3))
        truth = packed(
            (depth, *SIDES), count, RADIUS, anisotropy=distance, closeness=closeness, seed=distance * 10 + depth
        )
        for errors in (0, 0.007, 0.015, 0.03):
            slices = segmented(truth, errors=errors, seed=3)
            rows.append(
                {
                    "distance": distance,
                    "closeness": closeness,
                    "errors": errors,
                    "nuclei": int(truth.max()),
                    "AP@.5": average_precision(slices, truth),
                    "F1": f1(linked(slices), truth),
                    "F1 by IoU": f1(joined_by_iou(slices), truth),
                }
            )
            print("  ".join(f"{name} {value:.3g}" for name, value in rows[-1].items()), flush=True)
    return rows


def segment(depth: int, side: int) -> list[dict[str, Any]]:
    """A row of a stack that the default model segments, with slices 2.5 pixels apart."""
    count = int(depth * side**2 * 2.5 * 0.25 / (4 / 3 * np.pi * 10**3))
    truth = packed((depth, side, side), count, 12, anisotropy=2.5, closeness=1.0, seed=1)
    image = np.stack([fluorescence(plane, seed=z) for z, plane in enumerate(truth)])
    spent: list[tuple[float, float]] = []
    link = linking.link_groups

    def timed(*arguments: Any, **options: Any) -> None:
        began = time.perf_counter(), time.process_time()
        link(*arguments, **options)
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))

    finishing.link_groups = timed  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        tifffile.imwrite(folder / "in" / "a.tif", image, imagej=True, metadata={"axes": "ZYX"})
        settings = SegmentSettings(link="z", diameter=24.0)
        prepared = job.prepare(folder / "in", folder / "out.zarr", None, settings, Notes())
        began = time.process_time()
        summary = local.run(prepared, Notes())
        processor = time.process_time() - began
        masks, volumes = (open_masks(folder / "out.zarr", label=one)["a.tif"] for one in ("nuclei", "volumes"))
    row = {
        "Mpx": image.size / 1e6,
        "sections": summary.outcome.nuclei,
        "AP@.5": average_precision(masks, truth),
        "F1": f1(volumes, truth),
        "segmenting s": summary.stream_seconds,
        "joining s": spent[0][0],
        "joining / segmenting": spent[0][0] / summary.stream_seconds,
        "joining, processor s": spent[0][1],
        "all else, processor s": processor - spent[0][1],
        "processor, joining / all else": spent[0][1] / (processor - spent[0][1]),
    }
    print("  ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    return [row]


def main() -> None:
    """Prints the rows, and writes them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segment", action="store_true", help="segment a stack with the default model")
    parser.add_argument("--depth", type=int, default=60, help="slices of a stack")
    parser.add_argument("--side", type=int, default=768, help="height and width with --segment, in pixels")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    rows = segment(options.depth, options.side) if options.segment else quality(options.depth)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
