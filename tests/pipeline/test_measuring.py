"""Planes as they come from the device, measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from doubles import Threshold
from numpy.typing import NDArray
from pictures import disks

from nucseg_batch.arrays.scale_search import ScaleTrial
from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.files.run.records import PlaneResult
from nucseg_batch.files.run.tables import NucleiTable
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.in_flight import Handed, PlaneInFlight, UnitInFlight
from nucseg_batch.pipeline.measuring import measured
from nucseg_batch.pipeline.tasks import UnitTask
from nucseg_batch.plan import Failure, ImageInfo, make_plan
from nucseg_batch.settings import SegmentSettings

SHAPE = (67, 83)


def handed(count: int, found: dict[int, Any] | None = None) -> list[Handed]:
    """Planes with nuclei as a threshold finds them; `found`: what becomes of some instead."""
    images = [ImageInfo(f"{i}.png", 1, 1, *SHAPE, 1, "uint8") for i in range(count)]
    plan = make_plan(images)
    unit = next(iter(plan.units()))
    work, finder = UnitInFlight(UnitTask(unit)), Threshold()
    batch: list[Handed] = []
    for i in range(count):
        pixels = picture(i)
        item = PlaneInFlight(work, i, unit.label_array.plane(unit.place(i)), NetworkInput(pixels, pixels))
        batch.append((item, (found or {}).get(i) or finder.found(pixels, 1.0)))
    return batch


def picture(seed: int) -> NDArray[np.uint8]:
    """Bright disks in noise, none in the second."""
    rng = np.random.default_rng(seed)
    centres = [] if seed == 1 else [tuple(rng.integers(5, 60, 2)) for _ in range(4)]
    return (disks(SHAPE, centres, 6) > 0).astype(np.uint8) * 150 + rng.integers(0, 90, SHAPE).astype(np.uint8)


def test_a_plane_gets_rows_statistics_and_labels() -> None:
    """Also one without nuclei."""
    planes = [measured(one, SegmentSettings(), NucleiTable()) for one in handed(3)]
    counts = [plane.rows.count("\n") for plane in planes]
    assert counts[0] > 1
    assert counts[1] == 0
    for plane, count in zip(planes, counts, strict=True):
        assert isinstance(plane.result, PlaneResult)
        assert plane.result.nuclei == count == plane.labels[NUCLEI_LABEL].max()


def test_a_plane_that_was_refused_or_cannot_be_measured_fails() -> None:
    """The device refused one; labels of the other have another shape than its pixels."""
    refused = Failure("0.png", "segment", "RuntimeError", "no")
    batch = handed(3, {0: refused, 1: ScaleTrial(np.ones((3, 5), np.int32), 1.0)})
    first, second, third = (measured(one, SegmentSettings(), NucleiTable()).result for one in batch)
    assert first is refused
    assert isinstance(second, Failure)
    assert second.stage == "measure"
    assert not isinstance(third, Failure)
