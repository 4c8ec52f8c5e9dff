"""What each group of columns costs, in megapixels a second on one core.

    python tests/benchmarks/columns.py [--side 1024] [--nuclei 500] [--repeat 11] [--json FILE]

On made nuclei, with four channels of uint16 where intensities are measured. Functions take turns, and the time is the
median of the processor time, which other programs on the machine disturb less than that of the clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from skimage.measure import regionprops_table
from skimage.segmentation import expand_labels

sys.path.insert(0, str(Path(__file__).parents[1]))
from real_nuclei import made_nuclei

from nucseg_batch.arrays.compartment_sums import CompartmentSums
from nucseg_batch.arrays.compartments import expanded, rings
from nucseg_batch.arrays.grouping import Groups
from nucseg_batch.arrays.intensity_columns import edges, intensity_columns, weighted_centroids
from nucseg_batch.arrays.measure import measure
from nucseg_batch.arrays.neighbour_columns import neighbour_columns, touching_fraction
from nucseg_batch.arrays.radial_columns import radial_columns
from nucseg_batch.arrays.shape_columns import moments_hu, shape_columns
from nucseg_batch.arrays.texture_columns import texture_columns
from nucseg_batch.compartments import RINGS
from nucseg_batch.pipeline.background import PlaneBackground
from nucseg_batch.pipeline.channels import NetworkInput

PEERS = ("solidity", "feret_diameter_max", "moments_hu")
"""The columns of shape and moments that scikit-image has."""


def columns(labels: np.ndarray, channels: dict[str, np.ndarray]) -> dict[str, Callable[[], object]]:
    """Each group of columns as a function without arguments."""
    groups, measures = Groups.of(labels), measure(labels, channels["a"])
    centroids = np.stack([measures["centroid-0"], measures["centroid-1"]], axis=1)
    around = rings(labels, 1, 7)

    def plane_background(labels: np.ndarray, compartments: dict[str, np.ndarray]) -> object:
        background = PlaneBackground(measures["label"].size)
        background.add(labels, compartments, NetworkInput(channels["a"], channels["a"], more))
        means = {f"intensity_mean-{name}": measures["intensity_mean"] for name in more}
        return background.columns({**measures, **means})

    more = {name: plane for name, plane in channels.items() if name != "a"}
    return {
        "default columns": lambda: measure(labels, channels["a"], more),
        "rings of 1 + 7 pixels": lambda: rings(labels, 1, 7),
        "cells of 20 pixels": lambda: expanded(labels, 20),
        "the same by scikit-image": lambda: expand_labels(labels, 20),
        "grouping of nuclei": lambda: Groups.of(labels),
        "rings with columns": lambda: CompartmentSums.of(rings(labels, 1, 7), channels).columns(groups.ids, "ring"),
        "shape": lambda: shape_columns(groups, measures["perimeter"]),
        "moments": lambda: moments_hu(groups),
        "shape and moments by scikit-image": lambda: regionprops_table(labels, properties=PEERS),
        "intensity": lambda: intensity_columns(groups, channels),
        "weighted": lambda: weighted_centroids(groups, channels),
        "edge": lambda: intensity_columns(Groups.of(edges(labels)), channels, "edge_", ()),
        "background": lambda: plane_background(labels, {}),
        "background with rings": lambda: plane_background(labels, {RINGS: around}),
        "radial": lambda: radial_columns(groups, labels, channels),
        "texture": lambda: texture_columns(groups, channels),
        "neighbours": lambda: (neighbour_columns(centroids, 50), touching_fraction(groups, labels)),
    }


def main() -> None:
    """Measures, prints a table, and writes it as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--side", 1024), ("--nuclei", 500), ("--repeat", 11)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    labels = made_nuclei((asked.side, asked.side), asked.nuclei, seed=0)
    noise = np.random.default_rng(1)
    channels = {name: noise.normal(300 + 1500 * (labels > 0), 60).astype(np.uint16) for name in "abcd"}
    functions = columns(labels, channels)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(asked.repeat):
        for name, function in functions.items():
            began = time.process_time()
            function()
            seconds[name].append(time.process_time() - began)
    speeds = {name: round(labels.size / 1e6 / float(np.median(spent)), 1) for name, spent in seconds.items()}
    for name, speed in speeds.items():
        print(f"{name:48}{speed:8.1f} Mpx/s")
    if asked.json:
        asked.json.write_text(json.dumps({"Mpx/s": speeds, **{k: v for k, v in vars(asked).items() if k != "json"}}))


if __name__ == "__main__":
    main()
