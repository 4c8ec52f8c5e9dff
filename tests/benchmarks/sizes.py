"""How well a model's size network finds how wide nuclei are: a table over annotated images, enlarged and reduced.

    python tests/benchmarks/sizes.py DATA... [--model MODEL.keras] [--split val] [--json FILE]

Each annotated image of a split is shown at the given factors of its size, as `segment` would read it from a file of
that size. The truth is the typical width of its annotated nuclei times the factor (`arrays.scale.typical_diameter`).
Images whose nuclei would be narrower than 5 or wider than 160 pixels are left out. An image in which the network sees
no nucleus counts as wrong. `cost` is the time of the estimate by the time of one pass of the segmentation network over
the image at the scale of the truth, both without compilation, summed over images at factor 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize

from nucseg_batch.arrays.scale import step_scale
from nucseg_batch.executors.existing import default_model
from nucseg_batch.files.annotations import find_all_pairs
from nucseg_batch.network.model_file import load_model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.data import Sample, read_all

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""By how much images are enlarged."""
NARROWEST, WIDEST = 5.0, 160.0
"""Widths in pixels that the network is held to."""
CLOSE, FAR = 1.25, 1.6
"""Factors between estimate and truth that the table counts."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the size network said of one image at one size."""

    collection: str
    modality: str
    image: str
    factor: float
    truth: float
    found: float | None

    @property
    def error(self) -> float:
        """Factor between estimate and truth, from 1 on; infinite where nothing was found."""
        return math.inf if self.found is None else math.exp(abs(math.log(self.found / self.truth)))


def resized(pixels: NDArray[Any], factor: float) -> NDArray[Any]:
    """An image enlarged by a factor, of the same dtype: linear interpolation, smoothed before it is reduced."""
    if factor == 1:
        return pixels
    shape = tuple(max(1, round(length * factor)) for length in pixels.shape[:2])
    values = resize(pixels.astype(np.float32), (*shape, *pixels.shape[2:]), order=1, anti_aliasing=factor < 1)
    return values if pixels.dtype.kind == "f" else np.rint(values).astype(pixels.dtype)


def estimates(
    predictor: Predictor, samples: list[Sample], factors: tuple[float, ...] = FACTORS
) -> Iterator[tuple[Sample, Estimate]]:
    """All that the table is made of."""
    for sample in samples:
        for factor in factors:
            truth = sample.diameter * factor
            if not sample.areas.any() or not NARROWEST <= truth <= WIDEST:
                continue
            found = predictor.width(resized(sample.pixels, factor))
            yield sample, Estimate(sample.collection, sample.modality, sample.key, factor, truth, found)


def rows_of(found: list[Estimate]) -> list[dict[str, Any]]:
    """A row for all, for each kind of image and for each factor."""
    groups: dict[str, list[Estimate]] = {"all": found}
    for one in found:
        groups.setdefault(f"{one.collection}, {one.modality}", []).append(one)
    for one in sorted(found, key=lambda one: one.factor):
        groups.setdefault(f"enlarged by {one.factor:g}", []).append(one)
    return [
        {
            "images": name,
            "count": len(some),
            "within 25 %": round(float(np.mean([one.error <= CLOSE for one in some])), 3),
            f"within {FAR:g}": round(float(np.mean([one.error <= FAR for one in some])), 3),
            "none found": sum(one.found is None for one in some),
            "median error": round(float(np.median([one.error for one in some])), 3),
        }
        for name, some in groups.items()
    ]


def cost(predictor: Predictor, samples: list[Sample]) -> float:
    """Time of the estimates by the time of one pass of the segmentation network at the right scales."""
    sizes, passes = 0.0, 0.0
    for sample in samples:
        scale = step_scale(predictor.diameter / sample.diameter)
        sizes += _seconds(partial(predictor.width, sample.pixels))
        passes += _seconds(partial(predictor.heads, sample.pixels, scale))
    return round(sizes / passes, 3)


def _seconds(call: Callable[[], object]) -> float:
    """The shorter of two calls, after one that compiles."""
    call()
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--split", default="val")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    predictor = Predictor(load_model(arguments.model), SegmentSettings())
    pairs = [pair for pair in find_all_pairs(arguments.data).pairs if pair.split == arguments.split]
    samples = read_all(pairs, print)
    found = [one for _, one in estimates(predictor, samples, tuple(arguments.factors))]
    record: dict[str, Any] = {"table": rows_of(found), "cost": cost(predictor, samples)}
    for row in record["table"]:
        print("  ".join(f"{value!s:>12}" if key != "images" else f"{value:<36}" for key, value in row.items()))
    print(f"cost: {record['cost']} of a pass")
    if arguments.json:
        worst = sorted(found, key=lambda one: -one.error)
        arguments.json.write_text(json.dumps({**record, "images": [dataclasses.asdict(o) for o in worst]}, indent=1))


if __name__ == "__main__":
    main()
