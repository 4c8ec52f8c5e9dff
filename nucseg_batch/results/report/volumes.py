"""The section on volumes: how many and how large they are, and one stack through its slices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.compartments import VOLUMES
from nucseg_batch.errors import NucsegError
from nucseg_batch.files.csv_rows import csv_records, open_table
from nucseg_batch.files.names import file_name
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report.charts import Histogram
from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.linked_pictures import LinkedPicture, draw_linked
from nucseg_batch.results.report.windows import window
from nucseg_batch.results.run import FinishedRun

SHOWN = 8
"""Slices that are shown."""


@dataclass(frozen=True)
class VolumesSection:
    """What the report says of volumes."""

    count: int
    """Volumes."""
    stacks: int
    """Stacks with volumes; each time point is one."""
    single: int
    """Volumes in one slice only."""
    charts: list[Histogram]
    """Volume, and slices of a nucleus."""
    image: str
    """Image of the stack that is shown."""
    pictures: list[LinkedPicture]
    """Some of its slices, in order; none where masks cannot be read."""


@dataclass(frozen=True, eq=False)
class _Stack:
    """The stack with most volumes."""

    image: str
    """Its image."""
    time: str
    """Its cell t."""
    centres: NDArray[np.float64]
    """(n, 2): rows and columns of the centroids."""
    first: int
    """First slice with a volume."""
    stop: int
    """Slice after the last one."""


def volumes_section(run: FinishedRun) -> VolumesSection | None:
    """Reads volumes.csv once; None of a run without volumes. Memory is that of the rows of one stack."""
    path = RunLayout(run.store).volumes_csv
    if not path.is_file():
        return None
    voxels, physical, slices = Distribution(), Distribution(), Distribution()
    count = stacks = single = 0
    largest: _Stack | None = None
    with open_table(path) as file:
        for (image, time), group in itertools.groupby(csv_records(file), key=lambda row: (row["image"], row["t"])):
            rows = list(group)
            voxels.add(np.array([float(row["volume"]) for row in rows]))
            physical.add(np.array([float(row["volume_um3"] or "nan") for row in rows]))
            through = np.array([float(row["slices"]) for row in rows])
            slices.add(through)
            single += int((through == 1).sum())
            count, stacks = count + len(rows), stacks + 1
            if largest is None or len(rows) > len(largest.centres):
                centres = np.array([(float(row["centroid-1"]), float(row["centroid-2"])) for row in rows])
                ends = [int(row["bbox-0"]) for row in rows], [int(row["bbox-3"]) for row in rows]
                largest = _Stack(file_name(image), time, centres, min(ends[0]), max(ends[1]))
    if largest is None:
        return None
    in_micrometres = physical.count == count
    unit = f"volume of a nucleus ({'µm³' if in_micrometres else 'voxels'})"
    sizes = Histogram(physical if in_micrometres else voxels, "Volume", unit, "nuclei", whole=not in_micrometres)
    depth = Histogram(slices, "Slices of a nucleus", "slices in which it has pixels", "nuclei", whole=True)
    pictures = list(_pictures(run, largest))
    return VolumesSection(count, stacks, single, [sizes, depth], largest.image, pictures)


def _pictures(run: FinishedRun, stack: _Stack) -> Iterator[LinkedPicture]:
    """Slices from the first to the last one with a volume, evenly spaced, all of the same part of the plane."""
    rows = [row for row in run.planes() if row.image == stack.image and row.key[1] == stack.time and row.segmented]
    rows = [row for row in rows if stack.first <= row.depth < stack.stop]
    if not rows:
        return
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)).tolist()
    part = window(rows[0].shape, stack.centres, np.ones(len(stack.centres)), None)
    for row in (rows[number] for number in chosen):
        volumes = replace(row, mask=f"{row.mask.rpartition('/')[0]}/{VOLUMES}")
        try:
            mask = run.mask(volumes, part.rows, part.columns)
        except NucsegError:
            continue
        yield draw_linked(run, row, mask, part, f"slice {row.z}")
